// Indexes over columns of tables: how far they are, and new ones.

import { callJson } from "./client.js";
import { byId, count, setRows, setText } from "./dom.js";

const PATH = "/v1/main/rag/indexes";

export async function showIndexes(key, signal) {
  try {
    const { indexes } = await callJson("GET", PATH, { key, signal });
    setText("indexes-error", "");
    setRows("indexes", indexes.map(indexRow), { empty: "No index yet." });
  } catch (error) {
    if (!signal.aborted) setText("indexes-error", error.message);
  }
}

/** `refresh` shows them anew, after a change. */
export function startIndexes(getKey, refresh) {
  const form = byId("index-form");
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (await change("POST", "", getKey(), wanted())) form.reset();
    await refresh();
  });
  byId("indexes").addEventListener("click", async (event) => {
    const { action, name } = event.target.dataset;
    if (action === "retry") await change("POST", `/${encodeURIComponent(name)}/retry`, getKey());
    else if (action === "drop" && confirm(`Drop the index ${name}, with all that is kept of it?`)) {
      await change("DELETE", `/${encodeURIComponent(name)}`, getKey());
    } else return;
    await refresh();
  });
}

async function change(method, path, key, value) {
  setText("index-error", "");
  try {
    await callJson(method, PATH + path, { key, value });
    return true;
  } catch (error) {
    setText("index-error", error.message);
    return false;
  }
}

function wanted() {
  return {
    table: byId("index-table").value.trim(),
    columns: names(byId("index-columns").value),
    filter: names(byId("index-filter").value),
    name: byId("index-name").value.trim() || undefined,
    model: byId("index-model").value.trim() || undefined,
    chunkTokens: number(byId("index-tokens").value),
    overlapTokens: number(byId("index-overlap").value),
  };
}

function number(text) {
  return text ? Number(text) : undefined;
}

function names(text) {
  return text.split(",").map((name) => name.trim()).filter(Boolean);
}

function indexRow(index) {
  const { name, table, columns, version, model, passages, rowsDead, error } = index;
  const actions = [{ action: "drop", text: "Drop" }];
  if (rowsDead > 0) actions.unshift({ action: "retry", text: "Retry" });
  return [
    { text: `${name} (version ${version})`, faint: `${table}: ${columns.join(", ")}` },
    { text: model ?? "not known yet" },
    error ? { text: index.state, faint: error, state: "bad" } : { text: index.state },
    { text: progress(index), share: share(index), state: rowsDead > 0 ? "bad" : "" },
    { text: count(passages), number: true },
    { name, actions },
  ];
}

function share({ rowsDone, rowsTotal }) {
  return rowsTotal > 0 ? Math.min(1, rowsDone / rowsTotal) : 1;
}

function progress({ rowsDone, rowsTotal, rowsPerS, etaS, rowsDead }) {
  const parts = [`${count(rowsDone)} of ${count(rowsTotal)}`];
  if (rowsDead > 0) parts.push(`${count(rowsDead)} given up`);
  if (rowsDone + rowsDead < rowsTotal && rowsPerS > 0) {
    parts.push(`${count(rowsPerS)}/s`, `${duration(etaS)} left`);
  }
  return parts.join(", ");
}

function duration(seconds) {
  if (seconds < 90) return `${count(seconds)} s`;
  return seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
}
