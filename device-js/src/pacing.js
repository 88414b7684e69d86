/**
 * The speed controller: a steady reader of an unsteady log. How it chooses the
 * rate is told in `segue_device.pacing`; the shared vectors hold both to it.
 */

import { requireKnown } from "./errors.js";

/** Settings of the speed controller; `enabled: false` shows everything at once. */
export const PACING_DEFAULTS = Object.freeze({
  enabled: true,
  horizonS: 2.5,
  minRateTps: 2,
  maxRateTps: 200,
  slew: 0.25,
  slewPeriodS: 0.25,
  flushS: 0.25,
  // Longest interval that stretching makes: just under a visible stall.
  stretchS: 0.24,
});

/** @typedef {{-readonly [K in keyof typeof PACING_DEFAULTS]:
 *   K extends "enabled" ? boolean : number}} Pacing */

/**
 * @typedef {object} PaceView what the controller sees; rates in tokens per second
 * @property {number} backlogTokens
 * @property {number} showIntervalS
 * @property {number} deviceRateTps
 * @property {boolean} deviceWrites
 * @property {boolean} complete
 * @property {number} expectedS until the next token is expected; 0 while they are coming
 * @property {boolean} cancelled
 */

// How far a late timer may be made up for.
const MAX_CATCH_UP_S = 0.02;

/**
 * @param {Partial<Pacing>} given
 * @returns {Pacing}
 */
export function pacingOf(given) {
  requireKnown(given, Object.keys(PACING_DEFAULTS), "pacing");
  return { ...PACING_DEFAULTS, ...given };
}

/** Decides when the next token is due. */
export class Pacer {
  #pacing;
  /** @type {number | null} */
  #rateTps = null;
  #rateSetS = 0;
  /** @type {number | null} */
  #lastS = null;
  /** @type {number | null} */
  #flushByS = null;

  /** @param {Pacing} pacing */
  constructor(pacing) {
    this.#pacing = pacing;
  }

  /**
   * When the next token may be shown; in the past means now.
   * @param {PaceView} view
   * @param {number} nowS
   */
  dueS(view, nowS) {
    const pacing = this.#pacing;
    if (this.#lastS === null || !pacing.enabled || view.cancelled) return nowS;
    const backlog = Math.max(1, view.backlogTokens);
    const holdS = Math.min(view.expectedS / backlog, pacing.stretchS);
    let intervalS = Math.max(1 / this.#follow(this.#targetTps(view), nowS), holdS);
    if (view.complete) {
      this.#flushByS ??= nowS + pacing.flushS;
      const leftS = Math.max(0, this.#flushByS - this.#lastS);
      intervalS = Math.min(intervalS, leftS / backlog);
    }
    return this.#lastS + intervalS;
  }

  /**
   * A token was shown at `nowS`, having been due at `dueS`: a timer that fires
   * late must not slow the pace down.
   * @param {number} dueS
   * @param {number} nowS
   */
  shown(dueS, nowS) {
    this.#lastS = this.#lastS === null ? nowS : Math.max(dueS, nowS - MAX_CATCH_UP_S);
  }

  /** @param {PaceView} view */
  #targetTps(view) {
    const { horizonS, minRateTps, maxRateTps } = this.#pacing;
    const target = view.deviceWrites
      ? view.deviceRateTps + view.backlogTokens / horizonS
      : 1 / view.showIntervalS;
    return Math.min(Math.max(target, minRateTps), maxRateTps);
  }

  /**
   * @param {number} targetTps
   * @param {number} nowS
   */
  #follow(targetTps, nowS) {
    if (this.#rateTps === null) {
      this.#rateTps = targetTps;
    } else {
      const periods = Math.max(0, nowS - this.#rateSetS) / this.#pacing.slewPeriodS;
      const step = this.#rateTps * this.#pacing.slew * periods;
      this.#rateTps += Math.min(Math.max(targetTps - this.#rateTps, -step), step);
    }
    this.#rateSetS = nowS;
    return this.#rateTps;
  }
}
