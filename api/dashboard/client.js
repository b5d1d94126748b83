// Calls of this origin's API, and its errors in words.

const TIMEOUT_MS = 30_000;

/** An answer that is not 2xx, or none at all; `message` is for people. */
export class CallError extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

/** One request. Answers of any status are returned; raises CallError when there is none. */
export async function send(method, path, { headers = {}, body, signal } = {}) {
  const url = new URL(path, location.origin);
  if (url.origin !== location.origin) {
    throw new CallError("Only paths of this server can be called: begin with one /.");
  }
  const timeout = AbortSignal.timeout(TIMEOUT_MS);
  const started = performance.now();
  try {
    const response = await fetch(url, {
      method,
      headers,
      body,
      credentials: "omit",
      redirect: "error",
      signal: signal ? AbortSignal.any([signal, timeout]) : timeout,
    });
    const text = await response.text();
    return { status: response.status, ok: response.ok, text, ms: performance.now() - started };
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new CallError(
      timeout.aborted
        ? `The server did not answer within ${TIMEOUT_MS / 1000} s.`
        : `The server could not be reached, or its answer could not be read (${error.message}).`,
    );
  }
}

/** The JSON of a call with the key or token, undefined where 204 has none. Raises CallError for any
 * other status than 2xx. */
export async function callJson(method, path, { key, token, value, signal } = {}) {
  const headers = key ? { apikey: key } : {};
  if (token) headers.Authorization = `Bearer ${token}`;
  if (value !== undefined) headers["Content-Type"] = "application/json";
  const body = value === undefined ? undefined : JSON.stringify(value);
  const answer = await send(method, path, { headers, body, signal });
  const parsed = parseJson(answer.text);
  if (!answer.ok) throw new CallError(explain(answer.status, parsed), answer.status);
  if (parsed === undefined && answer.status !== 204) throw new CallError(`${path} did not answer with JSON.`, answer.status);
  return parsed;
}

/** undefined when it is not JSON. */
export function parseJson(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** Our problem, auth's, or OpenAI's error object, in words. */
export function explain(status, body) {
  const problem = body?.error ?? body;
  const { message, msg, param, hint, code: its, error_code: code = its } =
    typeof problem === "object" && problem ? problem : {};
  const said = [param && `${param}:`, sentence(message || msg || "the server said no more")];
  if (hint) said.push(sentence(`Hint: ${hint}`));
  if (code) said.push(`(${code})`);
  return `${status}: ${said.filter(Boolean).join(" ")}`;
}

function sentence(text) {
  return `${text}`.replace(/\.?$/, ".");
}
