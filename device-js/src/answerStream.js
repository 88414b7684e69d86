/** One answer as an app holds it. */

/**
 * An async iterable of events, read once. Errors are thrown by the iteration, after
 * every event that came before, and carry `partial`; leaving the loop early cancels.
 */
export class AnswerStream {
  /** @type {import("./events.js").Event[]} */
  #events = [];
  #wake = () => {};
  #closed;
  #ended = false;
  #cancelled = false;
  /** @type {unknown} */
  #error = null;
  /** @type {import("./result.js").Result | null} */
  #result = null;
  /** @type {import("./generation.js").Generation | null} */
  #generation = null;

  /**
   * @param {(emit: (event: import("./events.js").Event) => void) =>
   *   Promise<import("./generation.js").Generation>} open
   * @param {() => void} closed told at the end, however it comes
   */
  constructor(open, closed) {
    this.#closed = this.#run(open).finally(closed);
  }

  async *[Symbol.asyncIterator]() {
    try {
      for (;;) {
        while (this.#events.length > 0) {
          yield /** @type {import("./events.js").Event} */ (this.#events.shift());
        }
        if (this.#ended) break;
        await new Promise((resolve) => {
          this.#wake = () => resolve(null);
        });
      }
      if (this.#error !== null) throw this.#error;
    } finally {
      this.cancel();
      await this.#closed; // the engine is free again when the loop is left
    }
  }

  /** Read to the end; returns the result or throws the answer's error. */
  async final() {
    for await (const _ of this);
    return /** @type {import("./result.js").Result} */ (this.#result);
  }

  /** End the answer now. Idempotent. */
  cancel() {
    this.#cancelled = true;
    this.#generation?.cancel();
  }

  /** Let the device take over as soon as it has caught up, whatever the credit. */
  takeover() {
    this.#generation?.takeover();
  }

  /** What `Client.resume` needs, as JSON; null until the prompt is tokenized. */
  snapshot() {
    return this.#generation?.snapshot() ?? null;
  }

  /** @param {ConstructorParameters<typeof AnswerStream>[0]} open */
  async #run(open) {
    const emit = (/** @type {import("./events.js").Event} */ event) => {
      this.#events.push(event);
      this.#wake();
    };
    try {
      this.#generation = await open(emit);
      if (this.#cancelled) this.#generation.cancel();
      this.#result = await this.#generation.run();
      emit({ type: "done", result: this.#result });
    } catch (error) {
      this.#error = error;
    }
    this.#ended = true;
    this.#wake();
  }
}
