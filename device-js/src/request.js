/** What one answer is asked for, in the device's own terms. */

import { ContextTooLong, InvalidRequest, Unsupported } from "./errors.js";
import { identityToWire } from "./identity.js";
import { samplingToWire } from "./samplingOptions.js";

// The pace to assume until the cloud has sent its advice.
const DEFAULT_INTERVAL_S = 0.05;
const PROTOCOL = { major: 1, minor: 0, features: ["credit", "takeover", "resume"] };

/**
 * @typedef {object} AnswerRequest
 * @property {string} requestId
 * @property {readonly number[]} promptIds empty for a client without an engine
 * @property {string | null} text the prompt of such a client, or
 * @property {readonly {role: string, content: string}[]} messages
 * @property {import("./samplingOptions.js").Sampling} sampling
 * @property {number} maxTokens
 * @property {number | null} creditThrough null: the cloud's advice, extended by this device
 * @property {number | null} keepRatio share of the prompt to be told to keep; 1: no refinement
 * @property {string} model the cloud's; empty takes its only one
 * @property {string} label
 * @property {boolean} logprobs
 * @property {import("./budgets.js").Budgets} budgets
 * @property {boolean} standby the engine rests as long as the cloud can go on
 * @property {boolean} uploadHistory tokens made here may go to the cloud, if it must go on
 * @property {number} cachedTokens leading tokens of the prompt in the engine's cache
 * @property {import("./identity.js").ModelIdentity | null} identity
 * @property {import("./timeline.js").DeviceProfile | null} profile
 */

/**
 * The interval to show tokens at: never faster than this device will decode.
 * @param {AnswerRequest} request
 */
export function showIntervalS(request) {
  return Math.max(DEFAULT_INTERVAL_S, request.profile?.decodeS ?? 0);
}

/**
 * The first message of a stream, with the tokens of the answer there are already.
 * @param {AnswerRequest} request
 * @param {readonly number[]} outputPrefix
 * @param {number} creditThrough what the device has asked for since; 1 is nothing
 */
export function startMessage(request, outputPrefix, creditThrough) {
  const { promptIds, identity, profile } = request;
  const sampling = samplingToWire(request.sampling);
  /** @type {Record<string, any>} */
  const start = {
    requestId: request.requestId,
    protocol: PROTOCOL,
    model: request.model,
    label: request.label,
    limits: { maxTokens: request.maxTokens },
    outputPrefix,
    logprobs: request.logprobs,
    cachedTokens: request.cachedTokens,
  };
  if (identity !== null) {
    start.identity = identityToWire(identity);
    start.promptTokenIds = { ids: promptIds };
    start.sampling = { ...sampling, stop: [] }; // this device finds stop strings itself
  } else {
    start.sampling = sampling;
    if (request.text !== null) start.promptText = request.text;
    else start.messages = { messages: request.messages };
  }
  if (request.keepRatio !== null) start.keepRatio = request.keepRatio;
  if (profile !== null) start.profile = { ...profile };
  if (request.creditThrough !== null || creditThrough > 1) {
    start.credit = { through: Math.max(request.creditThrough ?? 1, creditThrough) };
  }
  return start;
}

/**
 * How long the answer may become; undefined fills the engine's context.
 * @param {number | undefined} maxTokens
 * @param {number} promptTokens
 * @param {number} contextTokens Infinity without an engine
 */
export function requireFit(maxTokens, promptTokens, contextTokens) {
  if (maxTokens === undefined && contextTokens === Infinity) {
    throw new InvalidRequest("maxTokens is needed where no engine says what fits; pass it", {
      param: "maxTokens",
    });
  }
  const wanted = maxTokens ?? Math.max(1, contextTokens - promptTokens);
  if (!Number.isInteger(wanted) || wanted < 1) {
    throw new InvalidRequest(`maxTokens is ${wanted}, expected a whole number of at least 1`, {
      param: "maxTokens",
    });
  }
  if (promptTokens + wanted > contextTokens) {
    throw new ContextTooLong(
      `${promptTokens} prompt tokens and up to ${wanted} output tokens exceed this engine's ` +
        `context of ${contextTokens} by ${promptTokens + wanted - contextTokens}; shorten the ` +
        "prompt, lower maxTokens, or use only_in_cloud",
    );
  }
  return wanted;
}

/**
 * What to ask the cloud for: engines of this SDK leave no position out, so with one it is all.
 * @param {number | undefined} keepRatio
 * @param {boolean} hasEngine whether one takes part in the answer
 * @returns {number | null}
 */
export function checkedKeepRatio(keepRatio, hasEngine) {
  if (keepRatio !== undefined && !(keepRatio > 0 && keepRatio <= 1)) {
    throw new InvalidRequest(
      `keepRatio is ${keepRatio}, expected a share above 0 and up to 1`,
      { param: "keepRatio" },
    );
  }
  if (!hasEngine) return keepRatio ?? null;
  if (keepRatio !== undefined && keepRatio !== 1) {
    throw new Unsupported(
      "this engine takes a prompt only without gaps; leave keepRatio out",
      { reason: "POSITIONS_COMPACT", param: "keepRatio" },
    );
  }
  return 1;
}
