// The playground: any request to this server, as the service, as anon or as a user.

import { explain, parseJson, send } from "./client.js";
import { byId, bytes, setText } from "./dom.js";

const SHOWN_CHARACTERS_MAX = 200_000;
const TOKEN_NAMES = { anon: "anon key", user: "The user's access token" };

const tokens = { anon: "", user: "" }; // for as long as the page is open

export function startPlayground(getKey) {
  byId("role").addEventListener("change", showToken);
  byId("token").addEventListener("input", () => {
    tokens[byId("role").value] = byId("token").value.trim();
  });
  byId("playground-form").addEventListener("submit", async (event) => {
    event.preventDefault();
    await run(getKey());
  });
}

function showToken() {
  const role = byId("role").value;
  byId("token-label").hidden = role === "service";
  setText("token-name", TOKEN_NAMES[role] ?? "");
  byId("token").value = tokens[role] ?? "";
}

async function run(serviceKey) {
  setText("playground-error", "");
  setText("answer-state", "Sending…");
  byId("answer").hidden = true;
  try {
    const { method, path, headers, body } = request(serviceKey);
    showAnswer(method, await send(method, path, { headers, body }));
  } catch (error) {
    setText("answer-state", "");
    setText("playground-error", error.message);
  }
}

/** What the form asks for. Raises Error when it is not whole. */
function request(serviceKey) {
  const role = byId("role").value;
  const method = byId("method").value;
  const path = byId("path").value.trim();
  const body = byId("body").value.trim();
  if (!path.startsWith("/")) throw new Error("The path begins with /.");
  if (role !== "service" && !tokens[role]) throw new Error(`${TOKEN_NAMES[role]} is missing.`);
  const headers = role === "user"
    ? { Authorization: `Bearer ${tokens.user}` }
    : { apikey: role === "anon" ? tokens.anon : serviceKey };
  if (!body || method === "GET" || method === "HEAD") return { method, path, headers };
  if (parseJson(body) === undefined) throw new Error("The body is not JSON.");
  headers["Content-Type"] = "application/json";
  return { method, path, headers, body };
}

function showAnswer(method, answer) {
  const parsed = parseJson(answer.text);
  const size = new TextEncoder().encode(answer.text).length;
  setText("answer-state", `${answer.status} in ${answer.ms.toFixed(0)} ms, ${bytes(size)}`);
  if (!answer.ok && method !== "HEAD") {
    setText("playground-error", explain(answer.status, parsed));
  }
  const text = parsed === undefined ? answer.text : JSON.stringify(parsed, null, 2);
  const shown = text.slice(0, SHOWN_CHARACTERS_MAX);
  const cut = text.length - shown.length;
  setText("answer", (shown || "(no body)") + (cut > 0 ? `\n… ${cut} characters more` : ""));
  byId("answer").hidden = false;
}
