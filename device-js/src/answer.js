/**
 * The state of one answer, shared by the tasks that make it. A task changes it in
 * one step and calls `notify`; the others wait in `wait`.
 */

import { nextCredit } from "./credit.js";
import { DecodeClock } from "./decodeClock.js";
import { Display } from "./display.js";
import { PrefillClock } from "./prefillClock.js";
import { showIntervalS } from "./request.js";
import { isOver, requireTransition } from "./state.js";
import { TokenLog } from "./tokenLog.js";

/** From the last token absorbed to the first one made; the tuner's delta. */
export const HANDOVER_S = 0.02;

/** Log, state and counters of one answer. Times are on this device's clock. */
export class Answer {
  #cloud;
  /** @type {Set<() => void>} */
  #waiters = new Set();

  /** For the display to emit in order. @type {import("./events.js").Event[]} */
  pending = [];
  /** @type {import("./events.js").FinishReason | null} */
  reason = null;
  /** @type {import("./errors.js").SegueError | null} */
  error = null;
  cloudReplyS = 0;
  takeoverForced = false;
  absorbedTokens = 0;
  minMargin = Infinity;
  /** Why so many tokens of the cloud, in the tuner's words. */
  explanation = "";
  /** Ends the engine's work in progress. */
  engineAbort = new AbortController();

  /**
   * @param {import("./request.js").AnswerRequest} request
   * @param {import("./state.js").DeviceState} state
   * @param {{text: import("./textStream.js").TextStream | null,
   *   pacing: import("./pacing.js").Pacing, clock: import("./clock.js").Clock,
   *   engineAlive: boolean, cloud: import("./cloudPeer.js").CloudPeer | null}} parts
   */
  constructor(request, state, { text, pacing, clock, engineAlive, cloud }) {
    const alone = state === "DEVICE_ONLY";
    this.#cloud = cloud;
    this.request = request;
    this.state = state;
    this.clock = clock;
    this.log = new TokenLog(alone ? "device" : "cloud");
    this.display = new Display(this.log, text, pacing);
    this.cloudAlive = this.cloudAllowed = !alone;
    this.engineAlive = engineAlive;
    this.creditThrough = request.creditThrough ?? 1;
    this.showIntervalS = showIntervalS(request);
    // `lastCloudS`: the last sign of the cloud's decoding, or that it was asked.
    this.startedS = this.lastCloudS = clock.nowS();
    /** Leading tokens of the prompt in the engine's cache. */
    this.prefilledTokens = request.cachedTokens;
    this.prefillClock = new PrefillClock(request.profile, request.cachedTokens);
    this.decodeClock = new DecodeClock(request.profile?.decodeS ?? null);
  }

  /** The log is complete; it may not be shown yet. */
  get over() {
    return isOver(this.state);
  }

  get prefillLeftTokens() {
    return this.request.promptIds.length - this.prefilledTokens;
  }

  /** Whether the cloud still has to send tokens. */
  get cloudOwes() {
    return this.cloudAlive && this.log.length < this.creditThrough;
  }

  /**
   * Change state along the table.
   * @param {import("./state.js").DeviceState} state
   */
  enter(state) {
    requireTransition(this.state, state);
    this.state = state;
  }

  /** Where an answer with a (resumed or lost) stream is, by the engine's progress. */
  enterBesideTheCloud() {
    if (!this.engineAlive) this.enter("CLOUD_ONLY");
    else this.enter(this.prefillLeftTokens > 0 ? "CLOUD" : "CATCHING_UP");
  }

  /**
   * Find out whether the log's newest token ends the answer.
   * @param {number} tokenId
   * @param {string} [serverText]
   */
  tokenAppended(tokenId, serverText = "") {
    const stopped = this.display.derive(tokenId, serverText);
    if (this.request.sampling.stopTokenIds.includes(tokenId)) this.end("stop", true);
    else if (stopped) this.end("stop");
    else if (this.log.length >= this.request.maxTokens) this.end("length", true);
  }

  /**
   * The log is complete. The first end wins.
   * @param {import("./events.js").FinishReason} reason
   * @param {boolean} [cloudKnows] a cloud that writes sees this end too, in its own log
   */
  end(reason, cloudKnows = false) {
    if (this.over) return;
    this.reason = reason;
    this.#close("DONE", cloudKnows ? null : reason);
  }

