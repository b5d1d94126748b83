// npm's unmodified `@supabase/auth-js`: what is mailed, and what it opens.

import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'

import {
  claimsOf, client, errorOf, eventsOf, follow, mail, member, newAddress, PASSWORD, resetSettings,
  setUp, signedIn, storage, userOf, WELCOME,
} from './auth.js'
import { data } from './library.js'

before(setUp)
after(resetSettings)

test('a mailed code signs in, and so does a token hash', async () => {
  const [auth, email] = [client(), newAddress()]
  await data(auth.signInWithOtp({ email }))
  const first = await mail(email)
  const opened = await data(auth.verifyOtp({ type: 'email', email, token: first.code }))
  assert.equal(opened.session.user.email, email)
  assert.deepEqual((await claimsOf(auth)).amr.map((entry) => entry.method), ['otp'])
  await data(auth.signInWithOtp({ email, options: { shouldCreateUser: false } }))
  const token_hash = (await mail(email)).tokenHash
  const again = await data(client().verifyOtp({ type: 'email', token_hash }))
  assert.equal(again.user.id, opened.user.id)
  const used = await errorOf(client().verifyOtp({ type: 'email', token_hash }))
  assert.deepEqual([used.status, used.code], [403, 'otp_expired'])
})

test('a link brings a session in the fragment', async () => {
  const email = newAddress()
  await data(client().signInWithOtp({ email, options: { emailRedirectTo: WELCOME } }))
  const { link } = await mail(email)
  const url = await follow(link)
  assert.equal(url.origin + url.pathname + url.search, WELCOME)
  const members = Object.fromEntries(new URLSearchParams(url.hash.slice(1)))
  assert.deepEqual([members.token_type, members.type], ['bearer', 'magiclink'])
  const auth = client()
  await data(auth.setSession(members))
  assert.equal((await userOf(auth)).email, email)
  const used = new URLSearchParams((await follow(link)).hash.slice(1))
  assert.deepEqual([used.get('error'), used.get('error_code')], ['access_denied', 'otp_expired'])
})

test('with PKCE a link brings a code that needs the verifier', async () => {
  const [kept, email] = [storage(), newAddress()]
  const options = { flowType: 'pkce', storage: kept, storageKey: 'app' }
  await data(client(options).signInWithOtp({ email, options: { emailRedirectTo: WELCOME } }))
  const code = (await follow((await mail(email)).link)).searchParams.get('code')
  const back = client(options) // the page has been left, and loaded anew
  const events = await eventsOf(back)
  const { session } = await data(back.exchangeCodeForSession(code))
  assert.equal(session.user.email, email)
  assert.deepEqual(events, ['INITIAL_SESSION', 'SIGNED_IN'])
  await data(client(options).getUser())
  const stranger = client({ flowType: 'pkce' })
  await data(stranger.signInWithOtp({ email: newAddress() }))
  assert.equal((await errorOf(stranger.exchangeCodeForSession(code))).code, 'flow_state_not_found')
})

test('with PKCE another verifier does not do', async () => {
  const email = newAddress()
  await data(client({ flowType: 'pkce' }).signInWithOtp({ email }))
  const code = (await follow((await mail(email)).link)).searchParams.get('code')
  const thief = client({ flowType: 'pkce' })
  await data(thief.signInWithOtp({ email: newAddress() }))
  const refused = await errorOf(thief.exchangeCodeForSession(code))
  assert.deepEqual([refused.status, refused.code], [400, 'bad_code_verifier'])
})

test('a forgotten password is replaced', async () => {
  const { email } = await member()
  const auth = client({ flowType: 'pkce' })
  const events = await eventsOf(auth)
  await data(auth.resetPasswordForEmail(email, { redirectTo: WELCOME }))
  const code = (await follow((await mail(email)).link)).searchParams.get('code')
  const { redirectType } = await data(auth.exchangeCodeForSession(code))
  assert.equal(redirectType, 'recovery')
  assert.deepEqual(events, ['INITIAL_SESSION', 'PASSWORD_RECOVERY'])
  assert.equal((await errorOf(auth.updateUser({ password: PASSWORD }))).code, 'same_password')
  await data(auth.updateUser({ password: 'battery staple' }))
  await signedIn(email, 'battery staple')
})

test('a forgotten password is replaced by a code', async () => {
  const { email } = await member()
  const auth = client()
  const events = await eventsOf(auth)
  await data(auth.resetPasswordForEmail(email))
  const { code } = await mail(email)
  await data(auth.verifyOtp({ type: 'recovery', email, token: code }))
  assert.deepEqual(events, ['INITIAL_SESSION', 'PASSWORD_RECOVERY'])
  await data(auth.updateUser({ password: 'battery staple' }))
  await signedIn(email, 'battery staple')
  await data(auth.resetPasswordForEmail(newAddress())) // which nobody has
})

test('a confirmation is sent again', async () => {
  const [auth, email] = [client(), newAddress()]
  await data(auth.signUp({ email, password: PASSWORD }))
  const first = await mail(email)
  await data(auth.resend({ type: 'signup', email }))
  const second = await mail(email)
  const old = await errorOf(auth.verifyOtp({ type: 'signup', token_hash: first.tokenHash }))
  assert.equal(old.code, 'otp_expired')
  await data(auth.verifyOtp({ type: 'signup', token_hash: second.tokenHash }))
})

test('an address changes when both have confirmed', async () => {
  const [{ auth, email }, next] = [await member(), newAddress()]
  const asked = await data(auth.updateUser({ email: next }))
  assert.deepEqual([asked.user.email, asked.user.new_email], [email, next])
  const { code } = await mail(email)
  const half = await data(auth.verifyOtp({ type: 'email_change', email, token: code }))
  assert.deepEqual([half.user, half.session], [null, null])
  const token_hash = (await mail(next)).tokenHash
  const done = await data(auth.verifyOtp({ type: 'email_change', token_hash }))
  assert.equal(done.user.email, next)
  assert.equal((await userOf(auth)).email, next)
  await signedIn(next)
})

test('a nonce is mailed and sent with a new password', async () => {
  const { auth, email } = await member()
  await data(auth.reauthenticate())
  const { kind, code } = await mail(email)
  assert.equal(kind, 'reauthentication')
  await data(auth.updateUser({ password: 'battery staple', nonce: code }))
  await signedIn(email, 'battery staple')
})
