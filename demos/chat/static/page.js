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
const problem = find("#problem");

async function main() {
  const setup = await get("/api/setup");
  const device = new ThisComputer();
  const spoken = new Spoken(find("#spoken"));
  const controls = new Controls(setup, async () => {
    await chat.stop();
    await device.begin();
    chat.show([]);
    find("#text").focus();
  });
  const settings = () => controls.values;
  const chat = new Chat({ device, spoken, settings, describe: describer(setup.devices) });
  const compare = new Compare({ device, spoken, settings });
  find("#controls").append(controls.element);
  offer(setup.prompts, "#chat-samples", "#text");
  offer(setup.prompts, "#compare-samples", "#compare-text");
  networkSwitch(device, setup.networkCut);
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") (currentView() === "chat" ? chat : compare).stop();
  });
  window.addEventListener("hashchange", showView);
  showView();
  const narrow = window.matchMedia("(max-width: 60rem)");
  find("#settings").open = !narrow.matches;
  chat.show(await device.turns());
  document.documentElement.dataset.ready = "true";
}

/** In words, how an answer is made. */
function describer(devices) {
  const labels = new Map(devices.map((each) => [each.name, each]));
  return ({ device, rtt_ms, keep_ratio }) => {
    const { label, prefillTokensPerS, decodeTokensPerS } = labels.get(device);
    return (
      `Emulated: ${label.toLowerCase()} (reads ${prefillTokensPerS}, writes ${decodeTokensPerS} tokens/s), ` +
      `round trip ${rtt_ms} ms.${keep_ratio < 1 ? ` Asked to read ${percent(keep_ratio)} of the prompt.` : ""}`
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

function networkSwitch(device, isCut) {
  const button = find("#cut");
  const show = () => {
    button.setAttribute("aria-pressed", String(isCut));
    button.textContent = isCut ? "The network is cut: mend it" : "Cut the network now";
  };
  button.addEventListener("click", async () => {
    try {
      isCut = await device.setNetworkCut(!isCut);
    } catch (error) {
      problem.textContent = error.message;
    }
    show();
  });
  show();
}

main().catch((error) => {
  problem.textContent = error.message;
});
