// The conversation: its turns, the composer, stop.

import { Answer } from "./answer.js";
import { h } from "./dom.js";
import { SHORT_MODES } from "./words.js";

const LONG_MESSAGE = 320;

export class Chat {
  #turns = document.querySelector("#turns");
  #empty = document.querySelector("#empty");
  #text = document.querySelector("#text");
  #send = document.querySelector("#send");
  #stop = document.querySelector("#stop");
  #problem = document.querySelector("#problem");
  #count = 0;
  #running = null; // the name of the answer that is being written
  #inSight = null; // the turn that is kept in sight while it grows
  #growth = new ResizeObserver(() => this.#inSight?.scrollIntoView({ block: "nearest" }));

  constructor({ spoken, settings, describe }) {
    Object.assign(this, { spoken, settings, describe });
    document.querySelector("#composer").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#ask();
    });
    this.#text.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
        event.preventDefault();
        this.#ask();
      }
    });
    this.#stop.addEventListener("click", () => this.stop());
    for (const move of ["wheel", "touchmove", "keydown"]) {
      window.addEventListener(move, () => (this.#inSight = null), { passive: true });
    }
  }

  /** Show a device's conversation, whose last answer may still be running. */
  async show(device) {
    const turns = await device.turns();
    this.device = device;
    this.#turns.replaceChildren();
    this.#count = 0;
    this.#setRunning(null);
    this.#empty.hidden = turns.length > 0;
    for (const turn of turns) this.#add(turn);
  }

  async stop() {
    if (this.#running) await this.#trying(() => this.device.stop(this.#running));
  }

  async #ask() {
    const text = this.#text.value.trim();
    if (!text || this.#running) return;
    const settings = { ...this.settings() };
    this.#setRunning("asked");
    const answer = await this.#trying(() => this.device.ask(text, settings));
    if (!answer) return this.#setRunning(null);
    this.#text.value = "";
    this.#empty.hidden = true;
    this.#inSight = this.#add({ text, settings, answer });
  }

  #add({ text, settings, answer }) {
    this.#count += 1;
    const shown = new Answer({
      title: `Answer ${this.#count}: ${SHORT_MODES[settings.mode]}`,
      mode: settings.mode,
      spoken: this.spoken,
    });
    const turn = h("section", { class: "turn", "aria-label": `Turn ${this.#count}` }, question(text, this.#count));
    turn.append(shown.element, h("p", { class: "how made" }, this.describe(settings, this.device)));
    this.#turns.append(turn);
    this.#growth.observe(turn);
    this.#setRunning(answer);
    shown.follow(this.device.events(answer)).then(() => {
      if (this.#running === answer) this.#setRunning(null);
    });
    return turn;
  }

  #setRunning(answer) {
    this.#running = answer;
    this.#send.disabled = answer !== null;
    this.#stop.disabled = answer === null;
  }

  async #trying(action) {
    this.#problem.textContent = "";
    try {
      return await action();
    } catch (error) {
      this.#problem.textContent = error.message;
      return null;
    }
  }
}

function question(text, number) {
  const title = h("h2", { class: "hidden" }, `Question ${number}`);
  if (text.length <= LONG_MESSAGE) return h("div", { class: "question" }, title, h("p", {}, text));
  const start = text.slice(0, LONG_MESSAGE / 2).replace(/\s+\S*$/, "");
  const summary = h("summary", {}, `${start} … `, h("span", { class: "more" }, `all ${text.length} characters`));
  return h("div", { class: "question" }, title, h("details", {}, summary, h("p", {}, text)));
}
