// npm's unmodified `@supabase/postgrest-js` reads.

import assert from 'node:assert/strict'
import { before, describe, test } from 'node:test'

import { data, ids, library, postgrest, refusal, refusedWith, resetRows } from './library.js'

const books = (columns = 'id') => library.from('books').select(columns)

before(resetRows)

const FILTERS = {
  eq: [(q) => q.eq('id', 3), [3]],
  'eq a text of odd signs': [(q) => q.eq('title', 'A "quoted", (odd) title'), [5]],
  neq: [(q) => q.neq('id', 3), [1, 2, 4, 5]],
  gt: [(q) => q.gt('price', 9.5), [3]],
  gte: [(q) => q.gte('price', 9.5), [1, 3]],
  lt: [(q) => q.lt('published', '1971-10-01'), [3]],
  lte: [(q) => q.lte('published', '1971-10-01'), [2, 3]],
  like: [(q) => q.like('title', 'The%'), [1, 2]],
  likeAllOf: [(q) => q.likeAllOf('title', ['The%', '%d']), [1]],
  likeAnyOf: [(q) => q.likeAnyOf('title', ['Sol%', 'Inv%']), [3, 4]],
  ilike: [(q) => q.ilike('title', '%THE%'), [1, 2]],
  ilikeAllOf: [(q) => q.ilikeAllOf('title', ['the%', '%HEAVEN']), [2]],
  ilikeAnyOf: [(q) => q.ilikeAnyOf('title', ['sol%', 'inv%']), [3, 4]],
  regexMatch: [(q) => q.regexMatch('title', '^The .*d$'), [1]],
  regexIMatch: [(q) => q.regexIMatch('title', '^(sol|inv)'), [3, 4]],
  'is null': [(q) => q.is('price', null), [4]],
  'is true': [(q) => q.is('in_print', true), [1, 3, 5]],
  isDistinct: [(q) => q.isDistinct('in_print', true), [2, 4]],
  in: [(q) => q.in('id', [1, 4, 99]), [1, 4]],
  'in nothing': [(q) => q.in('id', []), []],
  notIn: [(q) => q.notIn('id', [1, 2]), [3, 4, 5]],
  'contains, an array': [(q) => q.contains('tags', ['utopia']), [1]],
  'contains, an element that is quoted': [(q) => q.contains('tags', ['"a, b"']), [3]],
  'contains, json': [(q) => q.contains('doc', { format: { size: 'small' } }), [1]],
  'contains, a range': [(q) => q.contains('sold', '[16,18)'), [1, 3]],
  'containedBy, an array': [(q) => q.containedBy('tags', ['odd']), [4, 5]],
  'containedBy, json': [(q) => q.containedBy('doc', { pages: 5, x: 1 }), [5]],
  'containedBy, a range': [(q) => q.containedBy('sold', '[0,25)'), [1, 5]],
  rangeGt: [(q) => q.rangeGt('sold', '(1,15)'), [2, 3]],
  rangeGte: [(q) => q.rangeGte('sold', '(15,99)'), [2]],
  rangeLt: [(q) => q.rangeLt('sold', '(15,25)'), [5]],
  rangeLte: [(q) => q.rangeLte('sold', '(1,30)'), [1, 2, 5]],
  rangeAdjacent: [(q) => q.rangeAdjacent('sold', '[3,10)'), [1, 5]],
  'overlaps, arrays': [(q) => q.overlaps('tags', ['dreams', 'odd']), [2, 5]],
  'overlaps, ranges': [(q) => q.overlaps('sold', '[29,90)'), [2, 3]],
  textSearch: [(q) => q.textSearch('words', 'heaven | solaris'), [2, 3]],
  'textSearch, plain': [
    (q) => q.textSearch('title', 'odd title', { type: 'plain', config: 'english' }),
    [5],
  ],
  'textSearch, phrase': [(q) => q.textSearch('words', 'invisible cities', { type: 'phrase' }), [4]],
  'textSearch, web': [
    (q) => q.textSearch('title', 'heaven or solaris', { type: 'websearch', config: 'english' }),
    [2, 3],
  ],
  match: [(q) => q.match({ author_id: 1, in_print: false }), [2]],
  not: [(q) => q.not('id', 'in', '(1,2)'), [3, 4, 5]],
  'not is null': [(q) => q.not('price', 'is', null), [1, 2, 3, 5]],
  or: [(q) => q.or('id.eq.1,and(price.lt.5,in_print.is.true)'), [1, 5]],
  'or with quotes': [(q) => q.or('title.eq."A \\"quoted\\", (odd) title",id.eq.2'), [2, 5]],
  filter: [(q) => q.filter('id', 'eq(any)', '{1,5}'), [1, 5]],
  'a path in json': [(q) => q.eq('doc->format->>size', 'small'), [1]],
}

describe('a filter finds its rows', () => {
  for (const [name, [build, expected]] of Object.entries(FILTERS)) {
    test(name, async () => {
      assert.deepEqual(await ids(build(books()).order('id')), expected)
    })
  }
})

test('a list may hold odd signs', async () => {
  const shelves = library.from('shelves').select('id').in('name', ['new (a, b)', 'lent'])
  assert.deepEqual(await ids(shelves.order('id')), [2, 3])
})

