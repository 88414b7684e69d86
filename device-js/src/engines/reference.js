/**
 * A model that is nothing but a function of (ids, positions): exactness level 1.
 *
 * Its logits are those of `segue_protocol.reference`, bit for bit, so that an
 * answer made by both machines can be compared without a tolerance. It needs
 * neither WebAssembly nor a download, and shows what an engine has to do.
 */

import { InvalidRequest } from "../errors.js";
import { uniform } from "../philox.js";
import { Vocabulary } from "../vocabulary.js";
import { checkAppend, checkRewind, requireNotAborted } from "./base.js";

const STOP_ID = 256;
const USER_ID = 257;
const ASSISTANT_ID = 258;
const VOCAB_SIZE = 320;
const SPECIALS = ["<|end|>", "<|user|>", "<|assistant|>"];
const WORDS =
  " the| a| of| and| to| in| is| it| you| that| we| for| on| are| with| as| be| at| one| all|" +
  " there| not| but| what| word| when| can| so|ing|ed|er|ly|tion|. The|, and|\n\n";

const MASK = (1n << 64n) - 1n;
const STOP_ABOVE = 63 / 64;
const SPREAD = 8;
const STOP_LOGIT = 2 * SPREAD;
const ODD_BYTE_PENALTY = 0.125;
const DOMAIN = 0x52454631;

/** Bytes 0..255, then end, user and assistant as specials, then some words. */
export function referenceVocabulary() {
  const utf8 = new TextEncoder();
  const bytes = Array.from({ length: 256 }, (_, byte) => Uint8Array.of(byte));
  const texts = [...SPECIALS, ...WORDS.split("|")].map((text) => utf8.encode(text));
  return new Vocabulary(new Map([...bytes, ...texts].entries()), [STOP_ID, USER_ID, ASSISTANT_ID]);
}

/**
 * The sum of one hash per (id, position) pair, modulo 2^64.
 * @param {readonly number[]} ids
 * @param {number} first position of the first id
 * @param {bigint} [state]
 */
export function stateOf(ids, first, state = 0n) {
  for (const [offset, id] of ids.entries()) {
    let x = ((BigInt(first + offset) << 32n) | BigInt(id)) + 0x9e3779b97f4a7c15n;
    x &= MASK;
    x = ((x ^ (x >> 30n)) * 0xbf58476d1ce4e5b9n) & MASK;
    x = ((x ^ (x >> 27n)) * 0x94d049bb133111ebn) & MASK;
    state = (state + (x ^ (x >> 31n))) & MASK;
  }
  return state;
}

/** @param {bigint} state */
export function logitsFromState(state) {
  const used = 256 + SPECIALS.length + WORDS.split("|").length;
  const logits = new Float32Array(VOCAB_SIZE).fill(-Infinity);
  for (let id = 0; id < used; id++) {
    const isOdd = id < 256 && !(id >= 0x20 && id < 0x7f);
    logits[id] = SPREAD * uniform(id, 0, state, DOMAIN) - (isOdd ? ODD_BYTE_PENALTY : 0);
  }
  logits.fill(-STOP_LOGIT, STOP_ID, ASSISTANT_ID + 1);
  if (uniform(STOP_ID, 0, state, DOMAIN) > STOP_ABOVE) logits[STOP_ID] = STOP_LOGIT;
  return logits;
}

/** Let the network be heard: an engine in a worker gives this page the same rest. */
function breathe() {
  return new Promise((resolve) => {
    setTimeout(resolve, 0);
  });
}

/** @typedef {import("./base.js").Engine} Engine */

/** @implements {Engine} */
export class ReferenceEngine {
  #state = 0n;
  #hasLogits = false;
  #work;
  /** @type {number[]} */
  tokenIds = [];
  vocabulary = referenceVocabulary();

  /**
   * `work` is awaited before every chunk, for a device that takes its time.
   * @param {{maxContextTokens?: number, chunkTokens?: number,
   *   work?: (tokens: number, signal: AbortSignal) => Promise<unknown>}} [options]
   */
  constructor({ maxContextTokens = 4096, chunkTokens = 256, work = breathe } = {}) {
    const digest = this.vocabulary.digest();
    this.#work = work;
    /** @type {import("./base.js").Capabilities} */
    this.capabilities = { positions: "compact", rawLogits: true, maxContextTokens, chunkTokens };
    this.identity = {
      model: "segue-reference",
      vocabSize: VOCAB_SIZE,
      vocabularyDigest: digest,
      specialTokenIds: [STOP_ID, USER_ID, ASSISTANT_ID],
      stopTokenIds: [STOP_ID],
      mergesDigest: new Uint8Array(),
      templateDigest: new Uint8Array(),
      weightsDigest: digest,
      numerics: "fp32",
    };
  }

  /** @param {string} text one token a byte */
  async encode(text) {
    return [...new TextEncoder().encode(text)];
  }

  /** @param {readonly {role: string, content: string}[]} messages */
  async encodeChat(messages) {
    const ids = [];
    for (const { role, content } of messages) {
      ids.push(role === "assistant" ? ASSISTANT_ID : USER_ID, ...(await this.encode(content)));
      ids.push(STOP_ID);
    }
    return [...ids, ASSISTANT_ID];
  }

  /**
   * @param {readonly number[]} ids
   * @param {{signal: AbortSignal}} options
   */
  async append(ids, { signal }) {
    checkAppend(ids, this);
    this.#hasLogits = false;
    for (let start = 0; start < ids.length; start += this.capabilities.chunkTokens) {
      const chunk = ids.slice(start, start + this.capabilities.chunkTokens);
      await this.#work(chunk.length, signal);
      requireNotAborted(signal);
      this.#state = stateOf(chunk, this.tokenIds.length, this.#state);
      this.tokenIds.push(...chunk);
    }
    this.#hasLogits = true;
  }

  async logits() {
    if (!this.#hasLogits) throw new InvalidRequest("no logits yet; append something first");
    return logitsFromState(this.#state);
  }

  /** @param {number} tokens */
  async rewind(tokens) {
    checkRewind(tokens, this.tokenIds.length);
    if (tokens < this.tokenIds.length) this.#hasLogits = false;
    this.tokenIds.length = tokens;
    this.#state = stateOf(this.tokenIds, 0);
  }

  async close() {}
}
