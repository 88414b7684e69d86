/** The client against a real gateway: exactness level 1, whatever happens on the way. */

import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import { test } from "node:test";

import { InternalError } from "../src/errors.js";
import { ReferenceEngine } from "../src/engines/reference.js";
import { Client } from "../src/index.js";
import {
  ANSWERS, CLOUD, GUARDED, PROFILE, asked, assertWhole, breaking, clientOf, gate, held, read, types,
} from "./rig.js";

for (const name of Object.keys(ANSWERS)) {
  test(`${name}: split, in the cloud and on the device are one answer`, async () => {
    for (const mode of ["split", "only_in_cloud", "only_on_device", "prefer_in_cloud"]) {
      const client = clientOf({ engine: new ReferenceEngine(), mode });
      assertWhole(name, await read(client.stream(asked(name))));
    }
  });
}

test("the device takes over where the credit ends, and says so in order", async () => {
  const ready = gate();
  const client = clientOf({ engine: held(ready.opened) });
  const options = asked("seeded", { creditThrough: 9 });
  const { events, result } = await read(client.stream(options), {
    token: (event) => event.index === 0 && setTimeout(ready.open, 20),
  });
  assertWhole("seeded", { events, result });
  assert.equal(result.takeoverIndex, 9);
  assert.equal(result.usage.cloudTokens, 9);
  assert.equal(result.cloud.reason, "FINISH_REASON_TAKEN_OVER");
  const order = types(events);
  const before = order.indexOf("takeover");
  assert.equal(order[0], "started");
  assert.equal(order.filter((type) => type === "token").length, ANSWERS.seeded.tokenIds.length);
  assert.equal(order.slice(0, before).filter((type) => type === "token").length, 9);
  assert.deepEqual(events[before], { type: "takeover", index: 9, early: false });
  assert.ok(events.slice(before).every(({ source }) => source !== "cloud"));
  assert.deepEqual(events.filter(({ type }) => type === "warning"), []);
  const progress = events.filter(({ type }) => type === "prefill_progress");
  assert.equal(progress.at(-1).doneTokens, ANSWERS.seeded.promptTokenIds.length);
});

test("a device that is slower than its profile asks for more in time", async () => {
  const slow = { chunkTokens: 16, work: (tokens) => sleep(tokens > 1 ? 250 : 0) };
  const client = clientOf({ engine: new ReferenceEngine(slow), pacing: {} });
  const { events, result } = await read(client.stream(asked("seeded")));
  assertWhole("seeded", { events, result });
  const { cloudTokens } = events.find(({ type }) => type === "started");
  assert.ok(result.takeoverIndex > cloudTokens, `${result.takeoverIndex}, ${cloudTokens}`);
  assert.ok(result.timings.maxGapS > 0 && result.timings.ttftS > 0);
});

test("a takeover can be asked for", async () => {
  const client = clientOf({ engine: new ReferenceEngine() });
  const answer = client.stream(asked("seeded", { creditThrough: 60 }));
  const read_ = await read(answer, { token: () => answer.takeover() });
  assertWhole("seeded", read_);
  const { index, early } = read_.events.find(({ type }) => type === "takeover");
  assert.ok(early && index < 60);
});

test("a second turn begins from the cache of the first", async () => {
  const engine = new ReferenceEngine();
  const client = clientOf({ engine });
  await client.stream(asked("seeded")).final();
  const again = await client.stream(asked("seeded")).final();
  assert.equal(again.usage.cachedTokens, ANSWERS.seeded.promptTokenIds.length - 1);
  assert.deepEqual(again.tokenIds, ANSWERS.seeded.tokenIds);
});

// ---- the end comes early

test("cancelled during its prefill, the engine stops and is free", async () => {
  const client = clientOf({ engine: held(new Promise(() => {})) });
  const answer = client.stream(asked("seeded"));
  const { result } = await read(answer, { token: () => answer.cancel() });
  assert.equal(result.finishReason, "cancelled");
  assert.equal(result.takeoverIndex, null);
  const known = ANSWERS.seeded.tokenIds.slice(0, result.tokenIds.length);
  assert.deepEqual(result.tokenIds, known);
  const alone = client.stream(asked("greedy", { mode: "only_in_cloud" }));
  assertWhole("greedy", await read(alone));
});

test("leaving the loop while the device decodes is a cancel", async () => {
  const client = clientOf({ engine: new ReferenceEngine() });
  for await (const event of client.stream(asked("seeded", { creditThrough: 4 }))) {
    if (event.type === "token" && event.source === "device") break;
  }
  const turn = client.stream(asked("greedy", { mode: "only_on_device" }));
  assertWhole("greedy", await read(turn));
});

// ---- the network breaks

