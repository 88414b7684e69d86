/**
 * The log of one answer: append-only, indexed from 0, gap-free, one writer at a
 * time. First the cloud, from the takeover index on the device.
 */

import { InternalError, ProtocolError } from "./errors.js";

/** @typedef {"cloud" | "device"} Source who made a token */

/**
 * @typedef {object} Entry
 * @property {number} index
 * @property {number} tokenId
 * @property {Source} source
 * @property {number} receivedS on the device's clock
 * @property {number | null} logprob its maker's, if told
 */

export class TokenLog {
  /** @type {Entry[]} */
  #entries = [];
  /** @type {number[]} */
  #ids = [];
  /** Output indices at which the device became the writer. @type {number[]} */
  takeovers = [];
  /** Tokens that came too late to be entries. */
  discarded = 0;
  /** @type {Source} */
  writer;

  /** @param {Source} [writer] */
  constructor(writer = "cloud") {
    this.writer = writer;
  }

  get length() {
    return this.#entries.length;
  }

  /** @returns {readonly number[]} */
  get ids() {
    return this.#ids;
  }

  /** @returns {readonly Entry[]} */
  get entries() {
    return this.#entries;
  }

  /** Where the device first took over. */
  get takeoverIndex() {
    return this.takeovers[0] ?? null;
  }

  /**
   * Throws ProtocolError on a gap or a rewrite.
   * @param {number} index
   * @param {number} tokenId
   * @param {number} nowS
   * @param {number | null} [logprob]
   */
  appendFromCloud(index, tokenId, nowS, logprob = null) {
    if (this.writer !== "cloud") {
      throw new InternalError("the cloud wrote to the log after the takeover");
    }
    if (index !== this.length) {
      throw new ProtocolError(
        `the cloud sent tokens from index ${index}, expected ${this.length}: ` +
          "the log has no gaps and nobody rewrites an entry",
      );
    }
    this.#append(tokenId, "cloud", nowS, logprob);
  }

  /**
   * Throws InternalError before the takeover.
   * @param {number} tokenId
   * @param {number} nowS
   * @param {number | null} [logprob]
   */
  appendFromDevice(tokenId, nowS, logprob = null) {
    if (this.writer !== "device") {
      throw new InternalError("the device wrote to the log before its takeover");
    }
    this.#append(tokenId, "device", nowS, logprob);
  }

  /**
   * An entry of an answer that was interrupted, before anybody writes.
   * @param {number} tokenId
   * @param {Source} source
   * @param {number} nowS
   */
  restore(tokenId, source, nowS) {
    this.#append(tokenId, source, nowS, null);
  }

  /** Make the device the writer; returns the takeover index. */
  takeOver() {
    if (this.writer === "device") {
      throw new InternalError("the device took over a log that it writes already");
    }
    this.writer = "device";
    this.takeovers.push(this.length);
    return this.length;
  }

  /** Make the cloud the writer again: this device cannot go on. */
  giveBack() {
    if (this.writer === "cloud") {
      throw new InternalError("the device gave back a log that it does not write");
    }
    this.writer = "cloud";
  }

  /** @param {Source} source */
  count(source) {
    return this.#entries.filter((entry) => entry.source === source).length;
  }

  /**
   * @param {number} tokenId
   * @param {Source} source
   * @param {number} receivedS
   * @param {number | null} logprob
   */
  #append(tokenId, source, receivedS, logprob) {
    this.#entries.push({ index: this.length, tokenId, source, receivedS, logprob });
    this.#ids.push(tokenId);
  }
}
