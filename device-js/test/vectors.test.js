/** The pure parts against what the Python code gives for the same arguments. */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { nextWork, waitS } from "../src/catchUp.js";
import { nextCredit } from "../src/credit.js";
import {
  ReferenceEngine, logitsFromState, referenceVocabulary, stateOf,
} from "../src/engines/reference.js";
import { exactExp, exactLog } from "../src/exactMath.js";
import { bearerSubprotocol, decodeResponse, fromClose } from "../src/frames.js";
import { compare, exactnessLevel } from "../src/identity.js";
import { mergesDigest } from "../src/modelFiles.js";
import { Pacer, pacingOf } from "../src/pacing.js";
import { gumbel, philox4x32, uniform } from "../src/philox.js";
import { prefixHash } from "../src/prefixHash.js";
import { samplingOf } from "../src/samplingOptions.js";
import { sample } from "../src/sampling.js";
import { toHex } from "../src/sha256.js";
import { actionOf, requireTransition } from "../src/state.js";
import { TextStream } from "../src/textStream.js";
import { DeviceProfile, nStar, readyTimeS, stallFree } from "../src/timeline.js";
import { Vocabulary } from "../src/vocabulary.js";

const read = (path) => JSON.parse(readFileSync(new URL(`../../${path}`, import.meta.url), "utf8"));
const sampling = read("protocol/segue_protocol/vectors/sampling.json");
const handover = read("device/vectors/handover.json");

/** From the names of the Python code to those of this one. */
function camel(view) {
  const rename = (name) => name.replace(/_([a-z0-9])/g, (_, letter) => letter.toUpperCase());
  return Object.fromEntries(Object.entries(view).map(([name, value]) => [rename(name), value]));
}

test("no section of the vectors is left out", () => {
  assert.deepEqual(Object.keys(sampling), ["philox", "log", "exp", "noise", "rows", "sampling"]);
  assert.deepEqual(Object.keys(handover), [
    "prefix_hash", "profile", "timeline", "credit", "catch_up", "pacing", "text", "identity",
    "reference", "vocabulary", "states", "close", "bearer",
  ]);
});

test("noise has the same bits", () => {
  for (const { counter, key, words } of sampling.philox) {
    assert.deepEqual(philox4x32(counter, BigInt(key)), words);
  }
  for (const [x, y] of sampling.log) assert.equal(exactLog(x), y);
  for (const [x, y] of sampling.exp) assert.equal(exactExp(x), y);
  for (const { seed, index, token_id, uniform: u, gumbel: g } of sampling.noise) {
    assert.equal(uniform(token_id, index, BigInt(seed)), u);
    assert.equal(gumbel(token_id, index, BigInt(seed)), g);
  }
});

test("the sampler chooses the same, by the same margin", () => {
  const rows = new Map(
    sampling.rows.map(({ name, logits }) => [
      name,
      Float32Array.from(logits, (logit) => logit ?? -Infinity),
    ]),
  );
  for (const vector of sampling.sampling) {
    const { row, promptIds, outputIds, tokenIds, margins, ...given } = camel(vector);
    const made = tokenIds.map((_, index) =>
      sample(rows.get(row), samplingOf(given), { promptIds, outputIds, index }),
    );
    assert.deepEqual(made.map(({ tokenId }) => tokenId), tokenIds);
    assert.deepEqual(made.map(({ margin }) => margin), margins.map((each) => each ?? Infinity));
  }
});

test("a constant added to all logits changes no choice without a repetition penalty", () => {
  // The premise of an engine that tells probabilities; see engines/wllama.js.
  const { logits } = sampling.rows.find(({ name }) => name === "smooth");
  const shifted = Float64Array.from(logits, (logit) => logit - 3.25);
  for (const { repetitionPenalty, row, seed } of sampling.sampling.map(camel)) {
    if (row !== "smooth" || repetitionPenalty !== 1) continue;
    const settings = samplingOf({ temperature: 0.9, topK: 20, topP: 0.9, minP: 0.01, seed });
    for (let index = 0; index < 12; index++) {
      const place = { promptIds: [], outputIds: [], index };
      const choose = (row) => sample(row, settings, place).tokenId;
      assert.equal(choose(shifted), choose(Float64Array.from(logits)));
    }
  }
});

test("prefix hashes", () => {
  for (const { prompt_ids, output_ids, sha256 } of handover.prefix_hash) {
    assert.equal(toHex(prefixHash(prompt_ids, output_ids)), sha256);
  }
  assert.throws(() => prefixHash([2 ** 32], []), { reason: "INVALID_REQUEST" });
});

test("the arithmetic of the hand-over", () => {
  for (const vector of handover.profile) {
    const profile = new DeviceProfile(camel(vector.profile));
    assert.equal(profile.prefillS(vector.tokens), vector.prefill_s);
    assert.equal(profile.prefillLeftS(vector.tokens, vector.done_tokens), vector.prefill_left_s);
    assert.equal(profile.absorbPerTokenS(vector.tokens), vector.absorb_per_token_s);
  }
  for (const { nStar: wanted, stallFree: isFree, readyTimeS: readyS, ...race } of
    handover.timeline.map(camel)) {
    assert.equal(nStar(race), wanted);
    assert.equal(stallFree(race), isFree);
    assert.equal(readyTimeS(race), readyS);
  }
});

