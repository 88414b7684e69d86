/** This device's clock, in seconds; injected wherever time matters. */

/**
 * @typedef {object} Clock
 * @property {() => number} nowS monotonic
 * @property {(delayS: number, run: () => void) => () => void} after call `run` later;
 *   returns what calls that off
 */

/** @type {Clock} */
export const systemClock = {
  nowS: () => performance.now() / 1000,
  after: (delayS, run) => {
    const timer = setTimeout(run, delayS * 1000);
    return () => clearTimeout(timer);
  },
};