test("a broken stream is resumed at the index", async () => {
  const client = clientOf({
    engine: held(new Promise(() => {})),
    WebSocket: breaking(6, 4),
    mode: "prefer_in_cloud",
  });
  const { events, result } = await read(client.stream(asked("seeded")));
  assertWhole("seeded", { events, result });
  const order = types(events);
  assert.equal(order.filter((type) => type === "reconnecting").length, 2);
  assert.equal(order.filter((type) => type === "resumed").length, 2);
  assert.equal(order.filter((type) => type === "started").length, 1);
  assert.equal(result.usage.deviceTokens, 0);
});

test("a cloud that does not come back loses nothing but its part", async () => {
  const ready = gate();
  const client = clientOf({
    engine: held(ready.opened),
    WebSocket: breaking(6, ...new Array(99).fill("refused")),
  });
  const answer = client.stream(asked("seeded", { creditThrough: 50 }));
  const { events, result } = await read(answer, { reconnecting: ready.open });
  assertWhole("seeded", { events, result });
  assert.ok(result.takeoverIndex > 0 && result.takeoverIndex < 50);
  assert.ok(result.usage.deviceTokens > 0);
});

test("without a cloud from the start the device answers alone", async () => {
  const ready = gate();
  const client = clientOf({ engine: held(ready.opened), WebSocket: breaking("refused") });
  const { events, result } = await read(client.stream(asked("seeded")), { fallback: ready.open });
  assertWhole("seeded", { events, result });
  assert.match(events.find(({ type }) => type === "fallback").reason, /^cloud: no cloud answers/);
});

test("a time budget ends an answer with a typed error and what there was", async () => {
  const client = clientOf({
    engine: new ReferenceEngine(),
    mode: "only_in_cloud",
    budgets: { totalS: 0.4 },
  });
  const long = asked("seeded", { maxTokens: 400, sampling: { logitBias: { 256: -100 } } });
  await assert.rejects(client.stream(long).final(), (error) => {
    assert.equal(error.name, "DeadlineExceeded");
    assert.equal(error.reason, "TOTAL_BUDGET");
    assert.ok(error.partial.length > 1);
    return true;
  });
});

test("an engine that fails leaves the answer to the cloud", async () => {
  for (const failsAt of [3, 20]) {
    const engine = new ReferenceEngine({ chunkTokens: 8 });
    let calls = 0;
    const append = engine.append.bind(engine);
    engine.append = async (ids, options) => {
      calls += 1;
      if (calls === failsAt) throw new InternalError("out of memory");
      await append(ids, options);
    };
    const client = clientOf({ engine });
    const read_ = await read(client.stream(asked("seeded", { creditThrough: 2 })));
    assertWhole("seeded", read_);
    const { reason } = read_.events.find(({ type }) => type === "fallback");
    assert.match(reason, /device engine: out of memory/);
    assert.equal(read_.result.usage.deviceTokens > 0, failsAt === 20);
  }
});

// ---- the page is loaded again

test("another page goes on with the generation that is there", async () => {
  const sockets = [];
  const Tracked = class extends breaking() {
    constructor(...parts) {
      super(...parts);
      sockets.push(this);
    }
  };
  const first = clientOf({ engine: held(new Promise(() => {})), WebSocket: Tracked });
  const left = first.stream(asked("seeded", { creditThrough: 60 }));
  let saved;
  for await (const event of left) {
    if (event.type === "token" && event.index === 5) {
      saved = JSON.stringify(left.snapshot());
      sockets.forEach((socket) => socket.terminate()); // as a page that is gone: no farewell
      break;
    }
  }
  const held_ = JSON.parse(saved);
  assert.ok(held_.resumeToken && held_.outputIds.length >= 6);
  const ready = gate();
  const second = clientOf({ engine: held(ready.opened) });
  const { events, result } = await read(second.resume(held_), { resumed: ready.open });
  assertWhole("seeded", { events, result });
  assert.ok(types(events).includes("resumed"));
  assert.ok(!types(events).includes("started"), "the same generation");
});

test("another page goes on where the device wrote already", async () => {
  const first = clientOf({ engine: new ReferenceEngine() });
  const left = first.stream(asked("seeded"));
  let saved;
  for await (const event of left) {
    if (event.type === "token" && event.index > 12 && event.source === "device") {
      saved = left.snapshot();
      break;
    }
  }
  assert.equal(saved.resumeToken, null);
  for (const uploadHistory of [true, false]) {
    const ready = gate();
    if (!uploadHistory) ready.open();
    const second = clientOf({ engine: held(ready.opened), uploadHistory });
    const answer = second.resume(JSON.parse(JSON.stringify(saved)));
    const { events, result } = await read(answer, { resumed: ready.open });
    assertWhole("seeded", { events, result });
    // Behind what was restored: the cloud goes on at once, or may not be asked.
    const { length } = saved.outputIds;
    const added = events.filter(({ type, index }) => type === "token" && index >= length);
    assert.equal(added[0].source, uploadHistory ? "cloud" : "device");
    assert.equal(types(events).includes("started"), uploadHistory);
  }
});

