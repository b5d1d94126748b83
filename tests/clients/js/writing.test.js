// npm's unmodified `@supabase/postgrest-js` writes, calls functions, and is refused.

import assert from 'node:assert/strict'
import { beforeEach, test } from 'node:test'

import { data, ids, library, postgrest, refusal, refusedWith, resetRows } from './library.js'

const books = () => library.from('books')
const authors = () => library.from('authors')

beforeEach(resetRows)

test('rows are inserted', async () => {
  const minimal = await books().insert({ title: 'We' })
  assert.deepEqual([minimal.status, minimal.data, minimal.error], [201, null, null])
  const chosen = books().insert({ title: 'Lem', author_id: 2 }).select('title, authors(name)')
  assert.deepEqual(await data(chosen.single()), { title: 'Lem', authors: { name: 'Stanisław' } })
  const counted = await books().insert([{ title: 'a' }, { title: 'b' }], { count: 'exact' })
  assert.equal(counted.count, 2)
})

test('rows with other keys are filled with nulls or defaults', async () => {
  const given = [{ name: 'Ada', country: 'UK' }, { name: 'Bo' }]
  assert.deepEqual(await data(authors().insert(given).select('country')), [
    { country: 'UK' },
    { country: null },
  ])
  await resetRows()
  const defaults = authors().insert(given, { defaultToNull: false }).select('country')
  assert.deepEqual(await data(defaults), [{ country: 'UK' }, { country: 'unknown' }])
})

test('an upsert merges by key, by other columns, or not at all', async () => {
  const byKey = authors().upsert({ id: 1, name: 'Ursula K.' }).select('id, name, country')
  assert.deepEqual(await data(byKey), [{ id: 1, name: 'Ursula K.', country: 'US' }])
  const given = { author_id: 2, title: 'Solaris', price: 3 }
  const byTitle = books().upsert(given, { onConflict: 'author_id,title' }).select('id, price')
  assert.deepEqual(await data(byTitle), [{ id: 3, price: 3 }])
  const ignored = [{ name: 'Italo', country: 'Italy' }, { name: 'New', country: 'here' }]
  const options = { onConflict: 'name', ignoreDuplicates: true }
  assert.deepEqual(await data(authors().upsert(ignored, options).select('name')), [{ name: 'New' }])
  assert.deepEqual(await data(authors().select('country').eq('name', 'Italo')), [{ country: null }])
})

test('rows are updated', async () => {
  const minimal = await books().update({ price: 5 }, { count: 'exact' }).eq('author_id', 1)
  assert.deepEqual([minimal.status, minimal.data, minimal.count], [204, null, 2])
  const chosen = books().update({ doc: { pages: 1 } }).eq('id', 2).select('id, price, doc')
  assert.deepEqual(await data(chosen), [{ id: 2, price: 5, doc: { pages: 1 } }])
})

test('rows are deleted', async () => {
  const minimal = await books().delete({ count: 'exact' }).lt('price', 10)
  assert.deepEqual([minimal.status, minimal.data, minimal.count], [204, null, 3])
  assert.deepEqual(await data(books().delete().eq('id', 3).select('id').single()), { id: 3 })
  assert.deepEqual(await ids(books().select('id')), [4])
})

test('more rows than allowed are not changed', async () => {
  await refusedWith('PGRST124', books().update({ price: 0 }).gt('id', 0).maxAffected(2))
  await refusedWith('PGRST124', books().delete().gt('id', 0).maxAffected(4))
  await refusedWith('PGRST124', library.rpc('discard_of', { author: 1 }).maxAffected(1))
  assert.equal((await ids(books().select('id').gt('price', 0))).length, 4)
  await data(books().update({ price: 0 }).eq('author_id', 1).maxAffected(2))
})

test('a write is undone on request where that is allowed', async () => {
  const insert = postgrest.from('authors').insert({ id: 7, name: 'Ghost' }).select('id')
  assert.deepEqual(await data(insert.rollback()), [{ id: 7 }])
  assert.deepEqual(await data(authors().select('id').eq('id', 7)), [])
})

for (const get of [false, true]) {
  test(`functions are called by ${get ? 'GET' : 'POST'}`, async () => {
    const call = (name, given) => library.rpc(name, given, { get })
    assert.equal(await data(call('add', { a: 2, b: 3 })), 5)
    assert.equal(await data(call('add', { a: 2 })), 3)
    assert.deepEqual(await ids(call('books_with', { wanted: ['ocean'] })), [3])
    const found = call('books_of', { author: 'Ursula' }).select('id, authors(name)').gt('id', 1)
    assert.deepEqual(await data(found), [{ id: 2, authors: { name: 'Ursula' } }])
    const last = call('books_of', { author: 'Ursula' }).order('id', { ascending: false }).limit(1)
    assert.deepEqual(await ids(last), [2])
    const one = call('books_of', { author: 'Italo' }).select('id').single()
    assert.deepEqual(await data(one), { id: 4 })
    assert.equal(await data(call('books_of', { author: 'nobody' }).maybeSingle()), null)
  })
}

test('a body of any JSON reaches a function', async () => {
  const value = { a: [1, null, 'é'], 'b c': { d: true } }
  assert.deepEqual(await data(library.rpc('echo', { value })), value)
})

test('what a function finds is counted', async () => {
  const call = (options) => library.rpc('books_of', { author: 'Ursula' }, options)
  const head = await call({ count: 'exact', head: true })
  assert.deepEqual([head.status, head.data, head.count], [200, null, 2])
  const counted = await call({ count: 'exact' }).limit(1)
  assert.deepEqual([counted.data.length, counted.count], [1, 2])
})

test('a function that writes is not for GET', async () => {
  const got = await refusal(library.rpc('discard', { book_id: 1 }, { get: true }))
  assert.deepEqual([got.status, got.code], [405, '25006'])
  const posted = await library.rpc('discard', { book_id: 1 })
  assert.deepEqual([posted.status, posted.data, posted.error], [204, null, null])
  assert.deepEqual(await ids(library.rpc('discard_of', { author: 1 }).select('id')), [2])
})

test('an error has all its parts', async () => {
  assert.deepEqual(await refusal(library.rpc('refuse')), {
    status: 400,
    code: 'P0001',
    message: 'not today',
    details: 'it is Sunday',
    hint: 'come back',
  })
  assert.equal((await refusal(library.rpc('brew'))).status, 418)
  const thrown = async () => await library.rpc('refuse').throwOnError()
  await assert.rejects(thrown, { code: 'P0001', name: 'PostgrestError' })
})

test("errors have PostgREST's codes", async () => {
  await refusedWith('PGRST205', library.from('bookz').select())
  await refusedWith('42703', books().select('nothing'))
  await refusedWith('PGRST200', books().select('id, nobody(id)'))
  await refusedWith('PGRST100', books().select().filter('id', 'eqq', '1'))
  await refusedWith('22P02', books().select().eq('id', 'x'))
  await refusedWith('PGRST204', books().insert([{ nothing: 1 }]))
  await refusedWith('23502', books().insert({ price: 1 }))
  await refusedWith('23503', books().insert({ title: 'x', author_id: 99 }))
  await refusedWith('23505', authors().insert({ name: 'Italo' }))
  await refusedWith('PGRST202', library.rpc('nothing'))
})

test('a request can be aborted', async () => {
  const { error } = await books().select().abortSignal(AbortSignal.abort())
  assert.match(error.message, /AbortError/)
})