  /**
   * The answer cannot go on; what is in the log is still shown.
   * @param {import("./errors.js").SegueError} error
   */
  fail(error) {
    if (this.over) return;
    this.error = error;
    this.#close("FAILED", error.reason);
  }

  /**
   * @param {"DONE" | "FAILED"} state
   * @param {string | null} tellCloud
   */
  #close(state, tellCloud) {
    if (tellCloud !== null && this.log.writer === "cloud") {
      this.send({ cancel: { reason: tellCloud } });
    }
    this.display.complete();
    this.enter(state);
    this.engineAbort.abort();
    this.notify();
  }

  /**
   * The engine is gone: the cloud goes on if it may, else the answer fails.
   * @param {import("./errors.js").SegueError} error
   */
  loseEngine(error) {
    if (this.over) return;
    this.engineAlive = false;
    if (!this.#leaveToTheCloud()) {
      this.fail(error);
      return;
    }
    if (this.state === "CLOUD" || this.state === "CATCHING_UP") this.enter("CLOUD_ONLY");
    this.pending.push({ type: "fallback", reason: `device engine: ${error.message}` });
    this.notify();
  }

  /** Let the cloud write to the end; false, and no change, if it cannot be asked. */
  #leaveToTheCloud() {
    const { log, request } = this;
    const asked = this.cloudAlive || this.state === "RECONNECTING";
    if (log.writer === "device") {
      const mayUpload = request.uploadHistory || log.count("device") === 0;
      if (!this.cloudAllowed || !mayUpload) return false;
      log.giveBack();
      this.#cloud?.hangUp(); // the stream there may still be is about the time before
      this.enter("RECONNECTING");
      this.cloudAlive = true; // until it refuses
      this.lastCloudS = this.clock.nowS();
    } else if (!asked) {
      return false;
    }
    this.raiseCredit(request.maxTokens);
    return true;
  }

  // ---- credit

  /** Ask for more cloud tokens if this device will be late; not once its prefill is done. */
  extendCredit() {
    const helping = this.state === "CLOUD" && this.cloudAlive;
    const { creditThrough, standby } = this.request;
    if (!helping || standby || creditThrough !== null) return; // the app's own is not changed
    const through = nextCredit({
      creditThrough: this.creditThrough,
      maxTokens: this.request.maxTokens,
      shownTokens: this.display.cursor,
      showIntervalS: this.showIntervalS,
      readyInS: this.readyInS,
      absorbPerTokenS: this.#absorbPerTokenS,
      cloudReplyS: this.cloudReplyS,
    });
    if (through !== null) this.raiseCredit(through);
  }

  /**
   * Credit is absolute and monotone.
   * @param {number} through
   */
  raiseCredit(through) {
    // From now on it owes something again.
    if (this.log.length >= this.creditThrough) this.lastCloudS = this.clock.nowS();
    this.creditThrough = Math.max(this.creditThrough, through);
    this.send({ credit: { through: this.creditThrough } });
  }

  get #absorbPerTokenS() {
    return this.request.profile?.absorbPerTokenS(this.request.promptIds.length) ?? 0;
  }

  /** Until the device can make a token, as far as is known. */
  get readyInS() {
    const leftS = this.prefillClock.leftS(this.prefillLeftTokens, this.clock.nowS());
    const owed = Math.max(this.creditThrough, this.log.length) - this.absorbedTokens;
    return leftS + owed * this.#absorbPerTokenS + HANDOVER_S;
  }

  // ---- the others

  /** @param {import("./frames.js").Message} message */
  send(message) {
    this.#cloud?.send(message);
  }

  /** Wake every task that waits. */
  notify() {
    for (const wake of [...this.#waiters]) wake();
  }

  /**
   * Until something changes, `seconds` at most.
   * @param {number | null} [seconds]
   * @returns {Promise<void>}
   */
  wait(seconds = null) {
    return new Promise((resolve) => {
      const wake = () => {
        callOff();
        this.#waiters.delete(wake);
        resolve();
      };
      const callOff = seconds === null ? () => {} : this.clock.after(Math.max(0, seconds), wake);
      this.#waiters.add(wake);
    });
  }
}
