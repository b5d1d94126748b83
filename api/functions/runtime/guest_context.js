// `ctx`, the second argument of a handler: who calls, and clients of the platform's own API.
//
// The clients are requests through `fetch`, which the host lets reach the platform always.

/** Thrown by the clients of `ctx` for an answer that is not 2xx. */
class ApiError extends Error {
  constructor(status, problem) {
    super(problem?.message ?? problem?.error?.message ?? `the platform answered ${status}`);
    Object.assign(this, { name: "ApiError", status, code: problem?.code, hint: problem?.hint, details: problem?.details });
  }
}

async function readAnswer(response) {
  const type = response.headers.get("content-type") ?? "";
  if (/[/+]json\b/.test(type)) { const text = await response.text(); return text ? parse(text) : null; }
  return type.startsWith("text/") ? await response.text() : await response.blob();
}

async function ask(base, token, path, { method = "GET", headers = {}, body, signal } = {}) {
  const all = new Headers(headers);
  if (token && !all.has("authorization")) { all.set("authorization", `Bearer ${token}`); all.set("apikey", token); }
  let sent = body;
  const isPlain = typeof body === "object" && body !== null &&
    (Array.isArray(body) || [Object.prototype, null].includes(Object.getPrototypeOf(body)));
  if (isPlain || typeof body === "number" || typeof body === "boolean") {
    sent = stringify(body);
    if (!all.has("content-type")) all.set("content-type", "application/json");
  }
  return await globalThis.fetch(base + path, { method, headers: all, body: sent, signal });
}

async function askJson(base, token, path, options) {
  const response = await ask(base, token, path, options);
  const answer = await readAnswer(response);
  if (!response.ok) throw new ApiError(response.status, answer);
  return answer;
}

const FILTERS = ["eq", "neq", "gt", "gte", "lt", "lte", "like", "ilike", "is", "cs", "cd", "ov", "fts", "plfts", "phfts", "wfts"];
const NAMES = { contains: "cs", containedBy: "cd", overlaps: "ov", textSearch: "fts" };

function operand(value, operator) {
  if (value === null) return "null";
  if (Array.isArray(value)) return `{${value.map(quoted).join(",")}}`;
  if (typeof value === "object") return value instanceof Date ? value.toISOString() : stringify(value);
  return operator === "in" ? quoted(value) : String(value);
}

