// npm's unmodified `@supabase/supabase-js`: channels, with the serializer of version 2.

import assert from 'node:assert/strict'
import { after, test } from 'node:test'

import { data, SERVICE_ROLE_KEY, supabase } from './library.js'

const TIMEOUT_MS = 20_000
const clients = []

after(() =>
  Promise.all(
    clients.map(async (client) => {
      await client.removeAllChannels()
      await client.realtime.disconnect()
    }),
  ),
)

function connected(key) {
  const client = supabase(key)
  clients.push(client)
  return client
}

async function signedIn(email) {
  const client = connected()
  const { error } = await client.auth.signUp({ email, password: 'correct horse' })
  assert.equal(error, null)
  await client.realtime.setAuth()
  return client
}

/** Messages as they arrive. */
class Inbox {
  #messages = []
  #waiting = []

  take = (message) => {
    const waiting = this.#waiting.shift()
    if (waiting) waiting(message)
    else this.#messages.push(message)
  }

  next() {
    if (this.#messages.length) return Promise.resolve(this.#messages.shift())
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error('nothing came')), TIMEOUT_MS)
      this.#waiting.push((message) => {
        clearTimeout(timer)
        resolve(message)
      })
    })
  }

  get isEmpty() {
    return this.#messages.length === 0
  }
}

/** A channel that hears everything, once it is subscribed. */
async function listening(client, topic, config = {}) {
  const channel = client.channel(topic, { config })
  const inbox = new Inbox()
  channel.on('broadcast', { event: '*' }, inbox.take)
  await subscribed(channel)
  return [channel, inbox]
}

function subscribed(channel) {
  return new Promise((resolve, reject) => {
    channel.subscribe((status, error) => {
      if (status === 'SUBSCRIBED') resolve()
      else if (status !== 'CLOSED') reject(error ?? new Error(status))
    })
  })
}

