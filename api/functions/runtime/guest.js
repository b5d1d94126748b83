// The inside of a jailed Deno process: it boots knowing no function, is given one, and serves its
// calls until it is ended.
//
// It has no permission from its first instruction on. All it can do is speak frames (frames.py)
// through the socket that is its standard input and output. What user code may do to this script it
// does to itself alone: the host takes nothing that comes from here on trust.
import { AsyncLocalStorage } from "node:async_hooks";
import process from "node:process";

const FRAME = {
  OPEN: 1, HEAD: 2, DATA: 3, END: 4, CREDIT: 5, RESET: 6, LOG: 7, READY: 8,
  PING: 9, PONG: 10, DONE: 11, LOAD: 12, LOADED: 13, FAULT: 14, OPERATION: 15, RESULT: 16,
};
const HEADER_BYTES = 9;
const WINDOW_BYTES = 256 * 1024;
const CHUNK_BYTES = 64 * 1024;
const MESSAGE_CHARS_MAX = 8192;
const STACK_CHARS_MAX = 8192;
const WARM_UP_ROUNDS = 4;
const NULL_BODY = new Set([101, 103, 204, 205, 304]);

const encoder = new TextEncoder(), decoder = new TextDecoder();
const { parse, stringify } = JSON;
const evaluate = globalThis.eval;
const exit = Deno.exit.bind(Deno), inspect = Deno.inspect.bind(Deno);
const input = Deno.stdin, output = Deno.stdout;
const nativeFetch = globalThis.fetch;
const { PermissionDenied } = Deno.errors;
const now = Date.now.bind(Date);
const soon = globalThis.queueMicrotask;
const current = new AsyncLocalStorage();

// ---- frames ----

let outgoing = [], outgoingBytes = 0, isFlushing = false;

// An answer's head waits for so many turns of the microtask queue: a body that is there already, as
// of most, has been read by then, and all of it goes out in one write.
const FLUSH_TURNS = 32;

function flushAfter(turns) {
  if (turns === 0) flush(); else soon(() => flushAfter(turns - 1));
}

function flush() {
  isFlushing = false;
  if (outgoing.length === 0) return;
  let whole = outgoing[0];
  if (outgoing.length > 1) {
    whole = new Uint8Array(outgoingBytes);
    let at = 0;
    for (const part of outgoing) { whole.set(part, at); at += part.length; }
  }
  outgoing = []; outgoingBytes = 0;
  write(whole);
}

function writeChannel(bytes) {
  // The host reads always, so that this waits for nothing but the copying.
  try {
    for (let at = 0; at < bytes.length;) at += output.writeSync(bytes.subarray(at));
  } catch { exit(0); }
}

let write = writeChannel;

function send(type, stream, payload) {
  const bytes = payload === undefined ? 0 : payload.length;
  const frame = new Uint8Array(HEADER_BYTES + bytes);
  frame[0] = bytes >>> 24; frame[1] = bytes >>> 16; frame[2] = bytes >>> 8; frame[3] = bytes;
  frame[4] = type;
  frame[5] = stream >>> 24; frame[6] = stream >>> 16; frame[7] = stream >>> 8; frame[8] = stream;
  if (bytes) frame.set(payload, HEADER_BYTES);
  outgoing.push(frame); outgoingBytes += frame.length;
  if (!isFlushing) { isFlushing = true; flushAfter(FLUSH_TURNS); }
}

const sendJson = (type, stream, value) => send(type, stream, encoder.encode(stringify(value)));

function sendCredit(stream, count) {
  const payload = new Uint8Array(4);
  new DataView(payload.buffer).setUint32(0, count);
  send(FRAME.CREDIT, stream, payload);
}

let rest = new Uint8Array(0);

