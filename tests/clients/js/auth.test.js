// npm's unmodified `@supabase/auth-js`, as the `auth` of `@supabase/supabase-js`: users and sessions.

import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'

import {
  AuthInvalidJwtError, AuthSessionMissingError, AuthWeakPasswordError,
} from '@supabase/supabase-js'

import {
  ask, AUTH_URL, claimsOf, client, configure, errorOf, eventsOf, mail, member, newAddress,
  PASSWORD, resetSettings, sessionOf, setUp, signedIn, storage, userOf,
} from './auth.js'
import { ANON_KEY, data } from './library.js'

before(setUp)
after(resetSettings)

test('who signs up confirms the address by a code', async () => {
  const [auth, email] = [client(), newAddress()]
  const events = await eventsOf(auth)
  const options = { data: { name: 'Ana' } }
  const made = await data(auth.signUp({ email, password: PASSWORD, options }))
  assert.equal(made.session, null)
  assert.deepEqual([made.user.email, made.user.user_metadata.name], [email, 'Ana'])
  const early = await errorOf(auth.signInWithPassword({ email, password: PASSWORD }))
  assert.equal(early.code, 'email_not_confirmed')
  const { code } = await mail(email)
  const opened = await data(auth.verifyOtp({ type: 'signup', email, token: code }))
  assert.equal(opened.user.id, made.user.id)
  assert.ok(opened.user.email_confirmed_at)
  assert.deepEqual(await userOf(auth), opened.user)
  assert.deepEqual(events, ['INITIAL_SESSION', 'SIGNED_IN'])
})

test('without confirmation who signs up is signed in', async () => {
  await configure({ mail: { is_autoconfirmed: true } })
  try {
    const [auth, email] = [client(), newAddress()]
    await data(auth.signUp({ email, password: PASSWORD }))
    assert.equal((await sessionOf(auth)).user.email, email)
    const taken = await errorOf(client().signUp({ email, password: PASSWORD }))
    assert.deepEqual([taken.status, taken.code], [422, 'user_already_exists'])
  } finally {
    await configure({ mail: { is_autoconfirmed: false } })
  }
})

test('refusals are of the classes of the client', async () => {
  const [auth, email] = [client(), newAddress()]
  const wrong = await errorOf(auth.signInWithPassword({ email, password: PASSWORD }))
  assert.deepEqual([wrong.name, wrong.status, wrong.code, wrong.message],
    ['AuthApiError', 400, 'invalid_credentials', 'Invalid login credentials'])
  const weak = await errorOf(auth.signUp({ email, password: 'short' }))
  assert.ok(weak instanceof AuthWeakPasswordError)
  assert.deepEqual([weak.status, weak.reasons], [422, ['length']])
  for (const request of [auth.getUser(), auth.updateUser({ data: {} }), auth.reauthenticate()]) {
    assert.ok((await errorOf(request)) instanceof AuthSessionMissingError)
  }
})

test('a password that became too weak still signs in, and is told', async () => {
  const { email } = await member()
  await configure({ password: { length_min: 20 } })
  try {
    const opened = await data(client().signInWithPassword({ email, password: PASSWORD }))
    assert.deepEqual(opened.weakPassword.reasons, ['length'])
  } finally {
    await configure({ password: null })
  }
})

test('an anonymous user becomes a permanent one', async () => {
  const [auth, email] = [client(), newAddress()]
  const { user } = await data(auth.signInAnonymously({ options: { data: { cart: 3 } } }))
  assert.equal(user.is_anonymous, true)
  assert.equal((await claimsOf(auth)).is_anonymous, true)
  await data(auth.updateUser({ email }))
  const { code } = await mail(email)
  const opened = await data(auth.verifyOtp({ type: 'email_change', email, token: code }))
  assert.deepEqual([opened.user.id, opened.user.is_anonymous], [user.id, false])
  await data(auth.updateUser({ password: PASSWORD }))
  assert.equal((await userOf(await signedIn(email))).id, user.id)
})

test('a session is told of by events', async () => {
  const { auth } = await member()
  const events = await eventsOf(auth)
  const old = await sessionOf(auth)
  const { session } = await data(auth.refreshSession())
  assert.notEqual(session.refresh_token, old.refresh_token)
  await data(auth.updateUser({ data: { name: 'Ana' } }))
  assert.equal((await userOf(auth)).user_metadata.name, 'Ana')
  await auth.signOut()
  assert.equal(await sessionOf(auth), null)
  assert.deepEqual(events, ['INITIAL_SESSION', 'TOKEN_REFRESHED', 'USER_UPDATED', 'SIGNED_OUT'])
  const gone = await errorOf(client().refreshSession(session))
  assert.equal(gone.code, 'refresh_token_not_found')
})

test('a session is set from its tokens, also from an expired one', async () => {
  const { auth, email } = await member()
  const session = await sessionOf(auth)
  const other = client()
  await data(other.setSession(session))
  assert.equal((await userOf(other)).email, email)
  const [header, payload, signature] = session.access_token.split('.')
  const claims = JSON.parse(Buffer.from(payload, 'base64url'))
  const expired = Buffer.from(JSON.stringify({ ...claims, exp: claims.iat - 60 }))
  const access_token = [header, expired.toString('base64url'), signature].join('.')
  const late = client()
  await data(late.setSession({ access_token, refresh_token: session.refresh_token }))
  assert.equal((await userOf(late)).email, email)
})

