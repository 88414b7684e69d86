/** How long a device tries to get its stream back. */

// Between two tries; the last one repeats until the limit.
const DELAYS_S = [0.1, 0.2, 0.4, 0.8];
const LIMIT_S = 10;

/** One loss of the stream: its cause, the tries so far, the end of patience. */
export class Reconnect {
  #tries = 0;
  #giveUpS = 0;
  /** @type {import("./errors.js").SegueError | null} */
  cause = null;

  /**
   * The stream has broken.
   * @param {import("./errors.js").SegueError} cause
   * @param {number} nowS
   */
  begin(cause, nowS) {
    this.cause = cause;
    this.restart(nowS);
  }

  /** @param {number} nowS patience begins anew */
  restart(nowS) {
    this.#tries = 0;
    this.#giveUpS = nowS + LIMIT_S;
  }

  /**
   * Seconds until the next try; null for no more.
   * @param {number} nowS
   */
  nextDelayS(nowS) {
    if (nowS >= this.#giveUpS) return null;
    return DELAYS_S[Math.min(this.#tries++, DELAYS_S.length - 1)];
  }
}
