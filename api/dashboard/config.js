// The form of the app's AI configuration. Only what was changed is sent.

import { callJson } from "./client.js";
import { byId, setText } from "./dom.js";

let saved; // as the server has it
let dirty = false; // while the operator edits, what the server says does not go over it
let saveCount = 0;

/** Read it again. */
export async function showConfig(key, signal) {
  const before = saveCount;
  try {
    const config = await callJson("GET", "/v1/main/ai/config", { key, signal });
    setText("config-read-error", "");
    // An answer from before a save would undo it on the page.
    if (dirty || before !== saveCount || JSON.stringify(config) === JSON.stringify(saved)) return;
    saved = config;
    showSaved();
  } catch (error) {
    if (!signal.aborted) setText("config-read-error", error.message);
  }
}

export function startConfig(getKey) {
  const form = byId("config-form");
  form.addEventListener("input", () => {
    dirty = true;
    setText("config-state", "Not saved yet.");
    showAllowed();
  });
  form.addEventListener("reset", (event) => {
    event.preventDefault();
    discard("");
  });
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    await save(getKey());
  });
}

async function save(key) {
  if (!saved) return;
  setText("config-error", "");
  setText("config-state", "Saving…");
  try {
    saved = await callJson("PUT", "/v1/main/ai/config", { key, value: changes() });
    discard("Saved.");
    saveCount += 1;
  } catch (error) {
    setText("config-state", "Not saved.");
    setText("config-error", error.message);
  }
}

function discard(state) {
  dirty = false;
  setText("config-error", "");
  setText("config-state", state);
  if (saved) showSaved();
}

function changes() {
  const wanted = {
    defaultModel: byId("default-model").value.trim() || null,
    baseUrl: byId("base-url").value.trim() || null,
    maxTokensPerRequest: byId("max-tokens").value ? Number(byId("max-tokens").value) : null,
    allowedModels: byId("allowed").value === "all" ? null : lines(byId("allowed-models").value),
  };
  const changed = Object.entries(wanted).filter(
    ([name, value]) => JSON.stringify(value) !== JSON.stringify(saved[name]),
  );
  const byokKey = byId("byok-key").value.trim();
  if (byokKey) changed.push(["byokKey", byokKey]);
  else if (byId("byok-remove").checked) changed.push(["byokKey", null]);
  return Object.fromEntries(changed);
}

function lines(text) {
  return text.split("\n").map((line) => line.trim()).filter(Boolean);
}

function showSaved() {
  byId("default-model").value = saved.defaultModel ?? "";
  byId("base-url").value = saved.baseUrl ?? "";
  byId("max-tokens").value = saved.maxTokensPerRequest ?? "";
  byId("allowed").value = saved.allowedModels === null ? "all" : "listed";
  byId("allowed-models").value = (saved.allowedModels ?? []).join("\n");
  byId("byok-key").value = "";
  byId("byok-remove").checked = false;
  byId("byok-remove").disabled = saved.byokKey === null;
  setText(
    "byok-hint",
    saved.byokKey === null
      ? "No key of the app's own is stored."
      : `Stored: ${saved.byokKey}. Leave empty to keep it.`,
  );
  showAllowed();
}

function showAllowed() {
  byId("allowed-models").hidden = byId("allowed").value === "all";
}
