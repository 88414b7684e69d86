/**
 * What every engine of this SDK is: one sequence of tokens at the positions 0, 1, 2, ...
 *
 * One answer at a time uses an engine, one call at a time. It never leaves out a
 * position, so a prompt that the cloud refined is prefilled whole.
 *
 * @typedef {object} Capabilities
 * @property {"compact"} positions consecutive ones from 0 only
 * @property {boolean} rawLogits whether logits are the model's own; else each row is shifted by
 *   a constant of its own, which changes no choice but under a repetition penalty
 * @property {number} maxContextTokens
 * @property {number} chunkTokens most tokens that one call of the model takes; an abort waits
 *   for one of them
 *
 * @typedef {object} Engine
 * @property {import("../identity.js").ModelIdentity} identity
 * @property {Capabilities} capabilities
 * @property {import("../vocabulary.js").Vocabulary} vocabulary
 * @property {readonly number[]} tokenIds what is in the KV cache, oldest first
 * @property {(text: string) => Promise<number[]>} encode
 * @property {(messages: readonly {role: string, content: string}[]) => Promise<number[]>}
 *   encodeChat prompt ids, ready for the answer's first token
 * @property {(ids: readonly number[], options: {signal: AbortSignal}) => Promise<void>} append
 *   prefill or absorb; throws Cancelled within a chunk of an abort, `tokenIds` then tells what
 *   was finished
 * @property {() => Promise<Float32Array | Float64Array>} logits [vocab] after the last append;
 *   InvalidRequest while there are none (after a rewind, too)
 * @property {(tokens: number) => Promise<void>} rewind keep the first `tokens`
 * @property {() => Promise<void>} close idempotent
 */

import { Cancelled, ContextTooLong, InvalidRequest } from "../errors.js";

/**
 * What is refused before an engine does any work.
 * @param {readonly number[]} ids
 * @param {Pick<Engine, "identity" | "capabilities" | "tokenIds">} engine
 */
export function checkAppend(ids, { identity, capabilities, tokenIds }) {
  const odd = ids.find((id) => !(Number.isInteger(id) && id >= 0 && id < identity.vocabSize));
  if (odd !== undefined || ids.length === 0) {
    throw new InvalidRequest(
      `append got ${odd === undefined ? "no token ids" : `the token id ${odd}`}, expected ids of ` +
        `0 to ${identity.vocabSize - 1}; tokenize with the tokenizer of this model`,
    );
  }
  const total = tokenIds.length + ids.length;
  if (total > capabilities.maxContextTokens) {
    throw new ContextTooLong(
      `the append would end with ${total} tokens, this engine holds ` +
        `${capabilities.maxContextTokens}: shorten the prompt or the answer, or load the engine ` +
        "with a larger context",
    );
  }
}

/**
 * @param {number} tokens
 * @param {number} have
 */
export function checkRewind(tokens, have) {
  if (!(tokens >= 0 && tokens <= have)) {
    throw new InvalidRequest(`cannot rewind to ${tokens} tokens: expected 0 to ${have}`);
  }
}

/** @param {AbortSignal} signal */
export function requireNotAborted(signal) {
  if (signal.aborted) throw new Cancelled("the engine's work was cancelled by its caller");
}
