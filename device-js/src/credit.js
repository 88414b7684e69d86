/**
 * When to ask the cloud for more tokens, and how many: no earlier than the
 * request must be sent to arrive in time, since every unneeded token holds a slot
 * of the cloud. The reasons are in `segue_device.credit`.
 */

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

const SLACK_S = 0.1;
const STEP_S = 0.5;

/**
 * The new absolute credit, or null to leave it.
 * @param {CreditView} view
 * @returns {number | null}
 */
export function nextCredit(view) {
  if (view.creditThrough >= view.maxTokens) return null;
  const bufferS = (view.creditThrough - view.shownTokens) * view.showIntervalS;
  const lateS = view.readyInS - bufferS;
  if (lateS <= 0 || bufferS > view.cloudReplyS + SLACK_S) return null;
  const gainedS = view.showIntervalS - view.absorbPerTokenS;
  if (gainedS <= 0) return view.maxTokens; // never catches up at this pace: the cloud goes on
  const step = Math.ceil(STEP_S / view.showIntervalS);
  const more = Math.max(1, Math.min(Math.ceil(lateS / gainedS), step));
  return Math.min(view.creditThrough + more, view.maxTokens);
}
