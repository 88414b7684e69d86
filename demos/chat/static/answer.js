// One answer on the page: its text by maker, the strip chart, the figures.

import { Chart } from "./chart.js";
import { h } from "./dom.js";
import { Story } from "./story.js";
import { WRITERS, figures, note, situation, takeoverWords } from "./words.js";

export class Answer {
  #text = h("div", { class: "text" });
  #status = h("p", { class: "situation" });
  #notes = h("ul", { class: "notes" });
  #figures = h("div", { class: "figures" });
  #run = null; // the element that takes text, and its maker
  #introduced = false; // whether the text has said who writes next

  /** `spoken` hears of it, if given; `title` is its heading. */
  constructor({ title, mode, spoken = null, level = 3 }) {
    this.mode = mode;
    this.spoken = spoken;
    this.story = new Story();
    this.chart = new Chart(this.story, mode);
    this.element = h(
      "article",
      { class: "answer" },
      h(`h${level}`, {}, title),
      this.#text,
      this.#status,
      this.#notes,
      this.chart.element,
      this.#figures,
    );
    this.#tell();
  }

  /** Read an answer to its end. Returns when it is over, however it ended. */
  async follow(events) {
    this.element.dataset.state = "running";
    try {
      for await (const event of events) this.#apply(event);
    } catch (error) {
      this.#apply({ type: "error", reason: "", message: error.message });
    }
    this.element.dataset.state = this.story.error ? "failed" : "done";
    this.spoken?.flush();
    this.spoken?.say(situation(this.story, this.mode));
  }

  #apply(event) {
    this.story.apply(event);
    if (event.type === "token") this.#write(event);
    else if (event.type === "takeover") this.#markTakeover(event);
    else if (event.type === "done") this.#total(event.result);
    const words = note(event);
    if (words) {
      this.#notes.append(h("li", {}, words));
      this.spoken?.say(words);
    }
    this.#tell();
    this.chart.update();
  }

  #tell() {
    const words = situation(this.story, this.mode);
    if (this.#status.textContent !== words) this.#status.textContent = words;
    this.element.classList.toggle("failed", this.story.error !== null);
  }

  #write({ text, source }) {
    if (!text) return;
    if (this.#run?.source !== source) {
      if (!this.#introduced) this.#text.append(h("span", { class: "hidden" }, ` ${WRITERS[source]} writes: `));
      this.#introduced = false;
      this.#run = { element: h("span", { class: `by ${source}` }), source };
      this.#text.append(this.#run.element);
    }
    this.#run.element.append(text);
    this.#run.element.normalize();
    this.spoken?.addText(text);
  }

  #markTakeover(event) {
    const words = takeoverWords(event);
    const mark = h("span", { class: "takeover", title: words }, h("span", { "aria-hidden": "true" }, "⇥"));
    mark.append(h("span", { class: "hidden" }, ` (${words}) `));
    mark.dataset.index = event.index;
    this.#text.append(mark);
    this.#run = null;
    this.#introduced = true;
    this.spoken?.flush();
    this.spoken?.say(words);
  }

  #total(result) {
    const rows = figures(result);
    const list = h("dl", {});
    for (const [name, value] of rows) list.append(h("div", {}, h("dt", {}, name), h("dd", {}, value)));
    const advice = result.explanation ? `Advice: ${result.explanation}` : null;
    const how = [...rows.map(([, , explanation]) => explanation), advice].filter(Boolean);
    this.#figures.replaceChildren(list, ...how.map((words) => h("p", { class: "how" }, words)));
  }
}
