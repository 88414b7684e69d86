// What a screen reader hears: whole sentences and turns of events, never single tokens.

import { h } from "./dom.js";

const KEPT = 40;
const SENTENCE = /^[\s\S]*?[.!?…]["”’)]*\s+/;

export class Spoken {
  #rest = "";

  /** `region` is a polite live region. */
  constructor(region) {
    this.region = region;
  }

  say(text) {
    this.region.append(h("p", {}, text));
    while (this.region.children.length > KEPT) this.region.firstChild.remove();
  }

  /** Part of an answer: said once a sentence is complete. */
  addText(text) {
    this.#rest += text;
    for (let found; (found = SENTENCE.exec(this.#rest)); this.#rest = this.#rest.slice(found[0].length)) {
      this.say(found[0].trim());
    }
  }

  /** Nothing follows: say what is left. */
  flush() {
    if (this.#rest.trim()) this.say(this.#rest.trim());
    this.#rest = "";
  }
}
