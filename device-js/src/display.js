/** The user's side of one answer: tokens become events at the pacer's moments. */

import { Pacer } from "./pacing.js";

/**
 * A reader of the log with a cursor of its own. Text is derived as soon as a token
 * is in the log (a stop string must end the answer at once) and shown when it is due.
 */
export class Display {
  #log;
  #text;
  #pacer;
  /** @type {string[]} */
  #pieces = [];
  #tail = "";
  /** @type {number[]} */
  shownS = [];
  shownText = "";
  /** Tokens below this index are shown at once: the user has seen them before. */
  restored = 0;

  /**
   * @param {import("./tokenLog.js").TokenLog} log
   * @param {import("./textStream.js").TextStream | null} text null: the cloud sends the text
   * @param {import("./pacing.js").Pacing} pacing
   */
  constructor(log, text, pacing) {
    this.#log = log;
    this.#text = text;
    this.#pacer = new Pacer(pacing);
  }

  /** Index of the next token to show. */
  get cursor() {
    return this.shownS.length;
  }

  get backlog() {
    return this.#log.length - this.cursor;
  }

  /**
   * Take the newest token's text; true if it completed a stop string.
   * @param {number} tokenId
   * @param {string} serverText
   */
  derive(tokenId, serverText) {
    this.#pieces.push(this.#text === null ? serverText : this.#text.push(tokenId));
    return this.#text?.stopped ?? false;
  }

  /** No token follows: release the text that was held back. */
  complete() {
    const tail = this.#text?.flush() ?? "";
    if (this.backlog > 0 && this.#pieces.length > 0) this.#pieces[this.#pieces.length - 1] += tail;
    else this.#tail += tail;
  }

  /**
   * When the next token may be shown.
   * @param {import("./pacing.js").PaceView} view
   * @param {number} nowS
   */
  dueS(view, nowS) {
    return this.cursor < this.restored ? nowS : this.#pacer.dueS(view, nowS);
  }

  /**
   * Show the token at the cursor; returns its text.
   * @param {number} dueS
   * @param {number} nowS
   */
  showNext(dueS, nowS) {
    const text = this.#pieces[this.cursor];
    this.#pacer.shown(dueS, nowS);
    this.shownS.push(nowS);
    this.shownText += text;
    return text;
  }

  /** Text that became certain only after the last token was shown. */
  takeTail() {
    const tail = this.#tail;
    this.#tail = "";
    this.shownText += tail;
    return tail;
  }
}