async function until(isSo) {
  const deadline = Date.now() + TIMEOUT_MS
  while (!isSo()) {
    assert.ok(Date.now() < deadline, `not in time: ${isSo}`)
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
}

const message = (n) => ({ type: 'broadcast', event: 'said', payload: { n } })

test('broadcasts reach the others, and their sender where it wants them', async () => {
  const [alone, others] = await listening(connected(), 'lobby')
  const [echoed, both] = await listening(connected(), 'lobby', {
    broadcast: { self: true, ack: true },
  })
  assert.equal(await echoed.send(message(1)), 'ok')
  assert.deepEqual((await others.next()).payload, { n: 1 })
  assert.deepEqual((await both.next()).payload, { n: 1 })
  assert.equal(await alone.send(message(2)), 'ok')
  assert.deepEqual((await both.next()).payload, { n: 2 })
  assert.ok(others.isEmpty)
})

test('bytes arrive as bytes', async () => {
  const [sender] = await listening(connected(), 'bytes')
  const [, inbox] = await listening(connected(), 'bytes')
  const payload = new Uint8Array([0, 1, 255]).buffer
  await sender.send({ type: 'broadcast', event: 'größe', payload })
  const heard = await inbox.next()
  assert.equal(heard.event, 'größe')
  assert.deepEqual([...new Uint8Array(heard.payload)], [0, 1, 255])
})

test('what is too large is an error for who asks', async () => {
  const [channel] = await listening(connected(), 'large', { broadcast: { ack: true } })
  const large = { type: 'broadcast', event: 'e', payload: { text: 'x'.repeat(3_100_000) } }
  assert.equal(await channel.send(large), 'error')
  assert.equal(await channel.send(message(1)), 'ok')
})

test('presences are the same for all', async () => {
  const [ada, bob] = ['ada', 'bob'].map((key) =>
    connected().channel('hall', { config: { presence: { key } } }),
  )
  for (const channel of [ada, bob]) {
    channel.on('presence', { event: 'sync' }, () => {})
    await subscribed(channel)
  }
  assert.equal(await ada.track({ at: 'home' }), 'ok')
  assert.equal(await bob.track({ at: 'work' }), 'ok')
  const places = (channel) => {
    const state = Object.entries(channel.presenceState())
    return Object.fromEntries(state.map(([key, [{ at }]]) => [key, at]))
  }
  const all = { ada: 'home', bob: 'work' }
  await until(() => places(ada).bob && places(bob).ada)
  assert.deepEqual([places(ada), places(bob)], [all, all])
  assert.equal(await ada.track({ at: 'sea' }), 'ok')
  await until(() => places(bob).ada === 'sea')
  assert.equal(bob.presenceState().ada.length, 1)
  await ada.untrack()
  await until(() => !bob.presenceState().ada)
  const late = connected().channel('hall')
  late.on('presence', { event: 'sync' }, () => {})
  await subscribed(late)
  await until(() => places(late).bob === 'work')
  await bob.unsubscribe()
  await until(() => !late.presenceState().bob)
})

test('private channels are for those whom policies let in', async () => {
  const member = await signedIn('member@js.example')
  const { user } = (await member.auth.getSession()).data.session
  await data(connected(SERVICE_ROLE_KEY).from('members').insert({ user_id: user.id }))
  const config = { private: true, broadcast: { ack: true, self: true } }
  const [channel, inbox] = await listening(member, 'club', config)
  assert.equal(await channel.send(message(1)), 'ok')
  assert.deepEqual((await inbox.next()).payload, { n: 1 })

  const stranger = await signedIn('stranger@js.example')
  await assert.rejects(listening(stranger, 'club', config), /do not have permissions to read/)
  const [, outside] = await listening(connected(), 'club')
  assert.equal(await channel.send(message(2)), 'ok')
  assert.deepEqual((await inbox.next()).payload, { n: 2 })
  assert.ok(outside.isEmpty)
})

test('the database sends, and what it keeps is replayed', async () => {
  const service = connected(SERVICE_ROLE_KEY)
  const [, inbox] = await listening(service, 'news', { private: true })
  const say = (n) => data(service.rpc('say', { topic: 'news', body: { n } }))
  for (const n of [1, 2, 3]) await say(n)
  const heard = [await inbox.next(), await inbox.next(), await inbox.next()]
  assert.deepEqual(heard.map(({ payload }) => payload.n), [1, 2, 3])
  const [, late] = await listening(connected(SERVICE_ROLE_KEY), 'news', {
    private: true,
    broadcast: { replay: { since: Date.now() - 3_600_000, limit: 2 } },
  })
  const replayed = [await late.next(), await late.next()]
  assert.deepEqual(replayed.map(({ payload }) => payload.n), [2, 3])
  const expected = heard.slice(1).map(({ meta }) => ({ id: meta.id, replayed: true }))
  assert.deepEqual(replayed.map(({ meta }) => meta), expected)
  await say(4)
  assert.equal((await late.next()).payload.n, 4)
})

test('messages are sent over HTTP', async () => {
  const [, inbox] = await listening(connected(), 'post/office')
  const sender = connected().channel('post/office')
  assert.deepEqual(await sender.httpSend('said', { n: 1 }), { success: true })
  assert.deepEqual((await inbox.next()).payload, { n: 1 })
  assert.deepEqual(await sender.httpSend('said', new Uint8Array([7])), { success: true })
  assert.deepEqual([...new Uint8Array((await inbox.next()).payload)], [7])
  assert.equal(await sender.send(message(3)), 'ok') // not subscribed: the client posts it
  assert.deepEqual((await inbox.next()).payload, { n: 3 })
  const secret = connected().channel('club', { config: { private: true } })
  await assert.rejects(secret.httpSend('said', { n: 4 }), /Unauthorized/)
})

test('a client comes back by itself after the server has closed its socket', async () => {
  const client = connected()
  const [channel, inbox] = await listening(client, 'again', { broadcast: { self: true } })
  const [other] = await listening(connected(), 'again')
  // More than one message may have: the socket is closed with 1009.
  await channel.send({ type: 'broadcast', event: 'e', payload: { text: 'x'.repeat(6_000_000) } })
  await until(() => !client.realtime.isConnected())
  await until(() => client.realtime.isConnected() && channel.state === 'joined')
  await other.send(message(1))
  assert.deepEqual((await inbox.next()).payload, { n: 1 })
})

test('a channel waits until the log is read where it asks for that', async () => {
  const channel = connected().channel('ready', { config: { broadcast: { replication_ready: true } } })
  const inbox = new Inbox()
  channel.on('system', {}, inbox.take)
  await subscribed(channel)
  const { status, message } = await inbox.next()
  assert.deepEqual([status, message], ['ok', 'Replication connection established'])
})
