/** The cloud's end of one answer, as the device sees it. */

import { Cancelled, DeadlineExceeded, SegueError, Unavailable } from "./errors.js";

// A cloud sends heartbeats every few seconds; one that says nothing for so long is lost.
const SILENCE_LIMIT_S = 15;

/**
 * @typedef {object} Listener what happens to the answer
 * @property {() => import("./frames.js").Message | null} firstMessage what opens the next
 *   stream; null when no cloud is needed any more
 * @property {(response: import("./frames.js").Response) => void} onResponse
 * @property {(error: SegueError | null) => number | null} onStreamEnd the stream is over;
 *   returns the seconds until the next one, null for the end
 */

/** Sends in order without making the caller wait, and reports what comes back. */
export class CloudPeer {
  #transport;
  #clock;
  /** @type {import("./frames.js").Message[]} */
  #outbox = [];
  /** @type {import("./webSocketTransport.js").CloudStream | null} */
  #stream = null;
  /** Why `run` must not go on waiting. @type {SegueError | null} */
  #interruption = null;
  #wake = () => {};
  #closed = false;

  alive = true;
  /** The cloud's account of itself. @type {Record<string, any> | null} */
  finish = null;

  /**
   * @param {import("./webSocketTransport.js").Transport} transport
   * @param {import("./clock.js").Clock} clock
   */
  constructor(transport, clock) {
    this.#transport = transport;
    this.#clock = clock;
  }

  /**
   * Queue a message. One to a cloud that is gone is dropped: nobody needs it any more.
   * @param {import("./frames.js").Message} message
   */
  send(message) {
    if (!this.alive) return;
    this.#outbox.push(message);
    this.#flush();
  }

  /** End the stream there is now, as if the network had; what was queued was for it. */
  hangUp() {
    this.#outbox = [];
    this.#interrupt(new Unavailable("this device hung up", { reason: "HUNG_UP" }));
  }

  /** The answer is over: leave now, whatever is awaited. */
  close() {
    this.#closed = true;
    this.#interrupt(new Cancelled("the answer is over"));
  }

  /** @param {SegueError} why */
  #interrupt(why) {
    this.#interruption = why;
    this.#wake();
  }

  /**
   * Talk, over as many streams as it takes.
   * @param {Listener} listener
   */
  async run(listener) {
    this.alive = true;
    try {
      while (!this.#closed) {
        const first = listener.firstMessage();
        if (first === null) return;
        this.#interruption = null;
        const error = await this.#talk(first, listener);
        if (this.#closed) return;
        const delayS = listener.onStreamEnd(error);
        if (delayS === null) return;
        await this.#before(delayS, new Promise(() => {}));
      }
    } finally {
      this.alive = false;
      this.#outbox = [];
    }
  }

  /**
   * One stream, from opening to end; returns its error, null after an orderly end.
   * @param {import("./frames.js").Message} first
   * @param {Listener} listener
   */
  async #talk(first, listener) {
    const opening = this.#transport.open();
    try {
      const stream = await this.#within(opening);
      this.#stream = stream;
      this.#outbox.unshift(first);
      this.#flush();
      for (;;) {
        const response = await this.#within(stream.receive());
        if (response === null) return null;
        if (response.kind === "finish") this.finish = response.body;
        listener.onResponse(response);
      }
    } catch (error) {
      if (error instanceof SegueError) return error;
      throw error;
    } finally {
      this.#stream = null;
      opening.then((stream) => stream.close(), () => {}); // also one that opens too late
    }
  }

  /**
   * Throws when the cloud stays silent for too long, or at an interruption.
   * @template T
   * @param {Promise<T>} awaited
   * @returns {Promise<T>}
   */
  async #within(awaited) {
    const settled = awaited.then((value) => ({ value }));
    const outcome = await this.#before(SILENCE_LIMIT_S, settled);
    if (this.#interruption !== null) throw this.#interruption;
    if (outcome === null) {
      throw new DeadlineExceeded(
        `the cloud said nothing for ${SILENCE_LIMIT_S} s, not even a heartbeat; check the network`,
        { reason: "CLOUD_SILENT" },
      );
    }
    return outcome.value;
  }

  /**
   * What `awaited` gives; null after `limitS`, and at an interruption.
   * @template T
   * @param {number} limitS
   * @param {Promise<T>} awaited
   * @returns {Promise<T | null>}
   */
  async #before(limitS, awaited) {
    if (this.#interruption !== null) return null;
    let callOff = () => {};
    const limit = new Promise((resolve) => {
      this.#wake = () => resolve(null);
      callOff = this.#clock.after(limitS, this.#wake);
    });
    try {
      return await Promise.race([awaited, limit]);
    } finally {
      callOff();
    }
  }

  #flush() {
    const stream = this.#stream;
    if (stream === null) return;
    const messages = this.#outbox;
    this.#outbox = [];
    try {
      for (const message of messages) stream.send(message);
    } catch (error) {
      if (!(error instanceof Unavailable)) throw error; // else the receiving side learns why
    }
  }
}
