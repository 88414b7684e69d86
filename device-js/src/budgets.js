/** How long an app waits for what, by name. */

import { DeadlineExceeded, InvalidRequest, requireKnown } from "./errors.js";

/**
 * Seconds; null is without end. `connectS`: until the cloud has taken the request.
 * `firstTokenS`: from the request to the cloud's first token. `interTokenS`: from one
 * token to the next that the cloud owes. Where one of these runs out the device goes
 * on alone, and without a device the answer fails. `totalS` ends the answer.
 */
export const BUDGET_DEFAULTS = Object.freeze({
  connectS: 10,
  firstTokenS: 30,
  interTokenS: 30,
  totalS: null,
});

/** @typedef {{[K in keyof typeof BUDGET_DEFAULTS]: number | null}} Budgets */

/**
 * @typedef {object} Deadline when a budget runs out
 * @property {number} atS
 * @property {boolean} fatal it ends the answer, not only the cloud's part
 * @property {DeadlineExceeded} error
 */

/**
 * @param {Partial<Budgets>} given
 * @returns {Budgets}
 */
export function budgetsOf(given) {
  requireKnown(given, Object.keys(BUDGET_DEFAULTS), "budgets");
  for (const [name, value] of Object.entries(given)) {
    if (value !== null && !(value > 0 && value < Infinity)) {
      throw new InvalidRequest(
        `the time budget ${name} is ${value}, expected a number of seconds above 0, or null`,
        { param: name },
      );
    }
  }
  return { ...BUDGET_DEFAULTS, ...given };
}

/**
 * The budget that runs out first, or null; `since` are the moments from which each
 * one runs, null for those that do not run now.
 * @param {Budgets} budgets
 * @param {Record<keyof Budgets, number | null>} since
 * @returns {Deadline | null}
 */
export function nextDeadline(budgets, since) {
  /** @type {Deadline | null} */
  let first = null;
  for (const name of /** @type {(keyof Budgets)[]} */ (Object.keys(budgets))) {
    const [budgetS, sinceS] = [budgets[name], since[name]];
    if (budgetS === null || sinceS === null) continue;
    const atS = sinceS + budgetS;
    if (first === null || atS < first.atS) first = deadline(name, atS, budgetS);
  }
  return first;
}

/**
 * @param {keyof Budgets} name
 * @param {number} atS
 * @param {number} budgetS
 * @returns {Deadline}
 */
function deadline(name, atS, budgetS) {
  const fatal = name === "totalS";
  const what = fatal ? "the answer was not complete" : "the cloud did not deliver";
  const words = name.slice(0, -1).replace(/[A-Z]/g, (letter) => `_${letter}`);
  const error = new DeadlineExceeded(
    `${what} within the time budget ${name} of ${budgetS} s; raise the budget, ` +
      "or look for what holds it up",
    { reason: `${words.toUpperCase()}_BUDGET` },
  );
  return { atS, fatal, error };
}
