// The strip chart under an answer: strips over one time axis. Every strip tells its newest
// value in text, so that the drawing itself may stay hidden from a screen reader.

import { h, svg } from "./dom.js";
import { percent, seconds } from "./words.js";

const WIDTH = 400;
const HEIGHT = 34;
const MIN_SPAN_S = 2;

const WITH_BOTH = ["split", "prefer_in_cloud"];
const WITH_DEVICE = [...WITH_BOTH, "only_on_device", "prefer_on_device"];

const STRIPS = [
  {
    name: "Tokens",
    series: ["received", "shown"],
    bySource: true,
    value: (story) => `${story.shown} of ${story.received} shown`,
    least: 20,
  },
  {
    name: "Device prefill",
    series: ["prefill"],
    value: (story) => (story.promptTokens ? percent(story.prefill) : "–"),
    least: 1,
    modes: WITH_DEVICE,
  },
  {
    name: "Device lag",
    series: ["lag"],
    value: (story) => `${story.lag} tokens behind`,
    least: 10,
    modes: WITH_BOTH,
  },
  {
    name: "Pace",
    series: ["pace"],
    bySource: true,
    value: (story) => `${story.pace.toFixed(1)} tok/s`,
    least: 30,
  },
];

export class Chart {
  #strips;
  #axis = h("span", {});
  #mark = h("span", { class: "axis-mark" });
  #frame = 0;

  /** `mode` says which sides take part, and so which strips there are. */
  constructor(story, mode) {
    this.story = story;
    this.#strips = STRIPS.filter(({ modes }) => !modes || modes.includes(mode)).map((strip) => new Strip(strip));
    const end = h("div", { class: "axis", "aria-hidden": "true" }, h("span", {}, "0 s"), this.#mark, this.#axis);
    this.element = h(
      "div",
      { class: "chart", role: "group", "aria-label": "Strip chart of this answer over time" },
      ...this.#strips.map((strip) => strip.element),
      end,
    );
  }

  /** Draw what there is, once a frame. */
  update() {
    this.#frame ||= requestAnimationFrame(() => {
      this.#frame = 0;
      this.#draw();
    });
  }

  #draw() {
    const { samples, takeover, nowS } = this.story;
    const spanS = Math.max(MIN_SPAN_S, nowS);
    for (const strip of this.#strips) strip.draw(this.story, samples, spanS, takeover);
    this.#axis.textContent = seconds(spanS);
    this.#mark.textContent = takeover ? `takeover at ${seconds(takeover.atS)}` : "";
  }
}

class Strip {
  #value = h("span", { class: "strip-value" });
  #areas = [svg("path", { class: "area cloud" }), svg("path", { class: "area device" })];
  #lines;
  #takeover = svg("path", { class: "takeover-line" });

  constructor(strip) {
    this.strip = strip;
    this.#lines = strip.series.map((series) => svg("path", { class: `line ${series}` }));
    const drawing = svg(
      "svg",
      { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true" },
      ...this.#areas,
      ...this.#lines,
      this.#takeover,
    );
    const label = h("div", { class: "strip-label" }, h("span", { class: "strip-name" }, strip.name), this.#value);
    this.element = h("div", { class: `strip strip-${strip.series.at(-1)}` }, label, drawing);
  }

  draw(story, samples, spanS, takeover) {
    const { series, least, value } = this.strip;
    this.#value.textContent = value(story);
    const most = Math.max(least, ...samples.map((sample) => Math.max(...series.map((name) => sample[name]))));
    const x = (atS) => ((atS / spanS) * WIDTH).toFixed(1);
    const y = (amount) => (HEIGHT - 1 - (amount / most) * (HEIGHT - 3)).toFixed(1);
    const points = (name) => samples.map((sample) => [x(sample.atS), y(sample[name])]);
    this.#lines.forEach((line, index) => line.setAttribute("d", steps(points(series[index]))));
    const shown = points(series.at(-1));
    const cut = this.strip.bySource ? firstOfDevice(story, samples) : 0;
    this.#areas[0].setAttribute("d", area(shown.slice(0, cut + 1)));
    this.#areas[1].setAttribute("d", area(shown.slice(cut)));
    this.#takeover.setAttribute("d", takeover && takeover.index ? `M${x(takeover.atS)} 0V${HEIGHT}` : "");
  }
}

/** Where in the samples the device begins to write; their number if it does not. */
function firstOfDevice({ takeover, bySource }, samples) {
  if (!takeover) return bySource.device ? 0 : samples.length;
  const found = samples.findIndex((sample) => sample.atS >= takeover.atS);
  return found < 0 ? samples.length : found;
}

function steps(points) {
  return points.map(([x, y], index) => (index ? `H${x}V${y}` : `M${x} ${y}`)).join("");
}

function area(points) {
  if (points.length < 2) return "";
  return `${steps(points)}V${HEIGHT}H${points[0][0]}Z`;
}