function received(chunk) {
  let bytes = chunk;
  if (rest.length) {
    bytes = new Uint8Array(rest.length + chunk.length);
    bytes.set(rest); bytes.set(chunk, rest.length);
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let at = 0;
  while (bytes.length - at >= HEADER_BYTES) {
    const size = view.getUint32(at);
    if (bytes.length - at - HEADER_BYTES < size) break;
    const start = at + HEADER_BYTES;
    take(bytes[at + 4], view.getUint32(at + 5), bytes.subarray(start, start + size));
    at = start + size;
  }
  rest = bytes.slice(at);
}

async function listen() {
  const buffer = new Uint8Array(CHUNK_BYTES + HEADER_BYTES);
  for (;;) {
    const count = await input.read(buffer).catch(() => null);
    if (count === null) exit(0);
    received(buffer.subarray(0, count));
  }
}

// ---- bodies, both ways, each with as much credit as its reader has given ----

class Incoming {
  constructor(stream, dropped) {
    this.stream = stream; this.parts = []; this.isEnded = false; this.error = undefined;
    this.waiting = undefined; this.consumed = 0; this.dropped = dropped; this.isDropped = false;
  }
  push(bytes) { if (!this.isDropped) { this.parts.push(bytes.slice()); this.wake(); } }
  end() { this.isEnded = true; this.wake(); }
  fail(error) { this.error ??= error; this.parts = []; this.wake(); }
  wake() { this.waiting?.(); this.waiting = undefined; }
  async read() {
    for (;;) {
      if (this.error !== undefined) throw this.error;
      if (this.parts.length) {
        const part = this.parts.shift();
        this.consumed += part.length;
        if (!this.isEnded && this.consumed >= WINDOW_BYTES / 4) {
          sendCredit(this.stream, this.consumed); this.consumed = 0;
        }
        return part;
      }
      if (this.isEnded) return undefined;
      await new Promise((resolve) => { this.waiting = resolve; });
    }
  }
  /** The whole body where it has come already, which spares most requests a stream. */
  takeWhole() {
    if (!this.isEnded || this.parts.length > 1) return undefined;
    return this.parts.shift() ?? new Uint8Array(0);
  }
  toStream() {
    return new ReadableStream({
      pull: async (controller) => {
        const part = await this.read();
        if (part === undefined) controller.close(); else controller.enqueue(part);
      },
      cancel: () => { this.isDropped = true; this.parts = []; this.dropped?.(); },
    }, { highWaterMark: 0 });
  }
}

class Outgoing {
  constructor(stream) {
    this.stream = stream; this.credit = WINDOW_BYTES; this.waiting = undefined; this.isClosed = false;
  }
  grant(count) { this.credit += count; this.waiting?.(); this.waiting = undefined; }
  close() { this.isClosed = true; this.waiting?.(); this.waiting = undefined; }
  async write(bytes) {
    for (let at = 0; at < bytes.length;) {
      while (this.credit <= 0 && !this.isClosed) {
        await new Promise((resolve) => { this.waiting = resolve; });
      }
      if (this.isClosed) return false;
      const count = Math.min(bytes.length - at, this.credit, CHUNK_BYTES);
      send(FRAME.DATA, this.stream, bytes.subarray(at, at + count));
      this.credit -= count; at += count;
    }
    return !this.isClosed;
  }
  /** Raises what the stream raises, and for a chunk that is no bytes. */
  async writeAll(body) {
    const reader = body.getReader();
    this.reader = reader;
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      if (!(value instanceof Uint8Array)) {
        throw new TypeError("a body's chunks must be Uint8Array");
      }
      if (!await this.write(value)) { await reader.cancel("the reader has left").catch(() => {}); return; }
    }
    send(FRAME.END, this.stream);
  }
}

// ---- errors and logs ----

const cut = (text, max) => text.length > max ? text.slice(0, max) + "…" : text;

function describe(error) {
  try {
    if (error instanceof Error) {
      let stack = String(error.stack ?? "");
      if (error.cause instanceof Error) stack += `\nCaused by: ${error.cause.stack}`;
      return {
        name: cut(String(error.name), 200), message: cut(String(error.message), MESSAGE_CHARS_MAX),
        stack: cut(stack, STACK_CHARS_MAX),
      };
    }
    return { name: "Error", message: cut(`threw ${inspect(error)}`, MESSAGE_CHARS_MAX), stack: "" };
  } catch {
    return { name: "Error", message: "an error that cannot be shown was thrown", stack: "" };
  }
}

/** As console.log shows its arguments. */
function format(...values) {
  let start = 0, text = "";
  if (typeof values[0] === "string") {
    start = 1;
    text = values[0].replace(/%([sdifjoOc%])/g, (found, kind) => {
      if (kind === "%") return "%";
      if (start >= values.length) return found;
      const value = values[start++];
      switch (kind) {
        case "s": return typeof value === "string" ? value : typeof value === "object" ? inspect(value, { depth: 1 }) : String(value);
        case "d": case "i": case "f": {
          const number = typeof value === "bigint" ? value : Number(typeof value === "symbol" ? NaN : value);
          return String(kind === "i" && typeof number === "number" ? Math.trunc(number) : number);
        }
        case "j": return stringify(value);
        case "c": return "";
        default: return inspect(value);
      }
    });
  }
  for (let at = start; at < values.length; at++) {
    const value = values[at], shown = typeof value === "string" ? value : inspect(value);
    text += at === 0 ? shown : ` ${shown}`;
  }
  return text;
}

