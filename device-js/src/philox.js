/**
 * Philox4x32-10 (Salmon et al., SC 2011): the noise of token 7 at output index 3
 * can be computed alone, in any order, on any machine. That is why two machines
 * continue one another's sampling without handing over any state.
 */

import { exactLog } from "./exactMath.js";

const MULTIPLIERS = [0xd2511f53, 0xcd9e8d57];
const KEY_STEPS = [0x9e3779b9, 0xbb67ae85];
const ROUNDS = 10;

/**
 * The four output words of a counter.
 * @param {readonly number[]} counter four 32-bit numbers
 * @param {bigint} key 64 bits, its low half the first key word
 * @returns {[number, number, number, number]}
 */
export function philox4x32(counter, key) {
  let [c0, c1, c2, c3] = counter;
  let k0 = Number(key & 0xffffffffn);
  let k1 = Number(key >> 32n);
  for (let round = 0; round < ROUNDS; round++) {
    const high0 = multiplyHigh(c0, MULTIPLIERS[0]);
    const high1 = multiplyHigh(c2, MULTIPLIERS[1]);
    const low0 = Math.imul(c0, MULTIPLIERS[0]);
    const low1 = Math.imul(c2, MULTIPLIERS[1]);
    c0 = (high1 ^ c1 ^ k0) >>> 0;
    c2 = (high0 ^ c3 ^ k1) >>> 0;
    c1 = low1 >>> 0;
    c3 = low0 >>> 0;
    k0 = (k0 + KEY_STEPS[0]) >>> 0;
    k1 = (k1 + KEY_STEPS[1]) >>> 0;
  }
  return [c0, c1, c2, c3];
}

/**
 * A uniform number strictly inside (0, 1): an odd multiple of 2^-53.
 * @param {number} tokenId
 * @param {number} index
 * @param {bigint} seed
 * @param {number} [domain]
 */
export function uniform(tokenId, index, seed, domain = 0) {
  const [high, low] = philox4x32([tokenId, index, domain, 0], seed);
  return (high * 2 ** 20 + (low >>> 12)) * 2 ** -52 + 2 ** -53;
}

/**
 * Standard Gumbel noise -log(-log(u)).
 * @param {number} tokenId
 * @param {number} index
 * @param {bigint} seed
 */
export function gumbel(tokenId, index, seed) {
  return -exactLog(-exactLog(uniform(tokenId, index, seed)));
}

/**
 * The high word of a 32 by 32 bit product, in halves that a double holds exactly.
 * @param {number} a
 * @param {number} b
 */
function multiplyHigh(a, b) {
  const aLow = a & 0xffff;
  const aHigh = a >>> 16;
  const bLow = b & 0xffff;
  const bHigh = b >>> 16;
  const middle = aHigh * bLow + ((aLow * bLow) >>> 16);
  const carry = aLow * bHigh + (middle & 0xffff);
  return (aHigh * bHigh + Math.floor(middle / 0x10000) + Math.floor(carry / 0x10000)) >>> 0;
}
