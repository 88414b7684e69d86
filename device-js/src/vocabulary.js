/** What each token id stands for, in bytes: the part of a tokenizer both sides must share. */

import { InvalidRequest, Unsupported } from "./errors.js";
import { Sha256 } from "./sha256.js";

/** @typedef {(piece: string) => Uint8Array} PieceDecoder */

const utf8 = new TextEncoder();
const NOTHING = new Uint8Array();
const SPACE_MARK = /\u2581/g;
const BYTE_PIECE = /^<0x([0-9A-Fa-f]{2})>$/;

/** A table id -> bytes of the ids in use; ids without a piece have no text. */
export class Vocabulary {
  #pieces;
  /** @type {ReadonlySet<number>} */
  specialIds;

  /**
   * @param {ReadonlyMap<number, Uint8Array>} pieces
   * @param {Iterable<number>} specialIds those without text
   */
  constructor(pieces, specialIds) {
    this.#pieces = new Map([...pieces].sort(([one], [other]) => one - other));
    this.specialIds = new Set(specialIds);
  }

  /**
   * Build from the content of a tokenizer.json: byte-level BPE and
   * sentencepiece-like pieces, as `segue_protocol.vocabulary` reads them.
   * @param {any} spec
   */
  static fromTokenizerJson(spec) {
    try {
      const toBytes = pieceDecoder(spec.decoder);
      const { vocab } = spec.model;
      /** @type {[string, number][]} */
      const listed = Array.isArray(vocab)
        ? vocab.map(([piece], tokenId) => [piece, tokenId])
        : Object.entries(vocab);
      const pieces = new Map(listed.map(([piece, tokenId]) => [tokenId, toBytes(piece)]));
      const added = spec.added_tokens ?? [];
      for (const token of added) pieces.set(token.id, utf8.encode(token.content));
      const special = added.filter((/** @type {any} */ token) => token.special);
      return new Vocabulary(pieces, special.map((/** @type {any} */ token) => token.id));
    } catch (error) {
      if (!(error instanceof TypeError)) throw error;
      throw new InvalidRequest(
        `tokenizer.json is not in the form of the tokenizers library (${error.message}); ` +
          "download it again",
        { reason: "MODEL_FILE_DAMAGED" },
      );
    }
  }

  /** The ids in use, ascending. */
  get ids() {
    return [...this.#pieces.keys()];
  }

  /**
   * What an id adds to the text shown: nothing if special or not in use.
   * @param {number} tokenId
   */
  textBytes(tokenId) {
    return this.specialIds.has(tokenId) ? NOTHING : (this.#pieces.get(tokenId) ?? NOTHING);
  }

  /** SHA-256 over id (u32-LE), length (u32-LE) and bytes of every id in use, ascending. */
  digest() {
    const hash = new Sha256();
    for (const [tokenId, piece] of this.#pieces) {
      const head = new DataView(new ArrayBuffer(8));
      head.setUint32(0, tokenId, true);
      head.setUint32(4, piece.length, true);
      hash.update(new Uint8Array(head.buffer)).update(piece);
    }
    return hash.digest();
  }
}

/**
 * @param {any} decoder
 * @returns {PieceDecoder}
 */
function pieceDecoder(decoder) {
  const kinds = decoderKinds(decoder);
  if (kinds.has("ByteLevel")) return byteLevel();
  if (kinds.has("ByteFallback")) {
    return (piece) => {
      const match = BYTE_PIECE.exec(piece);
      return match ? Uint8Array.of(parseInt(match[1], 16)) : markedSpace(piece);
    };
  }
  if (kinds.has("Metaspace")) return markedSpace;
  throw new Unsupported(
    `tokenizer decoder ${[...kinds].sort().join(", ") || "none"} has no table from id to bytes; ` +
      "expected ByteLevel, ByteFallback or Metaspace: choose another model",
    { reason: "TOKENIZER_UNSUPPORTED" },
  );
}

/**
 * @param {any} decoder
 * @returns {Set<string>}
 */
function decoderKinds(decoder) {
  if (!decoder) return new Set();
  const nested = (decoder.decoders ?? []).flatMap((/** @type {any} */ each) => [
    ...decoderKinds(each),
  ]);
  return new Set([decoder.type, ...nested]);
}

/** @param {string} piece */
function markedSpace(piece) {
  return utf8.encode(piece.replace(SPACE_MARK, " "));
}

/**
 * The reversible map of GPT-2: every byte is one printable character.
 * @returns {PieceDecoder}
 */
function byteLevel() {
  /** @type {Map<string, number>} */
  const bytes = new Map();
  let others = 0;
  for (let byte = 0; byte < 256; byte++) {
    const plain = (byte > 0x20 && byte < 0x7f) || (byte > 0xa0 && byte !== 0xad);
    bytes.set(String.fromCharCode(plain ? byte : 256 + others++), byte);
  }
  return (piece) => {
    const found = Array.from(piece, (character) => bytes.get(character));
    // A piece outside the map stands for itself.
    if (found.some((byte) => byte === undefined)) return utf8.encode(piece);
    return Uint8Array.from(/** @type {number[]} */ (found));
  };
}
