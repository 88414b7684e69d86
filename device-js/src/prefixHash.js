/** The hash by which device and cloud notice that their logs differ. */

import { InvalidRequest } from "./errors.js";
import { sha256 } from "./sha256.js";

/**
 * SHA-256 over the prompt's ids, their number and the output's ids, each as u32-LE.
 *
 * `promptIds` are those sent in Start, never a kept subset; the number in
 * between keeps the two apart. Throws InvalidRequest when an id is no u32.
 * @param {readonly number[]} promptIds
 * @param {readonly number[]} outputIds
 * @returns {Uint8Array}
 */
export function prefixHash(promptIds, outputIds) {
  const ids = [...promptIds, promptIds.length, ...outputIds];
  const bytes = new DataView(new ArrayBuffer(4 * ids.length));
  ids.forEach((id, index) => {
    if (!Number.isInteger(id) || id < 0 || id > 0xffffffff) {
      throw new InvalidRequest(
        `a token id is no whole number in 0..2^32-1 (${id}); check the tokenizer`,
      );
    }
    bytes.setUint32(4 * index, id, true);
  });
  return sha256(new Uint8Array(bytes.buffer));
}
