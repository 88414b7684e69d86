/** A device for the tests: the reference engine, a real gateway, sockets that break on purpose. */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { WebSocket } from "ws";

import { ReferenceEngine } from "../src/engines/reference.js";
import { Client, DeviceProfile } from "../src/index.js";

const { SEGUE_TEST_CLOUD: cloud, SEGUE_TEST_ANSWERS: path } = process.env;
const { SEGUE_TEST_GUARDED_CLOUD: guarded, SEGUE_TEST_TOKEN: token } = process.env;
assert.ok(cloud && path, "needs a gateway; run python -m pytest tests/browser/test_node.py");

/** Address of a real gateway over the reference model. */
export const CLOUD = cloud;

/** One that asks for a token, and the token. */
export const GUARDED = { cloud: guarded, token };

/** Answers of the reference model, made by no machinery at all; by name. */
export const ANSWERS = JSON.parse(readFileSync(path, "utf8"));

/** A device that is slow at prefill. */
export const PROFILE = new DeviceProfile({
  prefillBaseS: 0, prefillPerTokenS: 0.002, prefillPerToken2S: 0, decodeS: 0.001, handoverS: 0.02,
});

/** A promise and what fulfils it. */
export function gate() {
  let open;
  const opened = new Promise((resolve) => (open = resolve));
  return { opened, open };
}

/** An engine whose first prefill waits for `ready`; it stops waiting at a cancel. */
export function held(ready, options = {}) {
  let isReady = false;
  ready.then(() => (isReady = true));
  const work = async (_, signal) => {
    if (isReady || signal.aborted) {
      await sleep(0);
      return;
    }
    const cancelled = new Promise((resolve) => signal.addEventListener("abort", resolve));
    await Promise.race([ready, cancelled]);
  };
  return new ReferenceEngine({ work, chunkTokens: 16, ...options });
}

/** Sockets that break after so many messages, one number a connection; "refused" is none at all. */
export function breaking(...faults) {
  return class extends WebSocket {
    constructor(url, protocols) {
      const fault = faults.shift();
      super(fault === "refused" ? "ws://127.0.0.1:1/" : url, protocols);
      let left = fault ?? Infinity;
      this.on("message", () => {
        left -= 1;
        if (left === 0) this.terminate();
      });
    }
  };
}

export function clientOf(options) {
  const engine = options.engine ?? null;
  const profile = engine === null ? null : PROFILE;
  return new Client({ cloud: CLOUD, profile, WebSocket, pacing: { enabled: false }, ...options });
}

/** The options of one of `ANSWERS`. */
export function asked(name, more = {}) {
  const { promptTokenIds, sampling, maxTokens } = ANSWERS[name];
  return { promptTokenIds, sampling, maxTokens, ...more };
}

/** Read to the end, calling `on[type]` at the first event of a type. */
export async function read(answer, on = {}) {
  const events = [];
  for await (const event of answer) {
    const isFirst = !events.some(({ type }) => type === event.type);
    events.push(event);
    if (isFirst) on[event.type]?.(event);
  }
  return { events, result: events.at(-1).result };
}

/** Whether events and result are one whole answer, and the right one. */
export function assertWhole(name, { events, result }) {
  const { tokenIds, text, finishReason } = ANSWERS[name];
  const tokens = events.filter(({ type }) => type === "token");
  assert.deepEqual(result.tokenIds, tokenIds);
  assert.equal(result.text, text);
  assert.equal(result.finishReason, finishReason);
  assert.deepEqual(
    tokens.filter(({ index }) => index !== null).map(({ index }) => index),
    [...tokenIds.keys()],
  );
  assert.equal(tokens.map((token) => token.text).join(""), text);
  assert.equal(result.usage.cloudTokens + result.usage.deviceTokens, tokenIds.length);
}

export const types = (events) => events.map(({ type }) => type);
