// The page: what it shows, again every two seconds while somebody can see it.

import { CallError, callJson, parseJson, send } from "./client.js";
import { showConfig, startConfig } from "./config.js";
import { byId, bytes, count, setRows, setText, setTotals } from "./dom.js";
import { showIndexes, startIndexes } from "./indexes.js";
import { showMails } from "./mails.js";
import { endSession, renewed, signIn } from "./operator.js";
import { startPlayground } from "./playground.js";

const REFRESH_MS = 2000;
const USAGE_DAYS = 30;
const KEY_ITEM = "butterbase.service_role";
const SESSION_ITEM = "butterbase.operator";

let key = sessionStorage.getItem(KEY_ITEM); // of the service role, or an operator's access token
let session = parseJson(sessionStorage.getItem(SESSION_ITEM) ?? "null");
let isRefused = false; // the session may have been ended elsewhere
let leaving = new AbortController(); // aborted when the key is forgotten: late answers are dropped

async function showReadiness() {
  try {
    const answer = await send("GET", "/readyz", { headers: key ? { apikey: key } : {} });
    const readiness = parseJson(answer.text);
    if (!Array.isArray(readiness?.slots)) {
      throw new CallError(`/readyz answered ${answer.status} without its report.`);
    }
    setText("ready-error", readiness.database ? "" : "The database does not answer.");
    setHealth(readiness.ready ? "ready" : "not ready", readiness.ready ? "good" : "bad");
    setRows("slots", readiness.slots.map(slotRow), { empty: "No database is known." });
  } catch (error) {
    setHealth("unreachable", "bad");
    setRows("slots", [], { empty: "Not known." });
    setText("ready-error", error.message);
  }
}

function slotRow(slot) {
  return [
    slot.database ?? "(named when signed in)",
    slot.active
      ? { text: "reading", state: "good" }
      : { text: "not reading", state: "bad" },
    { text: slot.lag_bytes === null ? "?" : bytes(slot.lag_bytes), number: true },
  ];
}

function setHealth(text, state) {
  setText("health", text);
  byId("health").dataset.state = state;
}

async function showUsage(signal) {
  const dates = { startDate: byId("usage-start").value, endDate: byId("usage-end").value };
  if (!dates.startDate || !dates.endDate) return;
  try {
    const [byModel, byUser] = await Promise.all(
      ["model", "user"].map((groupBy) =>
        callJson("GET", `/v1/main/ai/usage?${new URLSearchParams({ ...dates, groupBy })}`, {
          key,
          signal,
        }),
      ),
    );
    setText("usage-error", "");
    setTotals("totals", {
      Requests: byModel.totals.requests,
      Failed: byModel.totals.failures,
      "Prompt tokens": byModel.totals.promptTokens,
      "Completion tokens": byModel.totals.completionTokens,
      "Total tokens": byModel.totals.totalTokens,
    });
    const empty = "No calls in these days.";
    setRows("usage-model", usageRows(byModel, "not known"), { empty });
    setRows("usage-user", usageRows(byUser, "the app's own keys"), { empty });
  } catch (error) {
    if (signal.aborted) return;
    setText("usage-error", error.message);
    isRefused = error.status === 401;
  }
}

function usageRows(report, nameless) {
  const most = Math.max(1, ...report.groups.map((group) => group.totalTokens));
  return report.groups.map((group) => [
    { text: group.key || nameless, share: group.totalTokens / most },
    { text: count(group.requests), number: true },
    { text: count(group.failures), number: true, state: group.failures > 0 ? "bad" : "" },
    { text: count(group.totalTokens), number: true },
  ]);
}

async function refresh() {
  const { signal } = leaving;
  if (session) await keepSignedIn();
  const shown = [showReadiness()];
  if (key) {
    shown.push(showUsage(signal), showConfig(key, signal), showIndexes(key, signal));
    shown.push(showMails(key, signal));
  }
  await Promise.all(shown);
}

function enter(entered) {
  session = entered;
  key = entered.access_token;
  sessionStorage.setItem(SESSION_ITEM, JSON.stringify(session));
  sessionStorage.setItem(KEY_ITEM, key);
}

async function keepSignedIn() {
  try {
    const next = await renewed(session, isRefused);
    isRefused = false;
    if (next !== session && !leaving.signal.aborted) enter(next);
  } catch (error) {
    if (error.status >= 400 && error.status < 500) leave(); // else it may be there again soon
  }
}

function leave() {
  sessionStorage.removeItem(KEY_ITEM);
  sessionStorage.removeItem(SESSION_ITEM);
  leaving.abort();
  location.reload(); // nothing that the key showed stays in the page
}

async function keepRefreshing() {
  for (;;) {
    if (!document.hidden) await refresh();
    await new Promise((resolve) => setTimeout(resolve, REFRESH_MS));
  }
}

function showKeyed() {
  byId("key-section").hidden = Boolean(key);
  byId("keyed").hidden = !key;
  byId("forget").hidden = !key;
}

/** The configuration is the service role's alone, so the key that reads it is the right one. */
async function openWith(tried) {
  try {
    await callJson("GET", "/v1/main/ai/config", { key: tried });
  } catch (error) {
    const refused = error.status === 401 || error.status === 403;
    setText("key-error", refused ? `This is not the service_role key. ${error.message}` : error.message);
    return;
  }
  key = tried;
  sessionStorage.setItem(KEY_ITEM, key);
  byId("key").value = "";
  setText("key-error", "");
  showKeyed();
  await refresh();
}

byId("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  openWith(byId("key").value.trim());
});

byId("operator-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  try {
    enter(await signIn(byId("email").value, byId("password").value, byId("code").value));
  } catch (error) {
    setText("operator-error", error.message);
    return;
  }
  event.target.reset();
  setText("operator-error", "");
  showKeyed();
  await refresh();
});

byId("forget").addEventListener("click", async () => {
  if (session) await endSession(session);
  leave();
});

byId("usage-form").addEventListener("submit", (event) => event.preventDefault());
byId("usage-form").addEventListener("change", () => showUsage(leaving.signal));

const now = Date.now();
byId("usage-end").value = new Date(now).toISOString().slice(0, 10);
byId("usage-start").value = new Date(now - (USAGE_DAYS - 1) * 86_400_000).toISOString().slice(0, 10);

startConfig(() => key);
startIndexes(() => key, () => showIndexes(key, leaving.signal));
startPlayground(() => key);
showKeyed();
keepRefreshing();
