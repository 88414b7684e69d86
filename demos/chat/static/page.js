// Puts the page together: device, settings, views.

import { get } from "./api.js";
import { Chat } from "./chat.js";
import { Compare } from "./compare.js";
import { Controls } from "./controls.js";
import { h } from "./dom.js";
import { Spoken } from "./spoken.js";
import { ThisComputer } from "./this_computer.js";
import { percent } from "./words.js";

const find = (selector) => document.querySelector(selector);

const VIEWS = ["chat", "compare"];
const WHERE = "segue-device";
const problem = find("#problem");
const HINTS = {
  computer:
    "Emulated: its engine is slowed down and every message delayed. Tokens, processes, KV transfer " +
    "and hand-over are real.",
  loading: "The model comes into this browser and is measured …",
};

async function main() {
  const setup = await get("/api/setup");
  const spoken = new Spoken(find("#spoken"));
  const computer = new ThisComputer(setup);
  let browser = null;

  const controls = new Controls(setup, {
    async onNew() {
      await chat.stop();
      await chat.device.begin();
      await chat.show(chat.device);
      find("#text").focus();
    },
    onWhere: (where) => change(where).catch(tell),
  });
  const settings = () => controls.values;
  const chat = new Chat({ spoken, settings, describe: describer(setup.devices) });
  const compare = new Compare({ device: computer, spoken, settings });
  const showNetwork = networkSwitch(chat);

  /** Who is the device from now on; each has a conversation of its own. */
  async function change(where) {
    sessionStorage.setItem(WHERE, where);
    if (where === "browser") {
      controls.showWhere(where, HINTS.loading);
      const { ThisBrowser } = await import("./this_browser.js");
      browser ??= await ThisBrowser.open(setup);
      controls.showWhere(where, `Real: ${browser.label}. The first use in a tab loads the model.`);
    } else {
      controls.showWhere(where, HINTS.computer);
    }
    await chat.show(where === "browser" ? browser : computer);
    showNetwork();
  }

  find("#controls").append(controls.element);
  offer(setup.prompts, "#chat-samples", "#text");
  offer(setup.prompts, "#compare-samples", "#compare-text");
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") (currentView() === "chat" ? chat : compare).stop();
  });
  window.addEventListener("hashchange", showView);
  showView();
  find("#settings").open = !window.matchMedia("(max-width: 60rem)").matches;
  await change(setup.browser.whyNot ? "computer" : (sessionStorage.getItem(WHERE) ?? "computer"));
  document.documentElement.dataset.ready = "true";
}

function tell(error) {
  problem.textContent = error.message;
}

/** In words, how an answer is made. */
function describer(devices) {
  const labels = new Map(devices.map((each) => [each.name, each]));
  return ({ mode, device, rtt_ms, keep_ratio }, { label: real }) => {
    if (real) return `Not emulated: ${real}.`;
    const { label, prefillTokensPerS, decodeTokensPerS } = labels.get(device);
    const refined = mode === "split" && keep_ratio < 1;
    return (
      `Emulated: ${label.toLowerCase()} (reads ${prefillTokensPerS}, writes ${decodeTokensPerS} tokens/s), ` +
      `round trip ${rtt_ms} ms.${refined ? ` Asked to read ${percent(keep_ratio)} of the prompt.` : ""}`
    );
  };
}

const currentView = () => (VIEWS.includes(location.hash.slice(1)) ? location.hash.slice(1) : VIEWS[0]);

function showView() {
  for (const view of VIEWS) {
    find(`#${view}`).hidden = view !== currentView();
    const link = find(`nav a[href="#${view}"]`);
    if (view === currentView()) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
}

function offer(prompts, place, target) {
  for (const { name, text } of prompts) {
    const words = text.split(/\s+/).length;
    const button = h("button", { type: "button", class: "chip" }, `${name.replace("-", " ")} · ${words} words`);
    button.addEventListener("click", () => {
      find(target).value = text;
      find(target).focus();
    });
    find(place).append(button);
  }
}

/** Returns what shows the state of the chat's device. */
function networkSwitch(chat) {
  const button = find("#cut");
  const show = () => {
    button.setAttribute("aria-pressed", String(chat.device.networkCut));
    button.textContent = chat.device.networkCut ? "The network is cut: mend it" : "Cut the network now";
  };
  button.addEventListener("click", async () => {
    await chat.device.setNetworkCut(!chat.device.networkCut).catch(tell);
    show();
  });
  return show;
}

main().catch(tell);
