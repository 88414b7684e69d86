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

const FIELDS = ["prefillBaseS", "prefillPerTokenS", "prefillPerToken2S", "decodeS", "handoverS"];

/**
 * How fast a device is, as measured by it: prefill of n tokens takes
 * base + perToken n + perToken2 n^2 seconds, one token `decodeS`.
 */
export class DeviceProfile {
  /**
   * @param {{prefillBaseS: number, prefillPerTokenS: number, prefillPerToken2S: number,
   *   decodeS: number, handoverS: number}} given
   */
  constructor(given) {
    requireKnown(given, FIELDS, "a device profile");
    this.prefillBaseS = given.prefillBaseS;
    this.prefillPerTokenS = given.prefillPerTokenS;
    this.prefillPerToken2S = given.prefillPerToken2S;
    this.decodeS = given.decodeS;
    this.handoverS = given.handoverS;
    for (const [name, value] of Object.entries(this)) {
      if (!Number.isFinite(value) || value < 0 || (name === "decodeS" && value === 0)) {
        throw new InvalidRequest(
          `${name} of the device profile is ${value}, expected a finite number of seconds ` +
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
 */

/**
 * Whether showing `cloudTokens` lasts until the device is ready.
 * @param {Race & {cloudTokens: number}} view
 */
export function stallFree({ cloudTokens, prefillLeftS, showIntervalS, absorbPerTokenS, handoverS }) {
  return cloudTokens * (showIntervalS - absorbPerTokenS) >= prefillLeftS + handoverS;
}

/**
 * The fewest cloud tokens without a stall, at least 1; null is unbounded.
 * @param {Race} race
 * @returns {number | null}
 */
export function nStar(race) {
  const enough = (/** @type {number} */ cloudTokens) => stallFree({ ...race, cloudTokens });
  if (enough(1)) return 1;
  if (!enough(MAX_CLOUD_TOKENS)) return null;
  const gainedS = race.showIntervalS - race.absorbPerTokenS;
  let tokens = Math.ceil((race.prefillLeftS + race.handoverS) / gainedS);
  // The quotient is rounded; N* is defined by the condition itself.
  while (enough(tokens - 1)) tokens -= 1;
  while (!enough(tokens)) tokens += 1;
  return tokens;
}
