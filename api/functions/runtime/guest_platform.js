// What user code finds: the log, requests and operations that the host carries out, and of Deno what
// a function may have.

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
