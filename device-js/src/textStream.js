/** Ids in, text out, never a character that could still change. */

/**
 * Turns one answer's ids into text as they come and looks for stop strings.
 *
 * Held back are the bytes of an incomplete character and any end of the text
 * that could begin a stop string. The stop string completed first counts, of
 * several completed by one character the longest.
 */
export class TextStream {
  #vocabulary;
  #stops;
  #decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  #held = "";

  /** A stop string was completed: the text before it is out, nothing follows. */
  stopped = false;

  /**
   * @param {import("./vocabulary.js").Vocabulary} vocabulary
   * @param {readonly string[]} [stops]
   */
  constructor(vocabulary, stops = []) {
    this.#vocabulary = vocabulary;
    this.#stops = stops;
  }

  /**
   * Take the next token; returns the text that is now certain.
   * @param {number} tokenId
   */
  push(tokenId) {
    const bytes = this.#vocabulary.textBytes(tokenId);
    return this.#advance(this.#decoder.decode(bytes, { stream: true }));
  }

  /** The answer is over: returns what was held back. */
  flush() {
    const certain = this.#advance(this.#decoder.decode());
    const rest = this.#held;
    this.#held = "";
    return certain + rest;
  }

  /** @param {string} added */
  #advance(added) {
    if (this.stopped) return "";
    const text = this.#held + added;
    const first = this.#firstStop(text);
    if (first !== null) {
      this.stopped = true;
      this.#held = "";
      return text.slice(0, first);
    }
    const certain = text.length - this.#lengthToHold(text);
    this.#held = text.slice(certain);
    return text.slice(0, certain);
  }

  /**
   * Where the stop string begins that ends first.
   * @param {string} text
   */
  #firstStop(text) {
    let [best, bestEnd] = [Infinity, Infinity];
    for (const stop of this.#stops) {
      const start = text.indexOf(stop);
      const end = start + stop.length;
      if (start >= 0 && (end < bestEnd || (end === bestEnd && start < best))) {
        [best, bestEnd] = [start, end];
      }
    }
    return best === Infinity ? null : best;
  }

  /**
   * Length of the longest end of `text` that begins a stop string.
   * @param {string} text
   */
  #lengthToHold(text) {
    const longest = Math.max(0, ...this.#stops.map((stop) => stop.length - 1));
    for (let length = Math.min(longest, text.length); length > 0; length--) {
      const end = text.slice(-length);
      if (this.#stops.some((stop) => stop.startsWith(end))) return length;
    }
    return 0;
  }
}
