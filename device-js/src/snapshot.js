/** An answer as it can be kept in JSON, for a page that is loaded again in the middle. */

import { InvalidRequest } from "./errors.js";

/**
 * @typedef {object} Snapshot holds the prompt, the answer so far and a secret that names the
 *   generation: keep it where the conversation itself may be kept (`sessionStorage`)
 * @property {1} version
 * @property {import("./modes.js").Mode} mode
 * @property {string} requestId
 * @property {readonly number[]} promptIds
 * @property {Record<string, any>} sampling
 * @property {number} maxTokens
 * @property {readonly number[]} outputIds
 * @property {readonly import("./tokenLog.js").Source[]} sources one a token
 * @property {readonly number[]} takeovers
 * @property {number | null} appCredit
 * @property {number} creditThrough
 * @property {string} model
 * @property {string} label
 * @property {string} generationId
 * @property {string | null} resumeToken null: the device writes, or the cloud has not answered
 */

/**
 * Throws InvalidRequest for anything but a snapshot of this version with a prompt in ids.
 * @param {any} saved
 * @returns {Snapshot}
 */
export function readSnapshot(saved) {
  const isWhole =
    saved?.version === 1 &&
    saved.promptIds?.length > 0 &&
    Array.isArray(saved.outputIds) &&
    saved.outputIds.length === saved.sources?.length &&
    Array.isArray(saved.takeovers);
  if (!isWhole) {
    throw new InvalidRequest(
      "this is no snapshot of an answer that can go on; expected what `answer.snapshot()` of " +
        "version 1 gave, of an answer whose prompt was tokenized here",
    );
  }
  return saved;
}
