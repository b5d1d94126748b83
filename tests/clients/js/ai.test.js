// npm's unmodified `openai` and `@anthropic-ai/sdk`; only their base URL is ours.

import assert from "node:assert/strict";
import { test } from "node:test";

import Anthropic from "@anthropic-ai/sdk";
import OpenAI from "openai";

const { AI_URL: url, SERVICE_ROLE_KEY: apiKey } = process.env;
const messages = [{ role: "user", content: "Hi" }];
const openai = new OpenAI({ baseURL: `${url}/v1/main`, apiKey, maxRetries: 0 });
const anthropic = new Anthropic({ baseURL: url, apiKey, maxRetries: 0 });

test("a completion", async () => {
  const completion = await openai.chat.completions.create({ model: "gpt-test", messages });
  assert.equal(completion.choices[0].message.content, "Hello!");
  assert.equal(completion.usage.total_tokens, 29);
});

test("a streamed completion, with its usage", async () => {
  const stream = await openai.chat.completions.create({
    model: "gpt-test",
    messages,
    stream: true,
    stream_options: { include_usage: true },
  });
  let text = "";
  let usage;
  for await (const chunk of stream) {
    text += chunk.choices[0]?.delta.content ?? "";
    usage = chunk.usage ?? usage;
  }
  assert.equal(text, "Hello");
  assert.equal(usage.total_tokens, 29);
});

test("the response's headers", async () => {
  const { response } = await openai.chat.completions
    .create({ model: "gpt-test", messages })
    .withResponse();
  assert.equal(response.headers.get("x-butterbase-model"), "gpt-test");
  assert.equal(response.headers.get("x-butterbase-attempts"), "1");
});

test("embeddings", async () => {
  const { data } = await openai.embeddings.create({ model: "embed", input: ["a"] });
  assert.deepEqual([...data[0].embedding], [0.25, -0.5]);
});

test("a response", async () => {
  const response = await openai.responses.create({ model: "gpt-test", input: "Hi" });
  assert.equal(response.output_text, "Hello!");
});

test("a streamed response", async () => {
  const stream = openai.responses.stream({ model: "gpt-test", input: "Hi" });
  const response = await stream.finalResponse();
  assert.equal(response.output_text, "Hello");
});

test("the models", async () => {
  const names = [];
  for await (const model of openai.models.list()) names.push(model.id);
  assert.deepEqual(names, ["gpt-test", "embed"]);
});

test("a wrong key raises its own class", async () => {
  const stranger = openai.withOptions({ apiKey: "bb_wrong" });
  await assert.rejects(
    stranger.chat.completions.create({ model: "gpt-test", messages }),
    OpenAI.AuthenticationError,
  );
});

test("an aborted stream raises nothing at the server", async () => {
  const stream = await openai.chat.completions.create({ model: "slow", messages, stream: true });
  for await (const _ of stream) break;
  const completion = await openai.chat.completions.create({ model: "gpt-test", messages });
  assert.equal(completion.choices[0].finish_reason, "stop");
});

test("a message", async () => {
  const message = await anthropic.messages.create({ model: "gpt-test", max_tokens: 50, messages });
  assert.equal(message.content[0].text, "Hello!");
  assert.equal(message.usage.output_tokens, 10);
});

test("a streamed message", async () => {
  const stream = anthropic.messages.stream({ model: "gpt-test", max_tokens: 50, messages });
  assert.equal(await stream.finalText(), "Hello");
});

test("a wrong message raises its own class", async () => {
  await assert.rejects(
    anthropic.messages.create({ model: "gpt-test", max_tokens: 50, messages: [] }),
    Anthropic.BadRequestError,
  );
});
