// The settings of the next answers. They survive a reload of the page.

import { h } from "./dom.js";
import { MODES, percent } from "./words.js";

const KEY = "segue-settings";

// What only this computer can play.
const EMULATED = ["device", "rtt_ms", "keep_ratio"];

export class Controls {
  /** `setup` is what the server offers; `onNew` begins a conversation, `onWhere` changes the device. */
  constructor(setup, { onNew, onWhere }) {
    this.values = { ...setup.defaults, ...JSON.parse(sessionStorage.getItem(KEY) ?? "{}") };
    const renew = h("button", { type: "button", id: "new" }, "New conversation");
    renew.addEventListener("click", onNew);
    this.where = h("select", { id: "where" }, h("option", { value: "computer" }, "This computer, emulated"));
    this.where.append(h("option", { value: "browser", disabled: setup.browser.whyNot !== null }, "This browser, as it is"));
    this.where.setAttribute("aria-describedby", "where-hint");
    this.where.addEventListener("change", () => onWhere(this.where.value));
    this.hint = h("p", { id: "where-hint", class: "hint", role: "status" });
    this.element = h(
      "form",
      { class: "controls" },
      h("div", { class: "control" }, h("label", { for: "where" }, "The device is"), this.where, this.hint),
      this.#choice("mode", "Mode of the chat", Object.entries(MODES)),
      this.#choice("device", "Device, tokens/s (emulated)", setup.devices.map((each) => [each.name, speed(each)])),
      this.#range("rtt_ms", "Round trip (emulated)", { max: 400, step: 20, unit: "ms" }),
      this.#range("max_tokens", "Longest answer", { min: 20, max: setup.maxAnswerTokens, step: 20, unit: "tokens" }),
      this.#range("keep_ratio", "Prompt the device reads", { min: 0.1, max: 1, step: 0.1, show: share }),
      renew,
    );
    this.element.addEventListener("submit", (event) => event.preventDefault());
  }

  /** Show who is the device, in words of `hint`; a browser has nothing that is emulated. */
  showWhere(where, hint) {
    this.where.value = where;
    this.hint.textContent = hint;
    for (const name of EMULATED) this.element.querySelector(`#${name}`).disabled = where === "browser";
  }

  #set(name, value) {
    this.values[name] = value;
    sessionStorage.setItem(KEY, JSON.stringify(this.values));
  }

  #choice(name, label, options) {
    const select = h("select", { id: name });
    for (const [value, text] of options) {
      select.append(h("option", { value, selected: value === this.values[name] }, text));
    }
    select.addEventListener("change", () => this.#set(name, select.value));
    return h("div", { class: "control" }, h("label", { for: name }, label), select);
  }

  #range(name, label, { min = 0, max, step, unit, show = (value) => `${value} ${unit}` }) {
    const input = h("input", { type: "range", id: name, min, max, step });
    input.value = this.values[name];
    const shown = h("output", { for: name });
    const tell = () => {
      shown.textContent = show(input.value);
      input.setAttribute("aria-valuetext", shown.textContent);
    };
    input.addEventListener("input", () => {
      this.#set(name, Number(input.value));
      tell();
    });
    tell();
    return h("div", { class: "control" }, h("label", { for: name }, label, " "), shown, input);
  }
}

const speed = ({ label, prefillTokensPerS, decodeTokensPerS }) =>
  `${label}: reads ${prefillTokensPerS}, writes ${decodeTokensPerS}`;

const share = (value) => (Number(value) === 1 ? "all of it" : `${percent(Number(value))}, by the cloud’s choice`);
