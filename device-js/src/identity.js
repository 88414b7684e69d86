/**
 * Whether two models may share a log of token ids: what ids mean must agree; merges
 * and template may differ with a warning; weights and numerics only decide which
 * exactness may be claimed. The gateway compares too, and refuses.
 */

import { IdentityMismatch } from "./errors.js";
import { toBase64 } from "./frames.js";
import { toHex } from "./sha256.js";

/**
 * @typedef {object} ModelIdentity what a model tells the other side about itself
 * @property {string} model
 * @property {number} vocabSize width of the logits, padding included
 * @property {Uint8Array} vocabularyDigest SHA-256, empty when unknown; so are the others
 * @property {readonly number[]} specialTokenIds ascending
 * @property {readonly number[]} stopTokenIds ascending
 * @property {Uint8Array} mergesDigest
 * @property {Uint8Array} templateDigest
 * @property {Uint8Array} weightsDigest
 * @property {string} numerics e.g. "fp32"
 */

/**
 * The message in protobuf's JSON.
 * @param {ModelIdentity} identity
 */
export function identityToWire(identity) {
  return {
    ...identity,
    vocabularyDigest: toBase64(identity.vocabularyDigest),
    mergesDigest: toBase64(identity.mergesDigest),
    templateDigest: toBase64(identity.templateDigest),
    weightsDigest: toBase64(identity.weightsDigest),
  };
}

/**
 * What differs, in sentences that name the factor.
 * @param {ModelIdentity} ours
 * @param {ModelIdentity} theirs
 */
export function compare(ours, theirs) {
  const fatal = [];
  const unknown = [ours, theirs].filter((side) => side.vocabularyDigest.length === 0);
  if (unknown.length > 0) {
    const names = unknown.map((side) => `'${side.model}'`).join(" and ");
    fatal.push(`vocabulary digest of ${names} is missing`);
  } else if (!same(ours.vocabularyDigest, theirs.vocabularyDigest)) {
    fatal.push("vocabulary differs");
  }
  if (!same(ours.specialTokenIds, theirs.specialTokenIds)) fatal.push("special token ids differ");
  if (!same(ours.stopTokenIds, theirs.stopTokenIds)) fatal.push("stop token ids differ");
  const warnings = [];
  const effect = "the same text may become other prompt ids on the other side";
  if (!same(ours.mergesDigest, theirs.mergesDigest)) {
    warnings.push(`merges or pre-tokenizer differ: ${effect}`);
  }
  if (!same(ours.templateDigest, theirs.templateDigest)) {
    warnings.push(`chat templates differ: ${effect}`);
  }
  return { fatal, warnings };
}

/**
 * Returns the warnings; throws IdentityMismatch naming every factor that forbids sharing.
 * @param {ModelIdentity} ours
 * @param {ModelIdentity} theirs
 */
export function requireSharedLog(ours, theirs) {
  const { fatal, warnings } = compare(ours, theirs);
  if (fatal.length > 0) {
    throw new IdentityMismatch(
      `'${ours.model}' and '${theirs.model}' cannot share a log: ${fatal.join("; ")}. ` +
        "Use a model with the same tokenizer on both sides, or answer on one side only",
    );
  }
  return warnings;
}

/**
 * The best exactness two models that share a log may claim: 2 when weights are
 * bit-equal and both sides compute in fp32, else 3.
 * @param {ModelIdentity} ours
 * @param {ModelIdentity} theirs
 */
export function exactnessLevel(ours, theirs) {
  const known = ours.weightsDigest.length > 0;
  const sameWeights = known && toHex(ours.weightsDigest) === toHex(theirs.weightsDigest);
  return sameWeights && ours.numerics === "fp32" && theirs.numerics === "fp32" ? 2 : 3;
}

/**
 * @param {ArrayLike<number>} one
 * @param {ArrayLike<number>} other
 */
function same(one, other) {
  return one.length === other.length && Array.from(one).every((each, i) => each === other[i]);
}
