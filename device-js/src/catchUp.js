/**
 * What the device's engine does next: a pure step function of explicit state.
 *
 * @typedef {"prefill" | "absorb" | "take_over" | "decode" | "wait" | "stop"} Work
 */

/**
 * @typedef {object} View all that the decision depends on
 * @property {number} prefillLeftTokens
 * @property {number} absorbedTokens
 * @property {number} logTokens
 * @property {number} creditThrough
 * @property {boolean} deviceWrites
 * @property {boolean} cloudAlive
 * @property {boolean} takeoverForced
 * @property {boolean} over
 * @property {boolean} paused the device is to rest while the cloud can go on
 * @property {number} silenceS since the last sign of the cloud's decoding
 * @property {number} patienceS how long a caught-up device waits for a cloud that owes tokens
 */

/**
 * Takeover is normal once the log has reached the credit and the lag is zero; it
 * is early when the cloud is gone, when it is asked for, when the device is ready
 * before the first token, or when the cloud owes tokens for longer than `patienceS`.
 * @param {View} view
 * @returns {Work}
 */
export function nextWork(view) {
  if (view.over) return "stop";
  if (view.paused) return "wait";
  if (view.prefillLeftTokens > 0) return "prefill";
  if (view.absorbedTokens < view.logTokens) return "absorb";
  if (view.deviceWrites) return "decode";
  const nothingOwed = view.logTokens >= view.creditThrough;
  const tooSlow = view.logTokens === 0 || view.silenceS >= view.patienceS;
  if (nothingOwed || !view.cloudAlive || view.takeoverForced || tooSlow) return "take_over";
  return "wait";
}

/**
 * How long "wait" lasts if nothing changes; null is for ever.
 * @param {View} view
 * @returns {number | null}
 */
export function waitS(view) {
  return view.paused ? null : Math.max(0, view.patienceS - view.silenceS);
}
