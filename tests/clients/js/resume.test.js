// npm's unmodified `@supabase/supabase-js`, cut again and again: its own reconnecting, our positions.

import assert from 'node:assert/strict'
import { after, beforeEach, test } from 'node:test'

import { createClient } from '@supabase/supabase-js'
import { WebSocket } from 'ws'

import { resuming } from '../../../examples/resume/resuming.js'
import { BUTTERBASE_URL, data, library, SERVICE_ROLE_KEY } from './library.js'

const TIMEOUT_MS = 20_000
const clients = []
const TICKS = { event: 'INSERT', schema: 'public', table: 'ticks' }

after(() =>
  Promise.all(
    clients.map(async (client) => {
      await client.removeAllChannels()
      await client.realtime.disconnect()
    }),
  ),
)

beforeEach(() => data(library.from('ticks').delete().gt('id', 0)))

/** A client that comes back at once, and the way to cut it. */
function connected(transport) {
  const sockets = []
  class Cuttable extends transport {
    constructor(...given) {
      super(...given)
      sockets.push(this)
    }
  }
  const client = createClient(BUTTERBASE_URL, SERVICE_ROLE_KEY, {
    auth: { persistSession: false, autoRefreshToken: false },
    realtime: { transport: Cuttable, reconnectAfterMs: () => 50 },
  })
  clients.push(client)
  return [client, () => sockets.at(-1).terminate()]
}

/** Subscribe; what it says of its states is kept. */
async function subscribed(channel, states = []) {
  channel.subscribe((state, error) => states.push([state, error]))
  await until(() => states.some(([state]) => state === 'SUBSCRIBED'))
  return states
}

async function until(isSo) {
  const deadline = Date.now() + TIMEOUT_MS
  while (!isSo()) {
    assert.ok(Date.now() < deadline, `not in time: ${isSo}`)
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
}

async function tick(...ids) {
  await data(library.from('ticks').insert(ids.map((id) => ({ id }))))
}

test('a channel goes on where it was cut', async () => {
  const [client, cut] = connected(resuming(WebSocket))
  const seen = []
  const channel = client.channel('ticks')
  channel.on('postgres_changes', TICKS, ({ new: row }) => seen.push(row.id))
  const states = await subscribed(channel)
  const wanted = []
  for (let round = 0; round < 5; round++) {
    const first = 1 + round * 4
    await tick(first, first + 1)
    if (round % 2) await until(() => seen.includes(first + 1))
    cut()
    await tick(first + 2, first + 3) // while nobody listens
    wanted.push(first, first + 1, first + 2, first + 3)
    await until(() => seen.includes(first + 3))
  }
  assert.deepEqual(seen, wanted)
  assert.ok(states.filter(([state]) => state === 'SUBSCRIBED').length > 3)
})

test('a channel that has heard nothing yet goes on from where it began', async () => {
  const [client, cut] = connected(resuming(WebSocket))
  const seen = []
  const channel = client.channel('quiet')
  channel.on('postgres_changes', TICKS, ({ new: row }) => seen.push(row.id))
  await subscribed(channel)
  cut()
  await tick(1, 2)
  await until(() => seen.length >= 2)
  assert.deepEqual(seen, [1, 2])
})

test('what was not read is told, from the position of the read in the entry', async () => {
  await tick(1, 2)
  const answer = await fetch(`${BUTTERBASE_URL}/rest/v1/ticks?select=id`, {
    headers: { apikey: SERVICE_ROLE_KEY },
  })
  const rows = (await answer.json()).map((row) => row.id)
  assert.deepEqual(rows, [1, 2])
  await tick(3) // between reading and subscribing
  let position = answer.headers.get('butterbase-position')
  const entry = {
    ...TICKS,
    get from() {
      return position
    },
  }
  const [client, cut] = connected(WebSocket)
  const channel = client.channel('read')
  channel.on('postgres_changes', entry, ({ new: row }) => rows.push(row.id))
  await subscribed(channel)
  await until(() => rows.includes(3))
  await tick(4)
  await until(() => rows.includes(4))
  assert.deepEqual(rows, [1, 2, 3, 4])
  // The client joins again with the same entry: from there all comes once more.
  cut()
  await tick(5)
  await until(() => rows.includes(5))
  assert.deepEqual(rows, [1, 2, 3, 4, 3, 4, 5])
})

test('the position that a channel has come to goes before that of its entry', async () => {
  const answer = await fetch(`${BUTTERBASE_URL}/rest/v1/ticks`, {
    headers: { apikey: SERVICE_ROLE_KEY },
  })
  const seen = []
  const entry = { ...TICKS, from: answer.headers.get('butterbase-position') }
  const [client, cut] = connected(resuming(WebSocket))
  const channel = client.channel('both')
  channel.on('postgres_changes', entry, ({ new: row }) => seen.push(row.id))
  await tick(1)
  await subscribed(channel)
  await until(() => seen.length === 1)
  cut()
  await tick(2)
  await until(() => seen.includes(2))
  assert.deepEqual(seen, [1, 2])
})

test('a position that is too old is an error with a code, and then the channel begins anew', async () => {
  const [client] = connected(resuming(WebSocket))
  const seen = []
  const states = []
  let from = '0/1/1'
  const entry = {
    ...TICKS,
    get from() {
      return from
    },
  }
  const channel = client.channel('late')
  channel.on('postgres_changes', entry, ({ new: row }) => seen.push(row.id))
  channel.subscribe((state, error) => states.push([state, error]))
  await until(() => states.length > 0)
  const [[state, error]] = states
  assert.equal(state, 'CHANNEL_ERROR')
  assert.equal(error.cause.code, 'resync_required')
  assert.match(error.message, /ResyncRequired/)
  from = error.cause.position
  await until(() => states.some(([name]) => name === 'SUBSCRIBED'))
  await tick(1)
  await until(() => seen.length > 0)
  assert.deepEqual(seen, [1])
})