test("a gateway that has forgotten the generation gets the answer so far", async () => {
  const first = clientOf({ engine: held(new Promise(() => {})) });
  const left = first.stream(asked("seeded"));
  let saved;
  for await (const event of left) {
    if (event.type === "token") {
      saved = left.snapshot();
      break; // a cancel: the generation is over there
    }
  }
  const lost = { ...saved, generationId: "nobody-knows-it" };
  const { events, result } = await read(clientOf({ engine: new ReferenceEngine() }).resume(lost));
  assertWhole("seeded", { events, result });
});

// ---- what is refused

test("options that make no sense are refused by name", async () => {
  const engine = new ReferenceEngine();
  const client = clientOf({ engine });
  const refused = [
    [() => new Client({}), /cloud, an engine/],
    [() => new Client({ cloud: CLOUD, clouds: 1 }), /clouds/],
    [() => new Client({ engine }), /profile/],
    [() => new Client({ cloud: "http://127.0.0.1:1" }), /expected ws:/],
    [() => new Client({ cloud: "ws://example.com" }), /plain text/],
    [() => client.stream({}), /expected one/],
    [() => client.stream(asked("seeded", { prompt: "two" })), /expected one/],
    [() => client.stream(asked("seeded", { temperature: 1 })), /temperature/],
    [() => client.stream(asked("seeded", { sampling: { topP: 0 } })), /topP/],
    [() => client.stream(asked("seeded", { sampling: { seed: 2 ** 60 } })), /seed/],
    [() => client.stream(asked("seeded", { mode: "cloud" })), /expected one of split/],
    [() => client.stream(asked("seeded", { pacing: { rate: 1 } })), /rate/],
    [() => client.stream(asked("seeded", { budgets: { totalS: 0 } })), /totalS/],
    [() => client.stream(asked("seeded", { keepRatio: 0 })), /keepRatio/],
    [() => client.resume({ version: 2 }), /snapshot/],
  ];
  for (const [call, message] of refused) {
    assert.throws(call, { code: "INVALID_ARGUMENT", message });
  }
  const long = client.stream(asked("seeded", { maxTokens: 5000 }));
  await assert.rejects(long.final(), { name: "ContextTooLong", reason: "CONTEXT_TOO_LONG" });
  const gaps = () => client.stream(asked("seeded", { keepRatio: 0.5 }));
  assert.throws(gaps, { name: "Unsupported", reason: "POSITIONS_COMPACT" });
  const cloudOnly = clientOf({});
  assert.throws(() => cloudOnly.stream({ prompt: "a", mode: "split" }), { name: "Unsupported" });
});

test("one answer at a time uses the engine", async () => {
  const client = clientOf({ engine: new ReferenceEngine() });
  const first = client.stream(asked("seeded"));
  assert.throws(() => client.stream(asked("greedy")), { reason: "ENGINE_BUSY" });
  await first.final();
  const second = await client.stream(asked("greedy")).final();
  assert.deepEqual(second.tokenIds, ANSWERS.greedy.tokenIds);
});

test("a repetition penalty is refused where the logits are shifted", () => {
  const engine = new ReferenceEngine();
  engine.capabilities.rawLogits = false;
  const client = new Client({ cloud: CLOUD, engine, profile: PROFILE });
  const sampling = { repetitionPenalty: 1.1 };
  assert.throws(() => client.stream(asked("seeded", { sampling })), { reason: "LOGITS_SHIFTED" });
});

test("a model of another vocabulary is refused by the cloud and answers alone", async () => {
  const ready = gate();
  const engine = held(ready.opened);
  engine.identity.stopTokenIds = [257];
  const answer = clientOf({ engine }).stream(asked("greedy"));
  const { events } = await read(answer, { fallback: ready.open });
  assert.match(events.find(({ type }) => type === "fallback").reason, /stop token ids/);
});

test("a cloud that asks for a token is shown one", async () => {
  const { cloud, token } = GUARDED;
  const mode = "only_in_cloud";
  const shown = clientOf({ engine: new ReferenceEngine(), cloud, token, mode });
  assertWhole("greedy", await read(shown.stream(asked("greedy"))));
  const reasons = { "": "NO_TOKEN", "another-token-of-somebody": "UNKNOWN_TOKEN" };
  for (const [other, reason] of Object.entries(reasons)) {
    const client = clientOf({ engine: new ReferenceEngine(), cloud, token: other, mode });
    const refused = client.stream(asked("greedy")).final();
    await assert.rejects(refused, { name: "Unauthenticated", reason });
  }
});

test("the cloud's refusals are typed", async () => {
  const cloudOnly = clientOf({ mode: "only_in_cloud" });
  const text = cloudOnly.stream({ prompt: "no tokenizer there", maxTokens: 5 });
  await assert.rejects(text.final(), { name: "Unsupported", code: "UNIMPLEMENTED" });
});