function log(level, values) {
  let message;
  try { message = format(...values); } catch (error) { message = describe(error).message; }
  const call = current.getStore();
  sendJson(FRAME.LOG, call?.id ?? 0, { at: now() / 1000, level, message: cut(message, MESSAGE_CHARS_MAX) });
}

const logger = {};
for (const level of ["debug", "info", "warn", "error"]) logger[level] = (...values) => log(level, values);
Object.freeze(logger);

{
  const counts = new Map(), timers = new Map();
  let indent = "";
  const say = (level, values) => log(level, indent && typeof values[0] === "string"
    ? [indent + values[0], ...values.slice(1)] : indent ? [indent, ...values] : values);
  const took = (label) => `${label}: ${(performance.now() - (timers.get(label) ?? performance.now())).toFixed(3)}ms`;
  Object.assign(console, {
    debug: (...v) => say("debug", v), log: (...v) => say("info", v), info: (...v) => say("info", v),
    warn: (...v) => say("warn", v), error: (...v) => say("error", v),
    trace: (...v) => say("debug", [`${format(...v)}\n${new Error().stack}`]),
    dir: (value, options) => say("info", [inspect(value, options)]),
    dirxml: (...v) => say("info", v), table: (value) => say("info", [inspect(value)]),
    assert: (condition, ...v) => { if (!condition) say("error", ["Assertion failed", ...v]); },
    group: (...v) => { if (v.length) say("info", v); indent += "    "; },
    groupCollapsed: (...v) => console.group(...v),
    groupEnd: () => { indent = indent.slice(4); }, clear: () => {},
    count: (label = "default") => {
      counts.set(label, (counts.get(label) ?? 0) + 1);
      say("info", [`${label}: ${counts.get(label)}`]);
    },
    countReset: (label = "default") => { counts.delete(label); },
    time: (label = "default") => { timers.set(label, performance.now()); },
    timeLog: (label = "default", ...v) => say("info", [took(label), ...v]),
    timeEnd: (label = "default") => { say("info", [took(label)]); timers.delete(label); },
  });
}

// ---- what a function may ask of the host: requests, and operations of the platform ----

let lastStream = 0;
const nextStream = () => (lastStream += 2);
const fetches = new Map(), operations = new Map();

function abortError(signal) {
  return signal.reason ?? new DOMException("The signal has been aborted", "AbortError");
}

globalThis.fetch = async function fetch(input, init) {
  const request = new Request(input, init);
  if (/^(data|blob):/.test(request.url)) return await nativeFetch(request);
  const signal = request.signal;
  if (signal.aborted) throw abortError(signal);
  const isStream = init?.body instanceof ReadableStream;
  let body = request.body, whole;
  if (body !== null && !isStream) { whole = new Uint8Array(await request.arrayBuffer()); body = null; }
  const stream = nextStream();
  const state = { stream, outgoing: new Outgoing(stream), incoming: undefined };
  const answered = new Promise((resolve, reject) => { state.resolve = resolve; state.reject = reject; });
  const forget = () => { fetches.delete(stream); state.outgoing.close(); signal.removeEventListener("abort", abort); };
  const reset = () => { if (fetches.has(stream)) { send(FRAME.RESET, stream); forget(); } };
  const abort = () => {
    const error = abortError(signal);
    reset(); state.reject(error); state.incoming?.fail(error);
  };
  state.forget = forget;
  state.incoming = new Incoming(stream, reset);
  fetches.set(stream, state);
  signal.addEventListener("abort", abort);
  sendJson(FRAME.OPEN, stream, {
    call: current.getStore()?.id ?? 0, method: request.method, url: request.url,
    headers: [...request.headers], redirect: request.redirect,
    length: whole === undefined ? (body === null ? 0 : null) : whole.length,
  });
  if (body !== null) {
    state.outgoing.writeAll(body).catch((error) => { reset(); state.reject(error); });
  } else {
    (async () => { if (!whole || await state.outgoing.write(whole)) send(FRAME.END, stream); })();
  }
  const head = await answered;
  // Made here, where its stack tells who asked.
  if (head.error?.isPermission) throw new PermissionDenied(head.error.message);
  if (head.error) throw new TypeError(head.error.message);
  const hasBody = request.method !== "HEAD" && !NULL_BODY.has(head.status);
  if (!hasBody) forget();
  const response = new Response(hasBody ? state.incoming.toStream() : null, {
    status: head.status, statusText: head.status_text, headers: head.headers,
  });
  Object.defineProperties(response, {
    url: { value: head.url }, redirected: { value: head.redirected }, type: { value: "basic" },
  });
  return response;
};