test("credit, and what the engine does next", () => {
  for (const { view, next_credit } of handover.credit) {
    assert.equal(nextCredit(camel(view)), next_credit);
  }
  for (const { view, next_work, wait_s } of handover.catch_up) {
    assert.equal(nextWork(camel(view)), next_work);
    assert.equal(waitS(camel(view)), wait_s);
  }
});

test("the pacer shows every token at the same moment", () => {
  for (const { pacing, start_s, steps } of handover.pacing) {
    const pacer = new Pacer(pacingOf(camel(pacing)));
    let nowS = start_s;
    for (const { view, due_s, shown_s } of steps) {
      assert.equal(pacer.dueS(camel(view), nowS), due_s);
      pacer.shown(due_s, shown_s);
      nowS = shown_s;
    }
  }
});

test("text is released at the same tokens", () => {
  for (const { ids, stop, pieces, stopped, tail } of handover.text) {
    const stream = new TextStream(referenceVocabulary(), stop);
    assert.deepEqual(ids.map((id) => stream.push(id)), pieces);
    assert.equal(stream.stopped, stopped);
    assert.equal(stream.flush(), tail);
  }
});

test("who may share a log", () => {
  const read = (plain) => {
    const identity = camel(plain);
    for (const name of Object.keys(identity).filter((name) => name.endsWith("Digest"))) {
      identity[name] = new Uint8Array(Buffer.from(identity[name], "hex"));
    }
    return identity;
  };
  for (const vector of handover.identity) {
    const [ours, theirs] = [read(vector.ours), read(vector.theirs)];
    const { fatal, warnings } = compare(ours, theirs);
    assert.deepEqual([fatal.length, warnings.length], [vector.fatal, vector.warnings]);
    assert.equal(exactnessLevel(ours, theirs), vector.exactness_level);
  }
});

test("what ids stand for", () => {
  for (const { tokenizer, ids, text_bytes, digest, merges_digest } of handover.vocabulary) {
    const vocabulary = Vocabulary.fromTokenizerJson(tokenizer);
    assert.deepEqual(vocabulary.ids, ids);
    assert.deepEqual(ids.map((id) => toHex(vocabulary.textBytes(id))), text_bytes);
    assert.equal(toHex(vocabulary.digest()), digest);
    assert.equal(toHex(mergesDigest(tokenizer)), merges_digest);
  }
});

test("the reference model", async () => {
  for (const { ids, state, logits } of handover.reference) {
    assert.equal(stateOf(ids, 0), BigInt(state));
    const expected = logits.map((logit) => logit ?? -Infinity);
    assert.deepEqual([...logitsFromState(BigInt(state))], expected);
    const engine = new ReferenceEngine({ chunkTokens: 7 });
    await engine.append([...ids, 5], { signal: new AbortController().signal });
    await engine.rewind(ids.length - 1);
    await engine.append(ids.slice(-1), { signal: new AbortController().signal });
    assert.deepEqual([...(await engine.logits())], expected);
  }
});

test("the tables of states", () => {
  const names = handover.states.map(({ state }) => state);
  for (const { state, next, actions } of handover.states) {
    for (const [message, action] of Object.entries(actions)) {
      assert.equal(actionOf(state, message), action, `${state}, ${message}`);
    }
    for (const other of names) {
      const change = () => requireTransition(state, other);
      if (next.includes(other)) change();
      else assert.throws(change, { reason: "INTERNAL" });
    }
  }
});

test("how a connection ends, and who it was opened by", () => {
  for (const { code, close_reason, error } of handover.close) {
    const found = fromClose(code, close_reason);
    assert.deepEqual(found && { name: found.name, reason: found.reason }, error, `${code}`);
  }
  for (const { token, subprotocol } of handover.bearer) {
    assert.equal(bearerSubprotocol(token), subprotocol);
  }
});

test("frames that are none", () => {
  const malformed = { name: "ProtocolError", reason: "MALFORMED_FRAME" };
  const odd = '{"response": {"tokens": {"index": 0, "ids": [1, -2]}}}';
  for (const frame of ["{", "[]", "null", "{}", '{"response": 7}', odd, new Uint8Array()]) {
    assert.throws(() => decodeResponse(frame), malformed);
  }
  const error = { code: "RESOURCE_EXHAUSTED", reason: "NO_SLOT", retryAfterS: 2.5 };
  assert.throws(() => decodeResponse(JSON.stringify({ error })), {
    name: "Overloaded", reason: "NO_SLOT", retryAfterS: 2.5, retryable: true,
  });
  assert.deepEqual(decodeResponse('{"response": {"news": {}}}'), { kind: "nameless", body: {} });
});