/** What a client finds in its storage after a long sleep. */
async function slept(auth) {
  const session = { ...(await sessionOf(auth)), expires_at: 1 }
  return () => storage({ tabs: JSON.stringify(session) })
}

async function assertAllLive(tabs, { user, session_id }) {
  const sessions = await Promise.all(tabs.map(sessionOf))
  assert.equal(new Set(sessions.map((session) => session.refresh_token)).size, 1)
  const claims = await Promise.all(tabs.map(claimsOf))
  assert.deepEqual(claims.map((each) => each.session_id), tabs.map(() => session_id))
  const listed = await ask('GET', `users/${user.id}/sessions`)
  assert.deepEqual(listed.sessions.map((each) => each.id), [session_id])
  for (const tab of tabs) {
    await tab.stopAutoRefresh()
  }
}

test('two tabs that refresh at once live on with one session', async () => {
  const { auth } = await member()
  const [{ user }, { session_id }] = [await sessionOf(auth), await claimsOf(auth)]
  const shared = (await slept(auth))()
  const options = { storage: shared, storageKey: 'tabs', autoRefreshToken: true }
  await assertAllLive([client(options), client(options)], { user, session_id })
})

test('so do clients that share nothing but the session', async () => {
  const { auth } = await member()
  const [{ user }, { session_id }] = [await sessionOf(auth), await claimsOf(auth)]
  const copy = await slept(auth)
  const options = () => ({ storage: copy(), storageKey: 'tabs', autoRefreshToken: true })
  const tabs = Array.from({ length: 6 }, () => client(options()))
  await assertAllLive(tabs, { user, session_id })
  for (const tab of tabs) {
    await data(tab.refreshSession())
  }
})

test('a refresh token that was stolen ends the session when both use it', async () => {
  await configure({ refresh_reuse_s: 0 })
  try {
    const { auth } = await member()
    const stolen = await sessionOf(auth)
    await data(auth.refreshSession())
    await data(auth.refreshSession())
    const reused = await errorOf(client().refreshSession(stolen))
    assert.deepEqual([reused.status, reused.code], [400, 'refresh_token_already_used'])
    assert.ok((await errorOf(auth.getUser())) instanceof AuthSessionMissingError)
  } finally {
    await configure({ refresh_reuse_s: null })
  }
})

for (const [scope, live] of [['global', []], ['local', [1]], ['others', [0]]]) {
  test(`signing out ends sessions: ${scope}`, async () => {
    const { auth, email } = await member()
    const tokens = [await sessionOf(auth), await sessionOf(await signedIn(email))]
    assert.equal((await auth.signOut({ scope })).error, null)
    const found = []
    for (const [at, session] of tokens.entries()) {
      const { error } = await client().getUser(session.access_token)
      if (error === null) {
        found.push(at)
      } else {
        assert.ok(error instanceof AuthSessionMissingError)
      }
    }
    assert.deepEqual(found, live)
  })
}

test('claims are verified by the public keys', async () => {
  const { auth } = await member()
  const session = await sessionOf(auth)
  const found = await data(auth.getClaims())
  assert.deepEqual([found.header.alg, found.claims.sub], ['ES256', session.user.id])
  assert.equal(found.claims.role, 'authenticated')
  const [header, payload, signature] = session.access_token.split('.')
  const claims = { ...JSON.parse(Buffer.from(payload, 'base64url')), role: 'service_role' }
  const forged = Buffer.from(JSON.stringify(claims)).toString('base64url')
  const refused = await errorOf(auth.getClaims([header, forged, signature].join('.')))
  assert.ok(refused instanceof AuthInvalidJwtError)
})

test('claims of HS256 are verified by the server', async () => {
  await configure({ jwt_algorithm: 'HS256' })
  try {
    const { auth, email } = await member()
    const found = await data(auth.getClaims())
    assert.deepEqual([found.header.alg, found.claims.email], ['HS256', email])
  } finally {
    await configure({ jwt_algorithm: null })
  }
})

test('a page of any origin may ask', async () => {
  const Origin = 'http://localhost:3000'
  const asked = 'apikey,authorization,content-type,x-client-info,x-supabase-api-version'
  for (const [path, method] of [['token', 'POST'], ['user', 'PUT'], ['factors/x', 'DELETE']]) {
    const preflight = await fetch(`${AUTH_URL}/${path}`, {
      method: 'OPTIONS',
      headers: {
        Origin,
        'Access-Control-Request-Method': method,
        'Access-Control-Request-Headers': asked,
      },
    })
    const allowed = (name) => preflight.headers.get(`access-control-allow-${name}`)
    assert.ok(preflight.ok)
    assert.equal(allowed('origin'), '*')
    assert.ok(allowed('methods').split(/, */).includes(method))
    assert.equal(allowed('headers'), asked) // a star would leave out authorization
  }
  const refused = await fetch(`${AUTH_URL}/user`, { headers: { Origin, apikey: ANON_KEY } })
  assert.equal(refused.status, 401)
  assert.equal(refused.headers.get('access-control-allow-origin'), '*')
  assert.equal(refused.headers.get('access-control-expose-headers'), '*')
})
