// The channel to the host: frames (frames.py) and, in them, bodies with their credit.

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
const HEADER_COUNT_MAX = 200, HEADERS_BYTES_MAX = 64 * 1024;
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

// Half of a surrogate pair, as of text that was cut within an emoji, is no text that the host could
// read: it goes as U+FFFD, as in every body. `stringify` writes it as \ud83d, and nothing else so.
const HALF_OR_ESCAPE = /\\(?:ud[0-9a-f]{3}|.)/g;

function sendJson(type, stream, value) {
  let text = stringify(value);
  if (text.includes("\\ud")) text = text.replace(HALF_OR_ESCAPE, (found) => found.length > 2 ? "\ufffd" : found);
  send(type, stream, encoder.encode(text));
}

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
