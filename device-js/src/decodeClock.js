/** How long one token takes on this device, from its profile and from what was seen. */

// Weight of the newest interval: a handful of tokens tells a device that has
// slowed down from one that stumbled once.
const WEIGHT = 0.2;

/** A moving average of the seconds from one own token to the next. */
export class DecodeClock {
  /** @type {number | null} */
  tokenS;
  /** @type {number | null} */
  #lastS = null;

  /** @param {number | null} profileDecodeS the value until the first interval was seen */
  constructor(profileDecodeS) {
    this.tokenS = profileDecodeS;
  }

  /** @param {number} nowS the device has made a token */
  made(nowS) {
    if (this.#lastS !== null) {
      const seenS = nowS - this.#lastS;
      const knownS = this.tokenS ?? seenS;
      this.tokenS = knownS + WEIGHT * (seenS - knownS);
    }
    this.#lastS = nowS;
  }

  /** What lies before the next token is not decoding. */
  pause() {
    this.#lastS = null;
  }
}
