/**
 * When to ask the cloud for more tokens, and how many: no earlier than the
 * request must be sent to arrive in time, since every unneeded token holds a slot
 * of the cloud. The reasons are in `segue_device.credit`.
 */

import { nStar } from "./timeline.js";

/**
 * @typedef {object} CreditView
 * @property {number} creditThrough
 * @property {number} maxTokens
 * @property {number} shownTokens
 * @property {number} showIntervalS
 * @property {number} readyInS until the device has prefilled the prompt and absorbed what came
 * @property {number} absorbPerTokenS
 * @property {number} cloudReplyS from sending a credit to receiving the token it allows
 */

// Head room for scheduling noise on both sides.
const REPLY_SLACK_S = 0.1;
// One extension lasts this long at most.
const STEP_S = 0.5;

/**
 * The new absolute credit, or null to leave it.
 * @param {CreditView} view
 * @returns {number | null}
 */
export function nextCredit(view) {
  const { showIntervalS, absorbPerTokenS } = view;
  if (view.creditThrough >= view.maxTokens) return null;
  const bufferS = (view.creditThrough - view.shownTokens) * showIntervalS;
  const lateS = view.readyInS - bufferS;
  if (lateS <= 0 || bufferS > view.cloudReplyS + REPLY_SLACK_S) return null;
  const needed = nStar({ prefillLeftS: lateS, showIntervalS, absorbPerTokenS, handoverS: 0 });
  if (needed === null) return view.maxTokens; // never catches up at this pace: the cloud goes on
  const more = Math.min(needed, Math.ceil(STEP_S / showIntervalS));
  return Math.min(view.creditThrough + more, view.maxTokens);
}
