// "This computer" as the device: the Python SDK in the demo's server makes the answers.
//
// A device of this page has `turns()`, `begin()`, `ask(text, settings)`, `stop(answer)`,
// `networkCut`, `setNetworkCut(cut)`, `label` and `events(answer)`; the last is an async iterator of events from the answer's first one
// on, whatever happened in between. Their types are the Python SDK's: started, token,
// refinement, prefill_progress, takeover, reconnecting, resumed, fallback, warning, done;
// `progress` and `error` are the demo's own.

import { ServerError, get, lines, post } from "./api.js";

const KEY = "segue-conversation";
const RETRY_MS = 500;
const TRIES = 20;

export class ThisComputer {
  #conversation = sessionStorage.getItem(KEY);
  label = null; // what the settings emulate

  constructor({ networkCut }) {
    this.networkCut = networkCut;
  }

  /** The conversation so far: [{text, settings, answer}]. Begins one if there is none. */
  async turns() {
    if (this.#conversation) {
      try {
        return (await get(`/api/conversations/${this.#conversation}`)).turns;
      } catch (error) {
        if (error.code !== "not_found") throw error; // the server was restarted
      }
    }
    await this.begin();
    return [];
  }

  /** A new conversation; the old one is left behind. */
  async begin() {
    this.#conversation = (await post("/api/conversations")).conversation;
    sessionStorage.setItem(KEY, this.#conversation);
  }

  /** The next turn; returns the name of its answer. */
  async ask(text, settings) {
    return (await post(`/api/conversations/${this.#conversation}/turns`, { text, settings })).answer;
  }

  /** One prompt three ways: names of answers by mode. */
  async compare(text, settings) {
    return (await post("/api/comparisons", { text, settings })).answers;
  }

  async stop(answer) {
    await post(`/api/answers/${answer}/stop`);
  }

  async setNetworkCut(cut) {
    this.networkCut = (await post("/api/network", { cut })).networkCut;
  }

  async *events(answer) {
    let next = 0;
    for (let tries = 0; ; tries += 1) {
      try {
        for await (const event of lines(`/api/answers/${answer}/events?from=${next}`)) {
          next += 1;
          tries = 0;
          yield event;
          if (event.type === "done" || event.type === "error") return;
        }
      } catch (error) {
        if (error instanceof ServerError && error.code !== "unreachable") throw error;
      }
      if (tries >= TRIES) throw new ServerError("The demo’s own server has ended; start it again.");
      await new Promise((wake) => setTimeout(wake, RETRY_MS));
    }
  }
}
