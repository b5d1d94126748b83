// The auth of the app under test: its settings, its mail, and people who use it.

import assert from 'node:assert/strict'
import { createHmac } from 'node:crypto'

import { BUTTERBASE_URL, data, SERVICE_ROLE_KEY, supabase } from './library.js'

export const AUTH_URL = `${BUTTERBASE_URL}/auth/v1`
export const PASSWORD = 'correct horse'
/** Of the app's own machine, where a redirect may lead to any port. */
export const WELCOME = 'http://127.0.0.1:3000/welcome'

export const admin = supabase(SERVICE_ROLE_KEY).auth.admin

export async function ask(method, path, body) {
  const answer = await fetch(`${AUTH_URL}/admin/${path}`, {
    method,
    headers: { apikey: SERVICE_ROLE_KEY, 'Content-Type': 'application/json' },
    body: body && JSON.stringify(body),
  })
  assert.equal(answer.status, 200)
  return answer.json()
}

export async function configure(settings) {
  await ask('PUT', 'settings', settings)
}

/** Addresses are confirmed by mail, and everything may be done as often as one likes. */
export async function setUp() {
  await configure({
    is_anonymous_enabled: true,
    is_manual_linking_enabled: true,
    mail: { is_autoconfirmed: false },
    rate_limits: { is_enabled: false },
    providers: { google: { client_id: 'app', client_secret: 'secret' } },
  })
}

/** All settings as they are where none is given. */
export async function resetSettings() {
  const names = Object.keys(await ask('GET', 'settings'))
  await configure(Object.fromEntries(names.map((name) => [name, null])))
}

/** The newest mail to an address. */
export async function mail(recipient) {
  const { mails } = await ask('GET', 'outbox')
  const { kind, text } = mails.find((each) => each.recipient === recipient)
  const link = text.match(/https?:\/\/\S+\/auth\/v1\/verify\?\S+/)?.[0]
  return {
    kind,
    code: text.match(/\b\d{6}\b/)[0],
    link,
    tokenHash: link && new URL(link).searchParams.get('token'),
  }
}

/** Where a browser is led. */
export async function follow(link) {
  const answer = await fetch(link, { redirect: 'manual' })
  assert.equal(answer.status, 303)
  return new URL(answer.headers.get('location'))
}

export function newAddress() {
  return `${crypto.randomUUID()}@js.example`
}

/** What a browser keeps of a client, also for the next one. */
export function storage(items = {}) {
  const kept = new Map(Object.entries(items))
  return {
    getItem: (name) => kept.get(name) ?? null,
    setItem: (name, value) => void kept.set(name, value),
    removeItem: (name) => void kept.delete(name),
  }
}

/** A client's auth that keeps its session; `options` are of its `auth`. */
export function client(options = {}) {
  return supabase(undefined, { persistSession: true, storage: storage(), ...options }).auth
}

/** Somebody who has just signed up. */
export async function member(options) {
  const email = newAddress()
  const auth = client(options)
  await data(auth.signUp({ email, password: PASSWORD }))
  await data(auth.verifyOtp({ type: 'signup', email, token: (await mail(email)).code }))
  return { auth, email }
}

/** The same person at another device. */
export async function signedIn(email, password = PASSWORD) {
  const auth = client()
  await data(auth.signInWithPassword({ email, password }))
  return auth
}

export const claimsOf = async (auth) => (await data(auth.getClaims())).claims
export const sessionOf = async (auth) => (await data(auth.getSession())).session
export const userOf = async (auth) => (await data(auth.getUser())).user

/** The events from now on, once the first of them has come. */
export async function eventsOf(auth) {
  const events = []
  await new Promise((resolve) => {
    auth.onAuthStateChange((event) => resolve(events.push(event)))
  })
  return events
}

export async function errorOf(request) {
  const { error } = await request
  assert.notEqual(error, null)
  return error
}

/** The code of an authenticator (RFC 6238); each is good once, so a second one is of a later step. */
export function totp(secret, lateSteps = 0) {
  const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567'
  const bits = [...secret].map((c) => alphabet.indexOf(c).toString(2).padStart(5, '0')).join('')
  const key = Buffer.from(bits.match(/.{8}/g).map((byte) => parseInt(byte, 2)))
  const step = Buffer.alloc(8)
  step.writeBigUInt64BE(BigInt(Math.floor(Date.now() / 30_000) + lateSteps))
  const digest = createHmac('sha1', key).update(step).digest()
  const number = digest.readUInt32BE(digest.at(-1) & 15) & 0x7fffffff
  return String(number % 1_000_000).padStart(6, '0')
}
