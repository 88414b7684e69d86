/** The account of a whole answer. */

/**
 * @typedef {object} Result
 * @property {readonly number[]} tokenIds
 * @property {string} text
 * @property {readonly (number | null)[] | null} logprobs if the request asked for them
 * @property {import("./events.js").FinishReason} finishReason
 * @property {bigint} seed asked with it, the same answer comes again
 * @property {{promptTokens: number, cachedTokens: number, cloudTokens: number,
 *   deviceTokens: number, discardedTokens: number}} usage
 * @property {Timings} timings
 * @property {number | null} takeoverIndex
 * @property {number} minMargin smallest margin of the tokens sampled here; Infinity without one
 * @property {Record<string, any> | null} cloud the cloud's own account, if it arrived
 * @property {string} explanation why so many tokens of the cloud; "" if no tuner was asked
 *
 * @typedef {object} Timings seconds from the request, on the device's clock
 * @property {number | null} ttftS
 * @property {number | null} tpotS
 * @property {number} e2eS
 * @property {readonly number[]} receivedS when each token was received or made
 * @property {readonly number[]} shownS
 * @property {number} maxGapS between two tokens as shown
 * @property {number | null} takeoverGapS between the two tokens around the takeover, as shown
 */

/**
 * Ids, text and figures of an answer that is over and shown.
 * @param {import("./answer.js").Answer} answer
 * @param {number} endedS
 * @param {Record<string, any> | null} cloud
 * @returns {Result}
 */
export function resultOf(answer, endedS, cloud) {
  const { log, request, display } = answer;
  const logprobs = request.logprobs ? log.entries.map((entry) => entry.logprob) : null;
  return {
    tokenIds: [...log.ids],
    text: display.shownText,
    logprobs,
    finishReason: /** @type {import("./events.js").FinishReason} */ (answer.reason),
    seed: request.sampling.seed,
    usage: {
      promptTokens: request.promptIds.length,
      cachedTokens: request.cachedTokens,
      cloudTokens: log.count("cloud"),
      deviceTokens: log.count("device"),
      discardedTokens: log.discarded,
    },
    timings: measure(answer, endedS),
    takeoverIndex: log.takeoverIndex,
    minMargin: answer.minMargin,
    cloud,
    explanation: answer.explanation,
  };
}

/**
 * @param {import("./answer.js").Answer} answer
 * @param {number} endedS
 * @returns {Timings}
 */
function measure({ log, display, startedS }, endedS) {
  const shownS = display.shownS.map((momentS) => momentS - startedS);
  const gapsS = shownS.slice(1).map((momentS, index) => momentS - shownS[index]);
  const count = shownS.length;
  const takeover = log.takeoverIndex ?? 0;
  return {
    ttftS: count > 0 ? shownS[0] : null,
    tpotS: count > 1 ? (shownS[count - 1] - shownS[0]) / (count - 1) : null,
    e2eS: endedS - startedS,
    receivedS: log.entries.map((entry) => entry.receivedS - startedS),
    shownS,
    maxGapS: gapsS.reduce((most, gapS) => Math.max(most, gapS), 0),
    takeoverGapS: takeover > 0 && takeover < count ? gapsS[takeover - 1] : null,
  };
}
