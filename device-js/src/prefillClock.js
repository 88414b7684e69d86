/** How long the device's prefill will still take, from how it went so far. */

/** Scales the device's profile by what was measured in this answer. */
export class PrefillClock {
  #profile;
  #cachedTokens;
  /** @type {number | null} */
  #startedS = null;
  #doneTokens;
  #tookS = 0;

  /**
   * @param {import("./timeline.js").DeviceProfile | null} profile
   * @param {number} cachedTokens of the prompt, in the cache before it began
   */
  constructor(profile, cachedTokens) {
    this.#profile = profile;
    this.#cachedTokens = this.#doneTokens = cachedTokens;
  }

  /** @param {number} nowS the engine begins, or goes on after a pause, which does not count */
  start(nowS) {
    this.#startedS = nowS - this.#tookS;
  }

  /**
   * @param {number} doneTokens in the cache now
   * @param {number} nowS
   */
  observe(doneTokens, nowS) {
    this.#doneTokens = doneTokens;
    this.#tookS = nowS - (this.#startedS ?? nowS);
  }

  /**
   * Seconds until `leftTokens` more are prefilled; 0 while nothing is known.
   * @param {number} leftTokens
   * @param {number} nowS
   */
  leftS(leftTokens, nowS) {
    if (this.#profile === null || this.#startedS === null) return 0;
    const expectedS = this.#profile.prefillLeftS(this.#doneTokens, this.#cachedTokens);
    const scale = expectedS > 0 ? this.#tookS / expectedS : 1;
    const totalTokens = this.#doneTokens + leftTokens;
    const wholeLeftS = this.#profile.prefillLeftS(totalTokens, this.#doneTokens) * scale;
    const sinceChunkS = nowS - this.#startedS - this.#tookS;
    return Math.max(0, wholeLeftS - sinceChunkS);
  }
}
