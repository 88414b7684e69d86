/**
 * The sampler both sides must agree on, bit for bit; `vectors/sampling.json` of
 * the protocol proves it.
 *
 * Logit bias, penalties, temperature, top-k, top-p, min-p, then the largest of
 * score plus Gumbel noise, drawn for (seed, output index, token id) alone. There
 * is no state, so whoever holds the log can make the next token.
 */

import { InternalError, InvalidRequest } from "./errors.js";
import { exactExp } from "./exactMath.js";
import { gumbel } from "./philox.js";

/** @typedef {import("./samplingOptions.js").Sampling} Sampling */
/** @typedef {Float32Array | Float64Array} Logits */

/**
 * @typedef {object} Sampled
 * @property {number} tokenId
 * @property {number} margin best score minus second best after noise and
 *   truncation, Infinity with one survivor
 * @property {number} logprob under the raw logits; it is told, never compared
 */

// Weights are whole multiples of this unit's inverse, so that their sums are exact in any order.
const WEIGHT_UNIT = 2 ** 34;
const FIRST_HEAD = 1024;

/**
 * Choose the token at output `index` after `promptIds` and `outputIds`.
 *
 * Throws InternalError when a logit is NaN or +Infinity or all are -Infinity,
 * InvalidRequest when an id lies outside the logits.
 * @param {Logits} logits not changed
 * @param {Sampling} sampling
 * @param {{promptIds: readonly number[], outputIds: readonly number[], index: number}} place
 * @returns {Sampled}
 */
export function sample(logits, sampling, { promptIds, outputIds, index }) {
  const most = finiteMaximum(logits);
  let scores = Float64Array.from(logits);
  for (const [tokenId, bias] of Object.entries(sampling.logitBias)) {
    scores[inside(Number(tokenId), scores, "logitBias")] += bias;
  }
  penalize(scores, sampling, promptIds, outputIds);
  let ids = Int32Array.from(scores.keys());
  if (scores.some((score) => score === -Infinity)) {
    ids = ids.filter((id) => scores[id] > -Infinity);
    scores = scores.filter((score) => score > -Infinity);
  }
  if (sampling.temperature > 0) {
    scores = scores.map((score) => score / sampling.temperature);
    const kept = survivors(scores, sampling);
    const { seed } = sampling;
    scores = Float64Array.from(kept, (place) => scores[place] + gumbel(ids[place], index, seed));
    ids = Int32Array.from(kept, (place) => ids[place]);
  }
  const best = largest(scores);
  return {
    tokenId: ids[best],
    margin: margin(scores, best),
    logprob: logprob(logits, ids[best], most),
  };
}

/**
 * The largest logit.
 * @param {Logits} logits
 */
function finiteMaximum(logits) {
  let most = -Infinity;
  for (const each of logits) if (each > most || Number.isNaN(each)) most = each;
  if (!Number.isFinite(most)) {
    throw new InternalError(
      `the largest logit is ${most}, expected a finite number; ` +
        "the engine's weights or numerics are broken",
      { reason: "BAD_LOGITS" },
    );
  }
  return most;
}

/**
 * @param {Float64Array} scores
 * @param {Sampling} sampling
 * @param {readonly number[]} promptIds
 * @param {readonly number[]} outputIds
 */
function penalize(scores, sampling, promptIds, outputIds) {
  const { repetitionPenalty, frequencyPenalty, presencePenalty } = sampling;
  if (repetitionPenalty !== 1) {
    for (const id of new Set([...promptIds, ...outputIds])) {
      const old = scores[inside(id, scores, "prompt or output")];
      scores[id] = old > 0 ? old / repetitionPenalty : old * repetitionPenalty;
    }
  }
  if (frequencyPenalty === 0 && presencePenalty === 0) return;
  /** @type {Map<number, number>} */
  const counts = new Map();
  for (const id of outputIds) counts.set(id, (counts.get(id) ?? 0) + 1);
  for (const [id, count] of counts) {
    scores[inside(id, scores, "the output")] -= frequencyPenalty * count;
    scores[id] -= presencePenalty;
  }
}

/**
 * @param {number} tokenId
 * @param {Float64Array} scores
 * @param {string} where
 */
function inside(tokenId, scores, where) {
  if (!(tokenId >= 0 && tokenId < scores.length)) {
    throw new InvalidRequest(
      `a token id in ${where} lies outside the ${scores.length} logits; ` +
        "check that it was made with this model's tokenizer",
    );
  }
  return tokenId;
}

/**
 * Places in `scores` that pass top-k, top-p and min-p, ascending.
 * @param {Float64Array} scores
 * @param {Sampling} sampling
 * @returns {Int32Array}
 */
function survivors(scores, { topK, topP, minP }) {
  let kept = Int32Array.from(scores.keys());
  if (topK > 0 && topK < scores.length) kept = head(scores, kept, topK);
  if (topP < 1) kept = nucleus(scores, kept, topP);
  if (minP > 0) {
    const best = scores[largest(scores)];
    kept = kept.filter((place) => exactExp(scores[place] - best) >= minP);
  }
  return kept.sort();
}

/**
 * The `count` places of the largest scores, by (score desc, place asc).
 * @param {Float64Array} scores
 * @param {Int32Array} places
 * @param {number} count
 */
function head(scores, places, count) {
  let worth = places;
  if (count < places.length) {
    // Only what reaches the count-th largest is worth sorting with a comparison.
    const ascending = Float64Array.from(places, (place) => scores[place]).sort();
    const threshold = ascending[ascending.length - count];
    worth = places.filter((place) => scores[place] >= threshold);
  }
  return worth.slice().sort((a, b) => scores[b] - scores[a] || a - b).subarray(0, count);
}

/**
 * The shortest head that holds at least `topP` of the weight.
 * @param {Float64Array} scores
 * @param {Int32Array} places
 * @param {number} topP
 */
function nucleus(scores, places, topP) {
  const best = places.reduce((most, place) => Math.max(most, scores[place]), -Infinity);
  const weight = (/** @type {number} */ place) =>
    Math.floor(exactExp(scores[place] - best) * WEIGHT_UNIT);
  const wanted = topP * places.reduce((total, place) => total + weight(place), 0);
  for (let count = FIRST_HEAD; ; count *= 8) {
    const sorted = head(scores, places, count);
    let reached = 0;
    const end = sorted.findIndex((place) => (reached += weight(place)) >= wanted);
    if (end >= 0) return sorted.subarray(0, end + 1);
  }
}

/**
 * The place of the largest; the first of equals.
 * @param {Float64Array} scores
 */
function largest(scores) {
  let best = 0;
  for (let place = 1; place < scores.length; place++) {
    if (scores[place] > scores[best]) best = place;
  }
  return best;
}

/**
 * @param {Float64Array} scores
 * @param {number} best
 */
function margin(scores, best) {
  let second = -Infinity;
  for (let place = 0; place < scores.length; place++) {
    if (place !== best && scores[place] > second) second = scores[place];
  }
  return scores[best] - second;
}

/**
 * @param {Logits} logits
 * @param {number} tokenId
 * @param {number} most the largest of them
 */
function logprob(logits, tokenId, most) {
  let total = 0;
  for (const each of logits) total += Math.exp(each - most);
  return logits[tokenId] - most - Math.log(total);
}
