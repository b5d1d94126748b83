// npm's unmodified `@supabase/auth-js`: administrators, second factors, identities.

import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'

import { AuthSessionMissingError } from '@supabase/supabase-js'

import {
  admin, AUTH_URL, claimsOf, client, errorOf, eventsOf, follow, mail, member, newAddress, PASSWORD,
  resetSettings, sessionOf, setUp, signedIn, totp, userOf, WELCOME,
} from './auth.js'
import { ANON_KEY, data, supabase } from './library.js'

before(setUp)
after(resetSettings)

test('a second factor is added, asked for and given up', async () => {
  const { auth, email } = await member()
  const events = await eventsOf(auth)
  const made = await data(auth.mfa.enroll({ factorType: 'totp', friendlyName: 'phone' }))
  assert.ok(made.totp.qr_code.startsWith('data:image/svg+xml;utf-8,<svg'))
  assert.ok(made.totp.uri.startsWith('otpauth://totp/'))
  const [factorId, { secret }] = [made.id, made.totp]
  const challenge = await data(auth.mfa.challenge({ factorId }))
  const wrong = await errorOf(auth.mfa.verify({ factorId, challengeId: challenge.id, code: '1' }))
  assert.equal(wrong.code, 'mfa_verification_failed')
  await data(auth.mfa.verify({ factorId, challengeId: challenge.id, code: totp(secret) }))
  assert.deepEqual(events, ['INITIAL_SESSION', 'MFA_CHALLENGE_VERIFIED'])
  const levels = async (of) => {
    const level = await data(of.mfa.getAuthenticatorAssuranceLevel())
    return [level.currentLevel, level.nextLevel]
  }
  assert.deepEqual(await levels(auth), ['aal2', 'aal2'])
  const other = await signedIn(email)
  assert.deepEqual(await levels(other), ['aal1', 'aal2'])
  const barred = await errorOf(other.updateUser({ password: 'battery staple' }))
  assert.equal(barred.code, 'insufficient_aal')
  await data(other.mfa.challengeAndVerify({ factorId, code: totp(secret, 1) }))
  assert.deepEqual(await levels(other), ['aal2', 'aal2'])
  assert.deepEqual((await data(other.mfa.listFactors())).totp.map(({ id }) => id), [factorId])
  assert.equal((await data(other.mfa.unenroll({ factorId }))).id, factorId)
  await data(other.refreshSession())
  assert.deepEqual(await levels(other), ['aal1', 'aal1'])
})

test('a browser is led to the provider', async () => {
  const options = { redirectTo: WELCOME, scopes: 'drive', skipBrowserRedirect: true }
  const asked = await data(client({ flowType: 'pkce' }).signInWithOAuth({ provider: 'google', options }))
  const url = new URL(asked.url)
  assert.equal(url.origin + url.pathname, `${AUTH_URL}/authorize`)
  assert.deepEqual([url.searchParams.get('provider'), url.searchParams.get('code_challenge_method')],
    ['google', 's256'])
})

test('a provider that is not set up is refused', async () => {
  const asked = await data(client().signInWithOAuth({ provider: 'github' }))
  const answer = await fetch(asked.url, { redirect: 'manual' })
  assert.equal(answer.status, 400)
  assert.equal((await answer.json()).msg, 'Unsupported provider: provider is not enabled')
})

test('an identity is linked by an address of ours', async () => {
  const { auth, email } = await member({ flowType: 'pkce' })
  const linked = await data(auth.linkIdentity({ provider: 'google', options: { redirectTo: WELCOME } }))
  const url = new URL(linked.url)
  assert.equal(url.origin + url.pathname, `${AUTH_URL}/authorize`)
  const { identities } = await data(auth.getUserIdentities())
  assert.deepEqual(identities.map(({ provider }) => provider), ['email'])
  assert.equal(identities[0].identity_data.email, email)
  const last = await errorOf(auth.unlinkIdentity(identities[0]))
  assert.equal(last.code, 'single_identity_not_deletable')
  const nobody = await errorOf(client().linkIdentity({ provider: 'google' }))
  assert.equal(nobody.code, 'no_authorization')
})

test('administrators page through users', async () => {
  await Promise.all([member(), member()])
  const { total } = await data(admin.listUsers())
  assert.ok(total >= 2)
  const first = await data(admin.listUsers({ page: 1, perPage: total - 1 }))
  assert.deepEqual([first.users.length, first.total], [total - 1, total])
  assert.deepEqual([first.nextPage, first.lastPage, first.aud], [2, 2, 'authenticated'])
  const last = await data(admin.listUsers({ page: 2, perPage: total - 1 }))
  assert.deepEqual([last.users.length, last.nextPage, last.total], [1, null, total])
  assert.ok(!first.users.some(({ id }) => id === last.users[0].id))
})