function operate(call, name, args) {
  const stream = nextStream();
  return new Promise((resolve, reject) => {
    operations.set(stream, { resolve, reject });
    sendJson(FRAME.OPERATION, stream, { call: call.id, name, arguments: args ?? null });
  });
}

function operated(stream, result) {
  const waiting = operations.get(stream);
  operations.delete(stream);
  if (waiting === undefined) return;
  if (result.error === undefined) { waiting.resolve(result.value); return; }
  const { code, message, hint } = result.error;
  waiting.reject(Object.assign(new Error(message), { code, hint }));
}

// ---- what a function finds of Deno ----

function refuse(what) {
  return () => { throw new PermissionDenied(`${what} is not available in functions; use fetch`); };
}

function isBuiltin(name) {
  return typeof name === "string" && process.getBuiltinModule(name) !== undefined;
}

const served = { handler: undefined };

function serve(first, second) {
  const handler = typeof first === "function" ? first : second ?? first?.handler;
  if (typeof handler !== "function") throw new TypeError("Deno.serve needs a handler");
  served.handler = (request, context) => handler(request, {
    remoteAddr: { transport: "tcp", hostname: context.request.ip ?? "0.0.0.0", port: 0 },
    completed: context.completed,
  });
  const finished = new Promise(() => {});
  return {
    finished, addr: { transport: "tcp", hostname: "0.0.0.0", port: 0 },
    shutdown: async () => {}, ref() {}, unref() {}, [Symbol.asyncDispose]: async () => {},
  };
}

const environment = new Map();

function hide() {
  for (const name of ["Worker", "SharedWorker", "BroadcastChannel", "localStorage", "sessionStorage",
    "caches", "prompt", "alert", "confirm", "close", "Storage", "Cache", "CacheStorage"]) {
    delete globalThis[name];
  }
  for (const name of Object.getOwnPropertyNames(globalThis)) if (/^GPU/.test(name)) delete globalThis[name];
  delete Navigator.prototype.gpu;
  for (const name of ["WebSocket", "WebSocketStream", "EventSource", "WebTransport"]) {
    if (!(name in globalThis)) continue;
    const message = refuse(name);
    Object.defineProperty(globalThis, name, {
      value: class { constructor() { message(); } }, configurable: true, writable: true,
    });
  }
  for (const name of ["connect", "connectTls", "listen", "listenTls", "listenDatagram", "startTls",
    "resolveDns", "connectQuic", "createHttpClient", "upgradeWebSocket", "serveHttp"]) {
    if (name in Deno) redefine(Deno, name, refuse(`Deno.${name}`));
  }
  for (const [name, level] of [["stdout", "info"], ["stderr", "error"]]) {
    const writeSync = (bytes) => { log(level, [decoder.decode(bytes).replace(/\n$/, "")]); return bytes.length; };
    const stream = {
      writeSync, write: async (bytes) => writeSync(bytes), isTerminal: () => false, close() {},
      get writable() { return new WritableStream({ write: (bytes) => { writeSync(bytes); } }); },
    };
    redefine(Deno, name, Object.freeze(stream));
    // The real one is the channel, which text in it would break.
    const write = (text, ...more) => {
      writeSync(typeof text === "string" ? encoder.encode(text) : text);
      more.find((each) => typeof each === "function")?.();
      return true;
    };
    redefine(process, name, Object.freeze({ write, isTTY: false, fd: -1, writable: true, on() {}, once() {}, emit() {}, end() {} }));
  }
  const nothing = { read: async () => null, readSync: () => null, isTerminal: () => false, close() {}, setRaw() {} };
  redefine(Deno, "stdin", Object.freeze({ ...nothing, readable: new Blob([]).stream() }));
  redefine(process, "stdin", undefined);
  redefine(Deno, "exit", () => { throw new PermissionDenied("Deno.exit is not available in functions; return a Response"); });
  redefine(Deno, "serve", serve);
  redefine(Deno, "env", Object.freeze({
    get: (name) => environmentOf(current.getStore()).get(String(name)),
    has: (name) => environmentOf(current.getStore()).has(String(name)),
    toObject: () => Object.fromEntries(environmentOf(current.getStore())),
    set: (name, value) => { environment.set(String(name), String(value)); },
    delete: (name) => { environment.delete(String(name)); },
  }));
  globalThis.require = (name) => {
    if (!isBuiltin(name)) throw new Error(`there is no module "${name}" here: bundle it with the function`);
    return process.getBuiltinModule(name);
  };
}

