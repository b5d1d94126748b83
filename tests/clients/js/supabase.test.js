// npm's unmodified `@supabase/supabase-js`: its REST part, as users who signed up with it.

import assert from 'node:assert/strict'
import { before, test } from 'node:test'

import { data, refusal, refusedWith, resetRows, SERVICE_ROLE_KEY, supabase } from './library.js'

before(resetRows)

async function signedUp(email) {
  const client = supabase()
  const { error } = await client.auth.signUp({ email, password: 'correct horse' })
  assert.equal(error, null)
  return client
}

test('users see and change their own rows', async () => {
  const [alice, bob] = await Promise.all(['alice@js.example', 'bob@js.example'].map(signedUp))
  const hers = await data(alice.from('notes').insert({ body: 'milk' }).select().single())
  const his = await data(bob.from('notes').insert({ body: 'bread' }).select().single())
  assert.notEqual(hers.user_id, his.user_id)
  assert.deepEqual(await data(alice.from('notes').select('body')), [{ body: 'milk' }])
  assert.deepEqual(await data(bob.from('notes').select('body')), [{ body: 'bread' }])
  const change = bob.from('notes').update({ body: 'x' }).eq('id', hers.id).select()
  assert.deepEqual(await data(change), [])
  assert.deepEqual(await data(bob.from('notes').delete().eq('id', hers.id).select()), [])
  const theft = await refusal(bob.from('notes').insert({ body: 'x', user_id: hers.user_id }))
  assert.deepEqual([theft.status, theft.code], [403, '42501'])
  const { count } = await bob.from('notes').select('*', { count: 'exact', head: true })
  assert.equal(count, 1)
  const all = supabase(SERVICE_ROLE_KEY).from('notes').select('body').order('id')
  assert.deepEqual(await data(all), [{ body: 'milk' }, { body: 'bread' }])
})

test('with the anon key alone there is nobody', async () => {
  assert.deepEqual(await data(supabase().from('notes').select()), [])
  const refused = await refusal(supabase().from('notes').insert({ body: 'x' }))
  assert.deepEqual([refused.status, refused.code], [401, '42501'])
  await refusedWith('42501', supabase().rpc('reset_rows'))
})

test('who signs out is nobody again', async () => {
  const carol = await signedUp('carol@js.example')
  await data(carol.from('notes').insert({ body: 'secret' }))
  assert.equal((await data(carol.from('notes').select())).length, 1)
  await carol.auth.signOut()
  assert.deepEqual(await data(carol.from('notes').select()), [])
})

test('tables, functions and schemas are reached as documented', async () => {
  const client = supabase(SERVICE_ROLE_KEY)
  const select = client.from('books').select('title, authors(name)').eq('id', 3).single()
  assert.deepEqual(await data(select), { title: 'Solaris', authors: { name: 'Stanisław' } })
  assert.equal(await data(client.rpc('add', { a: 2, b: 3 })), 5)
  const offers = client.schema('shop').from('offers').select('label').limit(1).maybeSingle()
  assert.deepEqual(await data(offers), { label: 'two for one' })
  await refusedWith('PGRST205', client.from('nothing').select())
})
