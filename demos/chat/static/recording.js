// An answer that is kept while it is made: readers come and go, and begin at its start.

export class Recording {
  events = [];
  over = false;
  #startS = performance.now() / 1000;
  #wake = () => {};
  #changed = new Promise((wake) => (this.#wake = wake));

  add(event) {
    this.events.push({ ...event, atS: performance.now() / 1000 - this.#startS });
    if (event.type === "done" || event.type === "error") this.over = true;
    this.#wake();
    this.#changed = new Promise((wake) => (this.#wake = wake));
  }

  async *read() {
    for (let next = 0; ; next += 1) {
      while (next === this.events.length) {
        if (this.over) return;
        await this.#changed;
      }
      yield this.events[next];
    }
  }
}

/** One that ended on an earlier page. */
export const recorded = (events) => Object.assign(new Recording(), { events, over: true });