function redefine(object, name, value) {
  Object.defineProperty(object, name, { value, configurable: true, writable: true, enumerable: true });
}

function environmentOf(call) {
  if (call === undefined || call.added.length === 0) return environment;
  return new Map([...environment, ...call.added]);
}

// ---- loading, and calls ----

let load, handler;
const calls = new Map();

function find(exports) {
  const main = exports?.default;
  if (typeof main === "function") return main;
  if (typeof main?.fetch === "function") return main.fetch.bind(main);
  if (served.handler !== undefined) return served.handler;
  throw new TypeError("the function exports no handler: `export default` a function or {fetch}, or call Deno.serve");
}

async function evaluateBundle(source) {
  // In a strict script its `var` is not a global one: it is made one in the same script.
  evaluate(`${source}\n;globalThis.__fn = typeof __fn === "undefined" ? undefined : __fn;\n//# sourceURL=function:///${load.name}.js`);
  const exports = await globalThis.__fn;
  delete globalThis.__fn;
  handler = find(exports);
}

function loaded(payload) {
  const size = new DataView(payload.buffer, payload.byteOffset).getUint32(0);
  load = parse(decoder.decode(payload.subarray(4, 4 + size)));
  for (const [name, value] of Object.entries(load.env)) environment.set(name, value);
  redefine(process, "env", { ...load.env });
  const source = decoder.decode(payload.subarray(4 + size));
  load.ended = evaluateBundle(source).then(
    () => { sendJson(FRAME.LOADED, 0, {}); return true; },
    (error) => { sendJson(FRAME.LOADED, 0, { error: describe(error) }); return false; },
  );
}

class Call {
  constructor(id, head) {
    this.id = id; this.head = head; this.controller = new AbortController();
    this.incoming = new Incoming(id, undefined); this.outgoing = new Outgoing(id);
    this.background = new Set();
    this.added = Object.entries(head.env ?? {});
    this.completed = new Promise((resolve) => { this.complete = resolve; });
    this.completed.catch(() => {});
  }
  abort(message) {
    const error = new DOMException(message, "AbortError");
    this.controller.abort(error); this.incoming.fail(error); this.outgoing.close();
    this.outgoing.reader?.cancel(error).catch(() => {});
  }
  request() {
    const { method, url, headers } = this.head, init = { method, headers, signal: this.controller.signal };
    if (method !== "GET" && method !== "HEAD") {
      const whole = this.incoming.takeWhole();
      if (whole === undefined) { init.body = this.incoming.toStream(); init.duplex = "half"; }
      else if (whole.length) init.body = whole;
    }
    return new Request(url, init);
  }
}

async function serveCall(call) {
  if (!await load.ended) { calls.delete(call.id); return; }
  try {
    const context = contextOf(call, load, operate, logger);
    const response = await current.run(call, () => handler(call.request(), context));
    if (!(response instanceof Response) || response.status < 200 || response.bodyUsed) {
      sendJson(FRAME.RESET, call.id, { kind: "invalid", name: "TypeError", stack: "",
        message: response instanceof Response
          ? `the handler's Response cannot be sent (status ${response.status}${response.bodyUsed ? ", body already read" : ""})`
          : `the handler answered ${cut(inspect(response), 200)}, which is no Response` });
    } else {
      sendJson(FRAME.HEAD, call.id, { status: response.status, headers: [...response.headers] });
      if (response.body === null || call.head.method === "HEAD") {
        response.body?.cancel().catch(() => {});
        send(FRAME.END, call.id);
      } else await current.run(call, () => call.outgoing.writeAll(response.body));
    }
    call.complete();
  } catch (error) {
    sendJson(FRAME.RESET, call.id, { kind: "threw", ...describe(error) });
    call.complete();
  }
  while (call.background.size) await Promise.allSettled([...call.background]);
  calls.delete(call.id);
  call.incoming.fail(new TypeError("the call has ended"));
  send(FRAME.DONE, call.id);
}

