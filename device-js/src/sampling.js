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
import { kthLargest } from "./kthLargest.js";
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
  const scores = new Float64Array(logits);
  for (const [tokenId, bias] of Object.entries(sampling.logitBias)) {
    scores[inside(Number(tokenId), scores, "logitBias")] += bias;
  }
  penalize(scores, sampling, promptIds, outputIds);
  let ids = possible(scores);
  if (sampling.temperature > 0) {
    for (const id of ids) scores[id] /= sampling.temperature;
    ids = survivors(scores, ids, sampling);
    for (const id of ids) scores[id] += gumbel(id, index, sampling.seed);
  }
  const best = largest(scores, ids);
  return {
    tokenId: best,
    margin: margin(scores, ids, best),
    logprob: logprob(logits, best, most),
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
 * Ids that may be chosen at all, ascending.
 * @param {Float64Array} scores
 */
function possible(scores) {
  const ids = new Int32Array(scores.length);
  let count = 0;
  for (let id = 0; id < scores.length; id++) {
    if (scores[id] > -Infinity) ids[count++] = id;
  }
  return ids.subarray(0, count);
}

/**
 * The ids that pass top-k, top-p and min-p, ascending.
 * @param {Float64Array} scores
 * @param {Int32Array} ids
 * @param {Sampling} sampling
 */
function survivors(scores, ids, { topK, topP, minP }) {
  const best = scores[largest(scores, ids)];
  let kept = ids;
  if (topK > 0 && topK < ids.length) kept = head(scores, kept, topK);
  if (topP < 1) kept = nucleus(scores, kept, topP, best);
  if (minP > 0) kept = kept.filter((id) => exactExp(scores[id] - best) >= minP);
  return kept.slice().sort();
}

/**
 * The `count` ids of the largest scores, by (score desc, id asc).
 * @param {Float64Array} scores
 * @param {Int32Array} ids
 * @param {number} count
 */
function head(scores, ids, count) {
  let worth = ids;
  if (count < ids.length) {
    // Only what reaches the count-th largest is worth sorting.
    const values = new Float64Array(ids.length);
    for (let place = 0; place < ids.length; place++) values[place] = scores[ids[place]];
    const threshold = kthLargest(values, count);
    worth = ids.filter((id) => scores[id] >= threshold);
  }
  return worth.slice().sort((a, b) => scores[b] - scores[a] || a - b).subarray(0, count);
}

/**
 * The shortest head that holds at least `topP` of the weight.
 * @param {Float64Array} scores
 * @param {Int32Array} ids
 * @param {number} topP
 * @param {number} best the largest score
 */
function nucleus(scores, ids, topP, best) {
  const weight = (/** @type {number} */ id) =>
    Math.floor(exactExp(scores[id] - best) * WEIGHT_UNIT);
  let total = 0;
  for (const id of ids) total += weight(id);
  const wanted = topP * total;
  for (let count = FIRST_HEAD; ; count *= 8) {
    const sorted = head(scores, ids, count);
    let reached = 0;
    const end = sorted.findIndex((id) => (reached += weight(id)) >= wanted);
    if (end >= 0) return sorted.subarray(0, end + 1);
  }
}

/**
 * The id of the largest score; the first of equals.
 * @param {Float64Array} scores
 * @param {Int32Array} ids ascending
 */
function largest(scores, ids) {
  let best = ids[0];
  for (const id of ids) if (scores[id] > scores[best]) best = id;
  return best;
}

/**
 * @param {Float64Array} scores
 * @param {Int32Array} ids
 * @param {number} best
 */
function margin(scores, ids, best) {
  let second = -Infinity;
  for (const id of ids) if (id !== best && scores[id] > second) second = scores[id];
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
