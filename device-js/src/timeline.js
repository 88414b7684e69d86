/**
 * The arithmetic of the hand-over, for both sides; see `segue_protocol.timeline`.
 *
 * Nothing visible stalls iff
 * cloudTokens * showIntervalS >= prefillLeftS + absorbPerTokenS * cloudTokens + handoverS,
 * and N* is the smallest such number of cloud tokens.
 */

import { InvalidRequest, requireKnown } from "./errors.js";

/** No answer is longer; a larger N* is told as unbounded. */
export const MAX_CLOUD_TOKENS = 2 ** 31 - 1;

const FIELDS = [
  "prefillBaseS", "prefillPerTokenS", "prefillPerToken2S", "decodeS", "handoverS", "relativeError",
];

/**
 * How fast a device is, as measured by it: prefill of n tokens takes
 * base + perToken n + perToken2 n^2 seconds, one token `decodeS`. Real times differ
 * from these by `relativeError` (standard deviation; 0: not known).
 */
export class DeviceProfile {
  /**
   * @param {{prefillBaseS: number, prefillPerTokenS: number, prefillPerToken2S: number,
   *   decodeS: number, handoverS: number, relativeError?: number}} given
   */
  constructor(given) {
    requireKnown(given, FIELDS, "a device profile");
    this.prefillBaseS = given.prefillBaseS;
    this.prefillPerTokenS = given.prefillPerTokenS;
    this.prefillPerToken2S = given.prefillPerToken2S;
    this.decodeS = given.decodeS;
    this.handoverS = given.handoverS;
    this.relativeError = given.relativeError ?? 0;
    for (const [name, value] of Object.entries(this)) {
      if (!Number.isFinite(value) || value < 0 || (name === "decodeS" && value === 0)) {
        throw new InvalidRequest(
          `${name} of the device profile is ${value}, expected a finite number ` +
            `${name === "decodeS" ? "above" : "from"} 0; measure the device again`,
          { param: name },
        );
      }
    }
  }

  /**
   * Seconds to prefill `tokens` from an empty cache; 0 for none.
   * @param {number} tokens
   */
  prefillS(tokens) {
    if (tokens <= 0) return 0;
    const perTokenS = this.prefillPerTokenS + this.prefillPerToken2S * tokens;
    return this.prefillBaseS + perTokenS * tokens;
  }

  /**
   * Seconds to prefill `tokens` of which the first `doneTokens` are in the cache.
   * @param {number} tokens
   * @param {number} doneTokens
   */
  prefillLeftS(tokens, doneTokens) {
    return Math.max(0, this.prefillS(tokens) - this.prefillS(doneTokens));
  }

  /**
   * Seconds one more prefilled token costs behind `cachedTokens`.
   * @param {number} cachedTokens
   */
  absorbPerTokenS(cachedTokens) {
    return this.prefillPerTokenS + 2 * this.prefillPerToken2S * cachedTokens;
  }
}

/**
 * When the device can show a token of its own, on the clock of `firstTokenS`.
 * @param {{firstTokenS: number, prefillLeftS: number, cloudTokens: number,
 *   absorbPerTokenS: number, handoverS: number}} view
 */
export function readyTimeS({ firstTokenS, prefillLeftS, cloudTokens, absorbPerTokenS, handoverS }) {
  return firstTokenS + prefillLeftS + cloudTokens * absorbPerTokenS + handoverS;
}

/**
 * @typedef {object} Race
 * @property {number} prefillLeftS
 * @property {number} showIntervalS
 * @property {number} absorbPerTokenS
 * @property {number} handoverS
 * @property {number} [absorbPerToken2S] where attention makes every further token dearer
 */

/**
 * Whether showing `cloudTokens` lasts until the device is ready.
 * @param {Race & {cloudTokens: number}} view
 */
export function stallFree(view) {
  const absorbS = view.absorbPerTokenS + (view.absorbPerToken2S ?? 0) * view.cloudTokens;
  return view.cloudTokens * (view.showIntervalS - absorbS) >= view.prefillLeftS + view.handoverS;
}

/**
 * The fewest cloud tokens without a stall, at least 1; null is unbounded: tokens are
 * shown at least as fast as the device absorbs them.
 * @param {Race} race
 * @returns {number | null}
 */
export function nStar(race) {
  const enough = (/** @type {number} */ cloudTokens) => stallFree({ ...race, cloudTokens });
  if (enough(1)) return 1;
  const gainedS = race.showIntervalS - race.absorbPerTokenS;
  const neededS = race.prefillLeftS + race.handoverS;
  const squared = gainedS * gainedS - 4 * (race.absorbPerToken2S ?? 0) * neededS;
  if (gainedS <= 0 || squared < 0) return null;
  const root = (2 * neededS) / (gainedS + Math.sqrt(squared));
  if (!(root <= MAX_CLOUD_TOKENS)) return null;
  let tokens = Math.max(1, Math.ceil(root));
  // The root is rounded; N* is defined by the condition itself.
  while (tokens > 1 && enough(tokens - 1)) tokens -= 1;
  return [tokens, tokens + 1, tokens + 2].find(enough) ?? null;
}
