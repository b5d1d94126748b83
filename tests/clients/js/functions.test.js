// npm's unmodified `@supabase/functions-js`, by way of `@supabase/supabase-js`.

import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { before, test } from 'node:test'

import { FunctionRegion } from '@supabase/functions-js'
import { FunctionsHttpError } from '@supabase/supabase-js'

import { ANON_KEY, BUTTERBASE_URL, resetRows, SERVICE_ROLE_KEY, supabase } from './library.js'

const code = readFileSync(new URL('../functions.ts', import.meta.url), 'utf8')

before(async () => {
  await resetRows()
  for (const [name, verify_jwt] of [['jsfn', true], ['jsopen', false]]) {
    const answer = await fetch(`${BUTTERBASE_URL}/v1/main/functions`, {
      method: 'POST',
      headers: { apikey: SERVICE_ROLE_KEY, 'content-type': 'application/json' },
      body: JSON.stringify({ name, code, verify_jwt, env: { GREETING: 'hello' } }),
    })
    assert.equal(answer.status, 201, await answer.text())
  }
})

async function invoked(name, options, client = supabase()) {
  const { data, error } = await client.functions.invoke(name, options)
  assert.equal(error, null, error && (await error.context?.text?.()))
  return data
}

test('an object goes as JSON and comes back as JSON', async () => {
  const data = await invoked('jsfn', { body: { n: 1 }, region: FunctionRegion.EuCentral1 })
  assert.deepEqual([data.method, data.path, data.body], ['POST', '/jsfn', { n: 1 }])
  assert.deepEqual([data.user, data.env, data.region], [null, 'hello', 'eu-central-1'])
})

test('a path below the function and another method', async () => {
  const data = await invoked('jsfn/a/b?x=1', { method: 'GET' })
  assert.deepEqual([data.method, data.path, data.query], ['GET', '/jsfn/a/b', '?x=1'])
})

test('text, bytes and forms', async () => {
  assert.equal(await invoked('jsfn/text', { body: 'abc' }), 'ABC')
  const bytes = new Uint8Array([0, 1, 254, 255])
  const blob = await invoked('jsfn/bytes', { body: bytes.buffer })
  assert.deepEqual(new Uint8Array(await blob.arrayBuffer()), bytes)
  const form = new FormData()
  form.set('name', 'x')
  form.set('file', new Blob(['content']), 'a.txt')
  assert.deepEqual(await invoked('jsfn/form', { body: form }), { name: 'x', file: 'content' })
})

test('an event stream is the response itself', async () => {
  const response = await invoked('jsfn/events')
  assert.equal(await response.text(), 'data: 1\n\ndata: 2\n\n')
})

test('a user is known, and reads as that user', async () => {
  const client = supabase()
  await client.auth.signUp({ email: 'fn@js.example', password: 'correct horse' })
  await client.from('notes').insert({ body: 'mine' })
  const data = await invoked('jsfn', { body: {} }, client)
  assert.deepEqual([data.user, data.rows], ['fn@js.example', [{ body: 'mine' }]])
})

test("the function's own error has its status, headers and body", async () => {
  const { error } = await supabase().functions.invoke('jsfn/refusal')
  assert.ok(error instanceof FunctionsHttpError)
  assert.equal(error.context.status, 418)
  assert.equal(error.context.headers.get('x-why'), 'tea')
  assert.deepEqual(await error.context.json(), { message: 'not today' })
})

test('what it throws is told without its reason', async () => {
  const { error } = await supabase().functions.invoke('jsfn/throw')
  const problem = await error.context.json()
  assert.deepEqual([error.context.status, problem.code], [500, 'function_failed'])
  assert.ok(!JSON.stringify(problem).includes('secret reason'))
})

test('a process that ends takes nothing but its own call with it', async () => {
  const { error } = await supabase().functions.invoke('jsfn/crash')
  assert.ok(error.context.status >= 500)
  assert.equal(await invoked('jsfn/text', { body: 'on' }), 'ON')
})

test('keys are asked for unless the function takes anybody', async () => {
  const url = `${BUTTERBASE_URL}/functions/v1`
  assert.equal((await fetch(`${url}/jsfn`)).status, 401)
  assert.equal((await fetch(`${url}/jsopen/text`, { method: 'POST', body: 'a' })).status, 200)
  const { error } = await supabase('wrong').functions.invoke('jsfn')
  assert.equal(error.context.status, 401)
})

test('a browser may ask first, and the function says who may', async () => {
  const answer = await fetch(`${BUTTERBASE_URL}/functions/v1/jsfn`, {
    method: 'OPTIONS',
    headers: { origin: 'https://app.example', 'access-control-request-method': 'POST' },
  })
  assert.equal(answer.status, 200)
  assert.equal(answer.headers.get('access-control-allow-origin'), 'https://app.example')
  const refused = await fetch(`${BUTTERBASE_URL}/functions/v1/nothere`, { headers: { apikey: ANON_KEY } })
  assert.equal(refused.status, 404)
  assert.equal(refused.headers.get('access-control-allow-origin'), '*')
})
