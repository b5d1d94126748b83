// The inside of a jailed Deno process: it boots knowing no function, is given one, and serves its
// calls until it is ended.
//
// It has no permission from its first instruction on. All it can do is speak frames (frames.py)
// through the socket that is its standard input and output. What user code may do to this script it
// does to itself alone: the host takes nothing that comes from here on trust.
//
// guest_channel.js, guest_platform.js and guest_context.js are read before it, as one script.

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

/** An answer's head as the host takes it; it ends a process that sends it another one (call.py).
 *  Throws TypeError. */
function headOf(response) {
  if (!(response instanceof Response)) throw new TypeError(`the handler answered ${cut(inspect(response), 200)}, which is no Response`);
  const { status, bodyUsed } = response, headers = [...response.headers];
  if (status < 200 || bodyUsed)
    throw new TypeError(`the handler's Response cannot be sent (status ${status}${bodyUsed ? ", body already read" : ""})`);
  if (headers.length > HEADER_COUNT_MAX) throw new TypeError(`the handler's Response has more than ${HEADER_COUNT_MAX} headers`);
  let size = 0;
  for (const [name, value] of headers) size += name.length + value.length;
  if (size > HEADERS_BYTES_MAX) throw new TypeError(`the handler's Response has more than ${HEADERS_BYTES_MAX} bytes of headers`);
  return { status, headers };
}

async function serveCall(call) {
  if (!await load.ended) { calls.delete(call.id); return; }
  try {
    const context = contextOf(call, load, operate, logger);
    const response = await current.run(call, () => handler(call.request(), context));
    let head;
    try { head = headOf(response); } catch (error) {
      sendJson(FRAME.RESET, call.id, { kind: "invalid", ...describe(error), stack: "" });
    }
    if (head !== undefined) {
      sendJson(FRAME.HEAD, call.id, head);
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
