// One prompt three ways at once, side by side, and a table of what came out.

import { Answer } from "./answer.js";
import { h } from "./dom.js";
import { SHORT_MODES, figures } from "./words.js";

export class Compare {
  #ways = document.querySelector("#ways");
  #text = document.querySelector("#compare-text");
  #run = document.querySelector("#compare-run");
  #stop = document.querySelector("#compare-stop");
  #problem = document.querySelector("#compare-problem");
  #table = document.querySelector("#compare-table");
  #answers = [];

  constructor({ device, spoken, settings }) {
    Object.assign(this, { device, spoken, settings });
    document.querySelector("#compare-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#start();
    });
    this.#stop.addEventListener("click", () => this.stop());
  }

  async stop() {
    await Promise.all(this.#answers.map((answer) => this.device.stop(answer).catch(() => {})));
  }

  async #start() {
    const text = this.#text.value.trim();
    if (!text || this.#run.disabled) return;
    this.#problem.textContent = "";
    this.#run.disabled = true;
    this.#table.hidden = true;
    try {
      await this.#follow(await this.device.compare(text, this.settings()));
    } catch (error) {
      this.#problem.textContent = error.message;
    }
    this.#run.disabled = false;
  }

  async #follow(answers) {
    this.#answers = Object.values(answers);
    this.#stop.disabled = false;
    const shown = Object.keys(answers).map((mode) => new Answer({ title: SHORT_MODES[mode], mode, level: 2 }));
    this.#ways.replaceChildren(...shown.map((each) => each.element));
    this.spoken.say("All three have begun.");
    await Promise.all(shown.map((each, index) => each.follow(this.device.events(this.#answers[index]))));
    this.#stop.disabled = true;
    this.#answers = [];
    const told = this.#tabulate(shown);
    this.spoken.say(`All three are over. ${told}`);
  }

  #tabulate(shown) {
    const done = shown.filter((each) => each.story.result);
    if (!done.length) return "None of them has figures.";
    const columns = done.map((each) => new Map(figures(each.story.result)));
    const names = new Set(columns.flatMap((column) => [...column.keys()]));
    const head = h("tr", {}, h("td", {}), ...done.map((each) => h("th", { scope: "col" }, SHORT_MODES[each.mode])));
    const rows = [...names].map((name) =>
      h("tr", {}, h("th", { scope: "row" }, name), ...columns.map((column) => h("td", {}, column.get(name) ?? "–"))),
    );
    const verdict = sameText(done);
    const caption = h("caption", {}, verdict);
    this.#table.replaceChildren(h("table", {}, caption, h("thead", {}, head), h("tbody", {}, ...rows)));
    this.#table.hidden = false;
    return verdict;
  }
}

function sameText(done) {
  const [first, ...others] = done.map((each) => each.story.result.tokenIds.join());
  if (done.length < 3 || done.some((each) => each.story.result.finishReason === "cancelled")) {
    return "Not all of them ran to their end.";
  }
  if (done.some((each) => each.story.refinement)) {
    return "The device read only part of the prompt: no same tokens are claimed.";
  }
  return others.every((ids) => ids === first)
    ? "All three made the same tokens: same weights, same seed, different machines."
    : "They did not make the same tokens: at some place two tokens were nearly as likely as each other.";
}
