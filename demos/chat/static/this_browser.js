// "This browser" as the device: llama.cpp in WebAssembly, straight to the cloud over WebSocket.
// The same methods as of "this computer"; see there.

import { Template } from "/jinja/index.js";
import { WllamaEngine } from "/sdk/engines/wllama.js";
import { Client, ModelStore, Unavailable, WebSocketTransport, measureProfile } from "/sdk/index.js";
import { Wllama } from "/wllama/index.js";
import { Recording, recorded } from "./recording.js";

const KEY = "segue-browser-conversation";
const WASM = "/wllama/single-thread/wllama.wasm";
const SAMPLE_MS = 100;
const STALL_S = 0.25;

/** A transport whose network can be cut: every stream breaks, none can be opened. */
class CuttableTransport {
  isCut = false;
  #streams = new Set();

  constructor(inner) {
    this.inner = inner;
  }

  async open() {
    const refused = () => new Unavailable("the network of this browser is cut", { reason: "NETWORK_CUT" });
    if (this.isCut) throw refused();
    const stream = await this.inner.open();
    if (this.isCut) {
      stream.close();
      throw refused();
    }
    this.#streams.add(stream);
    return stream;
  }

  cut() {
    this.isCut = true;
    for (const stream of this.#streams) stream.close();
    this.#streams.clear();
  }
}

export class ThisBrowser {
  #client;
  #transport;
  #seeds;
  #turns = JSON.parse(sessionStorage.getItem(KEY) ?? "[]");
  #recordings = new Map();
  #streams = new Map();

  /** Fetch the model, or find it in the browser's cache, and measure how fast it runs here. */
  static async open({ browser, prompts }) {
    const engine = await WllamaEngine.load({ store: new ModelStore("/model/"), Wllama, Template, wasmUrl: WASM });
    return new ThisBrowser(engine, await measureProfile(engine), browser.cloud, prompts);
  }

  constructor(engine, profile, cloud, prompts) {
    this.#transport = new CuttableTransport(new WebSocketTransport(cloud));
    this.#client = new Client({ cloud: this.#transport, engine, profile });
    this.#seeds = new Map(prompts.map(({ text, seed }) => [text, seed]));
    this.label = `this browser (reads ${Math.round(1 / profile.prefillPerTokenS)}, writes ${Math.round(1 / profile.decodeS)} tokens/s, measured)`;
    for (const turn of this.#turns) this.#recover(turn);
  }

  get networkCut() {
    return this.#transport.isCut;
  }

  async turns() {
    return this.#turns;
  }

  async begin() {
    this.#turns = [];
    this.#save();
  }

  async ask(text, settings) {
    const messages = [...this.#messages(), { role: "user", content: text }];
    const seed = this.#turns.length ? undefined : this.#seeds.get(text);
    const stream = this.#client.stream({
      messages,
      maxTokens: settings.max_tokens,
      mode: settings.mode,
      sampling: { temperature: 0.8, topK: 40, ...(seed === undefined ? {} : { seed }) },
    });
    const turn = { text, settings, answer: crypto.randomUUID(), answered: null };
    this.#turns.push(turn);
    this.#follow(turn, stream);
    return turn.answer;
  }

  async stop(answer) {
    this.#streams.get(answer)?.cancel();
  }

  async setNetworkCut(cut) {
    if (cut) this.#transport.cut();
    else this.#transport.isCut = false;
  }

  events(answer) {
    return this.#recordings.get(answer).read();
  }

  /** What was said, without turns that failed. */
  #messages() {
    return this.#turns.flatMap(({ text, answered }) =>
      answered === null
        ? []
        : [
            { role: "user", content: text },
            { role: "assistant", content: answered },
          ],
    );
  }

  /** A turn of an earlier page: over, or to go on with. */
  #recover(turn) {
    if (turn.events) this.#recordings.set(turn.answer, recorded(turn.events));
    else if (turn.snapshot) this.#follow(turn, this.#client.resume(turn.snapshot));
    else this.#recordings.set(turn.answer, recorded([{ type: "error", message: "the page was left too early", atS: 0 }]));
  }

  async #follow(turn, stream) {
    const recording = new Recording();
    this.#recordings.set(turn.answer, recording);
    this.#streams.set(turn.answer, stream);
    const prefill = { doneTokens: 0, totalTokens: 0 };
    const sampler = setInterval(() => sample(stream, prefill, recording), SAMPLE_MS);
    try {
      for await (const event of stream) {
        if (event.type === "prefill_progress") Object.assign(prefill, event);
        if (event.type === "done") turn.answered = event.result.text;
        recording.add(event.type === "done" ? { type: "done", result: plain(event.result) } : event);
        turn.snapshot = stream.snapshot();
        this.#save();
      }
    } catch (error) {
      recording.add({ type: "error", message: error.message, reason: error.reason ?? "" });
    }
    clearInterval(sampler);
    this.#streams.delete(turn.answer);
    delete turn.snapshot;
    turn.events = recording.events;
    this.#save();
  }

  #save() {
    sessionStorage.setItem(KEY, JSON.stringify(this.#turns));
  }
}

/** What no event tells: how much was received, and how far the device is behind it. */
function sample(stream, { doneTokens, totalTokens }, recording) {
  const snapshot = stream.snapshot();
  if (!snapshot || recording.over) return;
  const received = snapshot.outputIds.length;
  recording.add({
    type: "progress",
    receivedTokens: received,
    prefilledTokens: doneTokens,
    promptTokens: totalTokens || snapshot.promptIds.length,
    lagTokens: snapshot.takeovers.length ? 0 : received,
  });
}

/** A result in the form that the demo's server gives it: JSON, the cloud's account in short. */
function plain({ cloud, timings, seed, minMargin, ...result }) {
  const gapsS = timings.shownS.slice(1).map((atS, index) => atS - timings.shownS[index]);
  const account = cloud && {
    cloudTokens: cloud.usage?.cloudTokens ?? 0,
    slotS: cloud.timings?.slotS ?? 0,
  };
  return {
    ...result,
    seed: String(seed),
    timings: { ...timings, stalls: gapsS.filter((gapS) => gapS > STALL_S).length },
    cloud: account,
  };
}