const quoted = (value) => /[,()"\\{}\s]/.test(String(value)) ? stringify(String(value)) : String(value);

/** A request to REST as it is being put together; `await` sends it, and gives {data, error, count, status}. */
class Query {
  #base; #token; #path; #query = new URLSearchParams(); #headers = {}; #prefer = []; #method = "GET"; #body; #shape; #signal;
  constructor(base, token, path) { this.#base = base; this.#token = token; this.#path = path; }
  select(columns = "*", { count, head } = {}) {
    this.#query.set("select", columns.replace(/\s+/g, ""));
    if (this.#method === "GET") { if (head) this.#method = "HEAD"; } else this.#prefer.push("return=representation");
    if (count) this.#prefer.push(`count=${count}`);
    return this;
  }
  insert(rows, options) { return this.#change("POST", rows, options); }
  upsert(rows, { onConflict, ignoreDuplicates, ...options } = {}) {
    if (onConflict) this.#query.set("on_conflict", onConflict);
    this.#prefer.push(`resolution=${ignoreDuplicates ? "ignore" : "merge"}-duplicates`);
    return this.#change("POST", rows, options);
  }
  update(values, options) { return this.#change("PATCH", values, options); }
  delete(options) { return this.#change("DELETE", undefined, options); }
  #change(method, body, { count } = {}) {
    this.#method = method; this.#body = body;
    if (count) this.#prefer.push(`count=${count}`);
    return this;
  }
  call(args, { get } = {}) {
    if (get) for (const [name, value] of Object.entries(args ?? {})) this.#query.append(name, operand(value));
    else { this.#method = "POST"; this.#body = args ?? {}; }
    return this;
  }
  filter(column, operator, value) { this.#query.append(column, `${operator}.${operand(value)}`); return this; }
  not(column, operator, value) { return this.filter(column, `not.${operator}`, value); }
  in(column, values) { this.#query.append(column, `in.(${values.map((v) => operand(v, "in")).join(",")})`); return this; }
  match(values) { for (const [name, value] of Object.entries(values)) this.filter(name, "eq", value); return this; }
  or(filters, { referencedTable } = {}) { this.#query.append(referencedTable ? `${referencedTable}.or` : "or", `(${filters})`); return this; }
  order(column, { ascending = true, nullsFirst, referencedTable } = {}) {
    const key = referencedTable ? `${referencedTable}.order` : "order", before = this.#query.get(key);
    const nulls = nullsFirst === undefined ? "" : nullsFirst ? ".nullsfirst" : ".nullslast";
    this.#query.set(key, `${before ? `${before},` : ""}${column}.${ascending ? "asc" : "desc"}${nulls}`);
    return this;
  }
  limit(count) { this.#query.set("limit", String(count)); return this; }
  range(from, to) { this.#query.set("offset", String(from)); return this.limit(to - from + 1); }
  single() { this.#shape = "single"; return this; }
  maybeSingle() { this.#shape = "maybe"; return this; }
  schema(name) { this.#headers["accept-profile"] = this.#headers["content-profile"] = name; return this; }
  /** What is written happens once: a later write with the same key changes nothing, and is no error. */
  idempotent(key) { this.#headers["butterbase-idempotency-key"] = String(key); return this; }
  abortSignal(signal) { this.#signal = signal; return this; }
  throwOnError() { this.#isThrowing = true; return this; }
  #isThrowing = false;
  async #send() {
    const headers = { accept: this.#shape === "single" ? "application/vnd.pgrst.object+json" : "application/json", ...this.#headers };
    if (this.#prefer.length) headers.prefer = this.#prefer.join(",");
    const query = this.#query.toString();
    const response = await ask(this.#base, this.#token, `/rest/v1/${this.#path}${query ? `?${query}` : ""}`,
      { method: this.#method, headers, body: this.#body, signal: this.#signal });
    const text = await response.text();
    let answer = null;
    try { answer = text ? parse(text) : null; } catch { answer = { message: text }; }
    const total = response.headers.get("content-range")?.split("/")[1];
    const count = total && total !== "*" ? Number(total) : null;
    if (answer?.code === "already_applied") return { data: null, error: null, count: null, status: 200 };
    if (!response.ok) {
      if (this.#isThrowing) throw new ApiError(response.status, answer);
      return { data: null, error: answer ?? { message: `status ${response.status}` }, count, status: response.status };
    }
    if (this.#shape === "maybe" && Array.isArray(answer)) {
      if (answer.length > 1) {
        const error = { code: "PGRST116", message: `${answer.length} rows were found, not one`, details: null, hint: null };
        if (this.#isThrowing) throw new ApiError(406, error);
        return { data: null, error, count, status: 406 };
      }
      answer = answer[0] ?? null;
    }
    return { data: answer, error: null, count, status: response.status };
  }
  then(resolve, reject) { return this.#send().then(resolve, reject); }
}
for (const name of FILTERS) Query.prototype[name] = function (column, value) { return this.filter(column, name, value); };
for (const [name, operator] of Object.entries(NAMES)) Query.prototype[name] = Query.prototype[operator];

async function* events(response) {
  let text = "";
  for await (const part of response.body.pipeThrough(new TextDecoderStream())) {
    text += part;
    for (let end; (end = /\r?\n\r?\n/.exec(text)) !== null;) {
      const data = text.slice(0, end.index).split(/\r?\n/).filter((line) => line.startsWith("data:"))
        .map((line) => line.slice(5).trimStart()).join("\n");
      text = text.slice(end.index + end[0].length);
      if (data === "[DONE]") return;
      if (data) yield parse(data);
    }
  }
}

function clientsOf(base, token, serviceToken) {
  const path = (...parts) => parts.map((part) => String(part).split("/").map(encodeURIComponent).join("/")).join("/");
  const asService = (make) => {
    if (!serviceToken) throw new PermissionDenied("this function has no service token");
    return make(serviceToken);
  };
  const db = (own) => ({
    from: (table) => new Query(base, own, encodeURIComponent(table)),
    rpc: (name, args, options) => new Query(base, own, `rpc/${encodeURIComponent(name)}`).call(args, options),
    fetch: (where, options) => ask(base, own, `/rest/v1/${String(where).replace(/^\//, "")}`, options),
    asService: () => asService(db),
  });
  const ai = (own) => ({
    async chat(body, options = {}) {
      const response = await ask(base, own, "/chat/completions", { method: "POST", body, ...options });
      if (!response.ok) throw new ApiError(response.status, await readAnswer(response));
      return body.stream ? events(response) : await readAnswer(response);
    },
    embeddings: (body, options) => askJson(base, own, "/embeddings", { method: "POST", body, ...options }),
    models: () => askJson(base, own, "/models"),
    asService: () => asService(ai),
  });
  const storage = (own) => ({
    from: (bucket) => ({
      upload: (name, body, { contentType, upsert } = {}) => askJson(base, own, `/storage/v1/object/${path(bucket, name)}`, {
        method: "POST", body, headers: { ...(contentType && { "content-type": contentType }), ...(upsert && { "x-upsert": "true" }) },
      }),
      async download(name) {
        const response = await ask(base, own, `/storage/v1/object/${path(bucket, name)}`);
        if (!response.ok) throw new ApiError(response.status, await readAnswer(response));
        return await response.blob();
      },
      remove: (names) => askJson(base, own, `/storage/v1/object/${path(bucket)}`, { method: "DELETE", body: { prefixes: names } }),
      list: (prefix = "", options = {}) => askJson(base, own, `/storage/v1/object/list/${path(bucket)}`, { method: "POST", body: { prefix, ...options } }),
      createSignedUrl: (name, expiresIn) => askJson(base, own, `/storage/v1/object/sign/${path(bucket, name)}`, { method: "POST", body: { expiresIn } }),
    }),
    asService: () => asService(storage),
  });
  return { db: db(token), ai: ai(token), storage: storage(token) };
}

function contextOf(call, { name, revision, app_id, api_url, env }, perform, logger) {
  const given = call.head.context, base = `${api_url}/v1/${encodeURIComponent(app_id)}`;
  const own = given.token ?? given.service_token;
  const waitUntil = (promise) => {
    const kept = Promise.resolve(promise).catch((error) => logger.error("waitUntil:", error))
      .finally(() => call.background.delete(kept));
    call.background.add(kept);
  };
  const claims = new Map(); // key → whether this call has it
  let clients;
  const client = (which) => (clients ??= clientsOf(base, own, given.service_token))[which];
  return {
    env: Object.freeze({ ...env, ...call.head.env }),
    user: given.user ?? null,
    app: Object.freeze({ id: app_id, url: base }),
    function: Object.freeze({ name, revision }),
    request: Object.freeze({
      id: given.request_id, invocationId: given.invocation_id, trigger: given.trigger, attempt: given.attempt, ip: given.ip,
    }),
    signal: call.controller.signal, log: logger, waitUntil, completed: call.completed,
    get db() { return client("db"); }, get ai() { return client("ai"); }, get storage() { return client("storage"); },
    async invoke(other, body, { method = "POST", headers } = {}) {
      const where = String(other).split("/").map(encodeURIComponent).join("/");
      return await askJson(base, own, `/fn/${where}`, { method, headers, body });
    },
    queue: Object.freeze({
      send: (queue, body, { delay, key } = {}) =>
        perform(call, "queue.send", { queue, body: body ?? null, delay_s: delay ?? null, key: key ?? null }),
    }),
    idempotency: Object.freeze({
      claim: async (key, { ttl } = {}) => {
        // The host gives a key to the same invocation again, for its retries; not so within a call.
        const name = String(key), before = claims.get(name) ?? Promise.resolve(false);
        const claimed = before.then(async (has) =>
          !has && (await perform(call, "idempotency.claim", { key: name, ttl_s: ttl ?? null })).claimed);
        claims.set(name, before.then((has) => has || claimed).catch(() => false));
        return await claimed;
      },
    }),
  };
}
