/** What a request may ask of the sampler: names, bounds and wire form. */

import { InvalidRequest, requireKnown } from "./errors.js";

/**
 * @typedef {object} Sampling settings of one answer; `SAMPLING_DEFAULTS` is plain argmax
 * @property {number} temperature 0 is argmax
 * @property {number} topK 0 is off
 * @property {number} topP
 * @property {number} minP
 * @property {number} repetitionPenalty over the prompt and the output
 * @property {number} presencePenalty over the output
 * @property {number} frequencyPenalty over the output
 * @property {Record<number, number>} logitBias
 * @property {bigint} seed
 * @property {readonly number[]} stopTokenIds end the answer beside those of the model
 * @property {readonly string[]} stop looked for in the text
 */

/** @type {Sampling} */
export const SAMPLING_DEFAULTS = Object.freeze({
  temperature: 0,
  topK: 0,
  topP: 1,
  minP: 0,
  repetitionPenalty: 1,
  presencePenalty: 0,
  frequencyPenalty: 0,
  logitBias: {},
  seed: 0n,
  stopTokenIds: [],
  stop: [],
});

const SEED_BITS = 53;
const MAX_STOPS = 16;
const MAX_STOP_CHARACTERS = 256;
const MAX_STOP_TOKEN_IDS = 64;
const MAX_BIASES = 4096;
const MIN_TEMPERATURE = 1e-4;
const LARGEST_U32 = 2 ** 32 - 1;

/**
 * Complete and check an app's settings. A seed that is not given is drawn.
 * Throws InvalidRequest on an unknown name or the first value out of bounds.
 * @param {Partial<Omit<Sampling, "seed">> & {seed?: bigint | number | string}} given
 * @param {{drawSeed?: () => bigint, vocabSize?: number | null}} [how]
 * @returns {Sampling}
 */
export function samplingOf(given, { drawSeed = randomSeed, vocabSize = null } = {}) {
  requireKnown(given, Object.keys(SAMPLING_DEFAULTS), "sampling");
  const seed = given.seed === undefined ? drawSeed() : readSeed(given.seed);
  const sampling = { ...SAMPLING_DEFAULTS, ...given, seed };
  if (sampling.temperature !== 0) {
    within("temperature", sampling.temperature, MIN_TEMPERATURE, 100);
  }
  within("topK", sampling.topK, 0, LARGEST_U32);
  within("topP", sampling.topP, Number.MIN_VALUE, 1);
  within("minP", sampling.minP, 0, 1);
  within("repetitionPenalty", sampling.repetitionPenalty, 0.01, 100);
  within("presencePenalty", sampling.presencePenalty, -2, 2);
  within("frequencyPenalty", sampling.frequencyPenalty, -2, 2);
  const biases = Object.entries(sampling.logitBias);
  within("logitBias", biases.length, 0, MAX_BIASES);
  within("stopTokenIds", sampling.stopTokenIds.length, 0, MAX_STOP_TOKEN_IDS);
  within("stop", sampling.stop.length, 0, MAX_STOPS);
  const largestId = vocabSize === null ? LARGEST_U32 : vocabSize - 1;
  for (const [tokenId, bias] of biases) {
    within("logitBias", Number(tokenId), 0, largestId);
    within("logitBias", bias, -100, 100);
  }
  for (const tokenId of sampling.stopTokenIds) within("stopTokenIds", tokenId, 0, largestId);
  for (const stop of sampling.stop) within("stop", [...stop].length, 1, MAX_STOP_CHARACTERS);
  return sampling;
}

/**
 * The message in protobuf's JSON, every field present.
 * @param {Sampling} sampling
 */
export function samplingToWire(sampling) {
  return { ...sampling, seed: sampling.seed.toString() };
}

/** A seed nobody can guess; it fits a JavaScript number. */
export function randomSeed() {
  const words = crypto.getRandomValues(new Uint32Array(2));
  return ((BigInt(words[0]) << 32n) | BigInt(words[1])) & ((1n << BigInt(SEED_BITS)) - 1n);
}

/**
 * @param {bigint | number | string} given a number must be exact, a string is decimal
 * @returns {bigint}
 */
function readSeed(given) {
  const exact = typeof given !== "number" || Number.isSafeInteger(given);
  const text = String(given);
  if (!exact || !/^\d+$/.test(text) || BigInt(text) >= 1n << 64n) {
    throw new InvalidRequest(
      `seed is ${text}, expected a whole number of 0 to 2^64-1; above 2^53 as a BigInt or text`,
      { param: "seed" },
    );
  }
  return BigInt(text);
}

/**
 * @param {string} param
 * @param {number} value
 * @param {number} low
 * @param {number} high
 */
function within(param, value, low, high) {
  if (!(value >= low && value <= high)) {
    throw new InvalidRequest(
      `${param} is or holds ${value}, expected ${low} to ${high}; correct the request`,
      { param },
    );
  }
}