test('columns are renamed and cast', async () => {
  const select = books('id, name:title, price::text, doc->>pages').eq('id', 1)
  assert.deepEqual(await data(select), [
    { id: 1, name: 'The Dispossessed', price: '9.50', pages: '387' },
  ])
})

test('relations are embedded', async () => {
  const select = books('title, author:authors(name), shelves(name)').eq('id', 3)
  assert.deepEqual(await data(select.order('name', { referencedTable: 'shelves' })), [
    {
      title: 'Solaris',
      author: { name: 'Stanisław' },
      shelves: [{ name: 'classics' }, { name: 'lent' }],
    },
  ])
  const inner = books('id, shelves!inner(id)').eq('shelves.name', 'lent')
  assert.deepEqual(await data(inner), [{ id: 3, shelves: [{ id: 2 }] }])
  assert.deepEqual(await data(books('id, ...authors(name)').eq('id', 2)), [
    { id: 2, name: 'Ursula' },
  ])
})

test('filters and pages reach related rows', async () => {
  const authors = () => library.from('authors').select('id, books(id)').eq('id', 1)
  const first = { referencedTable: 'books' }
  const last = authors().order('id', { ascending: false, ...first }).limit(1, first)
  assert.deepEqual(await data(last), [{ id: 1, books: [{ id: 2 }] }])
  const chosen = authors().or('id.eq.1,id.eq.99', first)
  assert.deepEqual(await data(chosen), [{ id: 1, books: [{ id: 1 }] }])
  const paged = authors().order('id', first).range(1, 1, first)
  assert.deepEqual(await data(paged), [{ id: 1, books: [{ id: 2 }] }])
})

test('rows are ordered and paged', async () => {
  assert.deepEqual(await ids(books().order('price', { nullsFirst: true })), [4, 5, 2, 1, 3])
  const byTwo = books().order('in_print', { nullsFirst: false }).order('id', { ascending: false })
  assert.deepEqual(await ids(byTwo), [2, 5, 3, 1, 4])
  const byAuthor = books('id, authors(name)').order('authors(name)').order('id').limit(4)
  assert.deepEqual(await ids(byAuthor), [4, 3, 1, 2])
  assert.deepEqual(await ids(books().order('id').limit(2)), [1, 2])
  assert.deepEqual(await ids(books().order('id').range(1, 2)), [2, 3])
})

test('rows are counted', async () => {
  const exact = await library.from('books').select('id', { count: 'exact' }).limit(1)
  assert.deepEqual([exact.status, exact.data.length, exact.count], [206, 1, 5])
  const head = await library.from('books').select('*', { count: 'exact', head: true })
  assert.deepEqual([head.status, head.data, head.count], [200, null, 5])
  for (const count of ['planned', 'estimated']) {
    const answer = await library.from('books').select('id', { count })
    assert.equal(typeof answer.count, 'number')
    assert.ok(answer.count > 0)
  }
})

test('single and maybeSingle are one object, or say that there is none', async () => {
  assert.deepEqual(await data(books().eq('id', 1).single()), { id: 1 })
  const none = await refusal(books().eq('id', 99).single())
  assert.deepEqual([none.status, none.code, none.details], [
    406,
    'PGRST116',
    'The result contains 0 rows',
  ])
  assert.deepEqual(await data(books().eq('id', 1).maybeSingle()), { id: 1 })
  assert.equal(await data(books().eq('id', 99).maybeSingle()), null)
  await refusedWith('PGRST116', books().maybeSingle())
})

test('rows come as csv, and without nulls', async () => {
  const csv = books('id,title').in('id', [3, 5]).order('id').csv()
  assert.equal(await data(csv), 'id,title\n3,Solaris\n5,"A ""quoted"", (odd) title"')
  assert.deepEqual(await data(books('id, price').eq('id', 4).stripNulls()), [{ id: 4 }])
  assert.deepEqual(await data(books('id, price').eq('id', 4).stripNulls().single()), { id: 4 })
})

test('another schema is reached', async () => {
  const shop = library.schema('shop')
  assert.deepEqual(await data(shop.from('offers').select('label')), [{ label: 'two for one' }])
  assert.equal(await data(shop.rpc('best')), 'two for one')
  await refusedWith('PGRST106', library.schema('secret').from('x').select())
})

test('plans are shown where they are allowed', async () => {
  await refusedWith('PGRST107', books().explain())
  assert.match(await data(postgrest.from('books').select('id').explain()), /cost=/)
  const options = { analyze: true, verbose: true, settings: true, buffers: true, wal: true }
  const [plan] = await data(
    postgrest.from('books').select('id').eq('id', 1).single().explain({ ...options, format: 'json' }),
  )
  assert.ok('Plan' in plan && 'Execution Time' in plan)
})

test('the OpenAPI document is read', async () => {
  const document = await data(library.getOpenApiSpec())
  assert.equal(document.swagger, '2.0')
  assert.ok('/books' in document.paths && '/rpc/add' in document.paths)
  const shop = await data(library.schema('shop').getOpenApiSpec())
  assert.deepEqual(Object.keys(shop.definitions), ['offers'])
})

test('aggregates are for where they are allowed', async () => {
  await refusedWith('PGRST123', books('price.sum()'))
  assert.deepEqual(await data(postgrest.from('books').select('count()')), [{ count: 5 }])
})
