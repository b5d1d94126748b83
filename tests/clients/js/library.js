// The server under test, by the environment that test_supabase_js.py sets.

import assert from 'node:assert/strict'

import { PostgrestClient } from '@supabase/postgrest-js'
import { createClient } from '@supabase/supabase-js'
import { WebSocket } from 'ws'

export const { BUTTERBASE_URL, ANON_KEY, SERVICE_ROLE_KEY, POSTGREST_URL } = process.env

/** `@supabase/postgrest-js` as the service role. */
export const library = new PostgrestClient(`${BUTTERBASE_URL}/rest/v1`, {
  headers: { apikey: SERVICE_ROLE_KEY },
})

/** The same database in PostgREST mode. */
export const postgrest = new PostgrestClient(POSTGREST_URL)

/** `@supabase/supabase-js`; Node before 22 has no WebSocket. */
export function supabase(key = ANON_KEY, auth = {}) {
  return createClient(BUTTERBASE_URL, key, {
    auth: { persistSession: false, autoRefreshToken: false, ...auth },
    realtime: { transport: globalThis.WebSocket ?? WebSocket },
  })
}

export async function resetRows() {
  await data(library.rpc('reset_rows'))
}

/** What a request must answer. */
export async function data(request) {
  const answer = await request
  assert.equal(answer.error, null, JSON.stringify(answer.error))
  return answer.data
}

export async function ids(request) {
  return (await data(request)).map((row) => row.id)
}

/** The error that a request must answer, with its status. */
export async function refusal(request) {
  const { data, error, status } = await request
  assert.equal(data, null)
  assert.notEqual(error, null)
  return { ...error, status }
}

export async function refusedWith(code, request) {
  assert.equal((await refusal(request)).code, code)
}