function fault(error) {
  const call = current.getStore();
  sendJson(FRAME.FAULT, call?.id ?? 0, describe(error));
}
globalThis.addEventListener("unhandledrejection", (event) => { event.preventDefault(); fault(event.reason); });
globalThis.addEventListener("error", (event) => { event.preventDefault(); fault(event.error); });

function take(type, stream, payload) {
  const call = calls.get(stream), asked = fetches.get(stream);
  switch (type) {
    case FRAME.OPEN: {
      const opened = new Call(stream, parse(decoder.decode(payload)));
      calls.set(stream, opened);
      // After the other frames of this read: a small body is there as a whole then.
      soon(() => serveCall(opened));
      return;
    }
    case FRAME.HEAD: asked?.resolve(parse(decoder.decode(payload))); return;
    case FRAME.DATA: (call ?? asked)?.incoming.push(payload); return;
    case FRAME.END:
      (call ?? asked)?.incoming.end();
      asked?.forget();
      return;
    case FRAME.CREDIT:
      (call ?? asked)?.outgoing.grant(new DataView(payload.buffer, payload.byteOffset).getUint32(0));
      return;
    case FRAME.RESET: {
      const { message, is_permission } = payload.length ? parse(decoder.decode(payload)) : { message: "the client has left" };
      if (call) call.abort(message);
      else if (asked) {
        asked.forget();
        asked.resolve({ error: { message, isPermission: is_permission } });
        asked.incoming.fail(new TypeError(message));
      }
      return;
    }
    case FRAME.RESULT: operated(stream, parse(decoder.decode(payload))); return;
    case FRAME.LOAD: loaded(payload); return;
    case FRAME.PING: send(FRAME.PONG, stream); return;
  }
}

/** A function and calls of it that go nowhere, so that the first real one finds all of this code
 *  compiled, and what it needs of Deno's made. Nothing of it is left. */
async function warmUp() {
  const sent = [];
  write = (bytes) => { sent.push(bytes); };
  const frame = (type, stream, payload = new Uint8Array(0)) => {
    const bytes = new Uint8Array(HEADER_BYTES + payload.length), view = new DataView(bytes.buffer);
    view.setUint32(0, payload.length); view.setUint8(4, type); view.setUint32(5, stream);
    bytes.set(payload, HEADER_BYTES);
    return bytes;
  };
  const join = (...parts) => {
    const bytes = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
    let at = 0;
    for (const part of parts) { bytes.set(part, at); at += part.length; }
    return bytes;
  };
  const head = encoder.encode(stringify({ name: "warm-up", revision: "", app_id: "", api_url: "http://localhost", env: { A: "b" } }));
  const size = new Uint8Array(4);
  new DataView(size.buffer).setUint32(0, head.length);
  const bundle = encoder.encode(`"use strict"; var __fn = (() => {
    var exports = {}, define = Object.defineProperty;
    define(exports, "__esModule", { value: true });
    async function handler(req, ctx) {
      const url = new URL(req.url);
      url.searchParams.get("a"); req.headers.get("content-type"); ctx.env.A; ctx.db; Deno.env.get("A");
      console.log("%s", url.pathname, { a: [1] });
      if (req.method === "GET") return new Response("text", { status: 200, headers: { "x-a": "b" } });
      const body = await req.json();
      return Response.json({ a: body.a });
    }
    define(exports, "default", { enumerable: true, get: () => handler });
    return exports;
  })();`);
  const open = (stream, method) => frame(FRAME.OPEN, stream, encoder.encode(stringify({
    method, url: "http://localhost/warm-up?a=b", headers: [["content-type", "application/json"], ["a", "b"]],
    env: {}, context: { invocation_id: "", request_id: "", trigger: "http", user: null, token: null, service_token: null, attempt: 1, ip: null },
  })));
  received(frame(FRAME.LOAD, 0, join(size, head, bundle)));
  for (let round = 0; round < WARM_UP_ROUNDS; round++) {
    const stream = 2 * round + 1, method = round % 2 ? "GET" : "POST";
    received(join(open(stream, method), frame(FRAME.DATA, stream, encoder.encode('{"a":1}')), frame(FRAME.END, stream)));
    while (calls.size || round === 0 && !sent.length) await new Promise((resolve) => setTimeout(resolve, 0));
  }
  flush();
  write = writeChannel;
  load = handler = served.handler = undefined;
  environment.clear();
  redefine(process, "env", {});
}

hide();
await warmUp();
send(FRAME.READY, 0);
listen();