test('administrators make, change and delete users', async () => {
  const email = newAddress()
  const attributes = { email, password: PASSWORD, email_confirm: true, app_metadata: { plan: 'pro' } }
  const { user } = await data(admin.createUser(attributes))
  const auth = await signedIn(email)
  assert.equal((await claimsOf(auth)).app_metadata.plan, 'pro')
  assert.equal((await errorOf(admin.createUser(attributes))).code, 'email_exists')
  const banned = await data(admin.updateUserById(user.id, { ban_duration: '1h' }))
  assert.ok(Date.parse(banned.user.banned_until) > Date.now())
  const barred = await errorOf(client().signInWithPassword({ email, password: PASSWORD }))
  assert.equal(barred.code, 'user_banned')
  assert.equal((await errorOf(auth.refreshSession())).code, 'refresh_token_not_found')
  await data(admin.updateUserById(user.id, { ban_duration: 'none' }))
  assert.equal((await userOf(await signedIn(email))).id, user.id)
  await data(admin.deleteUser(user.id, true))
  const softly = (await data(admin.getUserById(user.id))).user
  assert.ok(softly.deleted_at)
  assert.notEqual(softly.email, email)
  const late = await errorOf(client().signInWithPassword({ email, password: PASSWORD }))
  assert.equal(late.code, 'invalid_credentials')
  await data(admin.deleteUser(user.id))
  const gone = await errorOf(admin.getUserById(user.id))
  assert.deepEqual([gone.status, gone.code], [404, 'user_not_found'])
})

test('administrators make links', async () => {
  const email = newAddress()
  const options = { redirectTo: WELCOME, data: { name: 'Ana' } }
  const link = { type: 'signup', email, password: PASSWORD, options }
  const made = await data(admin.generateLink(link))
  assert.deepEqual([made.user.email, made.user.user_metadata.name], [email, 'Ana'])
  const { properties } = made
  assert.deepEqual([properties.redirect_to, properties.verification_type], [WELCOME, 'signup'])
  const url = await follow(properties.action_link)
  assert.equal(new URLSearchParams(url.hash.slice(1)).get('type'), 'signup')
  const magic = await data(admin.generateLink({ type: 'magiclink', email }))
  const auth = client()
  await data(auth.verifyOtp({ type: 'email', email, token: magic.properties.email_otp }))
  const newEmail = newAddress()
  for (const type of ['email_change_current', 'email_change_new']) {
    const change = await data(admin.generateLink({ type, email, newEmail }))
    const token_hash = change.properties.hashed_token
    await data(auth.verifyOtp({ type: 'email_change', token_hash }))
  }
  assert.equal((await userOf(auth)).email, newEmail)
  const nobody = await errorOf(admin.generateLink({ type: 'recovery', email }))
  assert.equal(nobody.code, 'user_not_found')
})

test('administrators invite', async () => {
  const email = newAddress()
  const options = { data: { team: 'x' }, redirectTo: WELCOME }
  const { user } = await data(admin.inviteUserByEmail(email, options))
  assert.ok(user.invited_at)
  const { kind, tokenHash } = await mail(email)
  assert.equal(kind, 'invite')
  const auth = client()
  await data(auth.verifyOtp({ type: 'invite', token_hash: tokenHash }))
  assert.equal((await userOf(auth)).user_metadata.team, 'x')
  await data(auth.updateUser({ password: PASSWORD }))
  await signedIn(email)
})

test('administrators end sessions and remove factors', async () => {
  const { auth } = await member()
  const { user, access_token } = await sessionOf(auth)
  const { id } = await data(auth.mfa.enroll({ factorType: 'totp' }))
  const { factors } = await data(admin.mfa.listFactors({ userId: user.id }))
  assert.deepEqual(factors.map((factor) => factor.id), [id])
  await data(admin.mfa.deleteFactor({ userId: user.id, id }))
  assert.deepEqual((await data(auth.mfa.listFactors())).all, [])
  assert.equal((await admin.signOut(access_token)).error, null)
  assert.ok((await errorOf(client().getUser(access_token))) instanceof AuthSessionMissingError)
})

test('the anon key is no administrator', async () => {
  const refused = await errorOf(supabase(ANON_KEY).auth.admin.listUsers())
  assert.deepEqual([refused.status, refused.code], [403, 'not_admin'])
})
