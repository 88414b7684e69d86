/** The engine's task in one answer: prefill, absorb, take over, decode. */

import { nextWork, waitS } from "./catchUp.js";
import { Cancelled, InternalError, SegueError } from "./errors.js";
import { toBase64 } from "./frames.js";
import { prefixHash } from "./prefixHash.js";
import { sample } from "./sampling.js";

// A caught-up device gives a cloud that owes tokens this long, or two intervals, while
// there is something to show; after that, no longer than a token of its own would take.
const MIN_PATIENCE_S = 0.2;

/** Runs one engine for one answer, from the tokens it shares with the prompt to the end. */
export class EngineLoop {
  #answer;
  #engine;
  #begun = false;

  /**
   * @param {import("./answer.js").Answer} answer
   * @param {import("./engines/base.js").Engine} engine
   */
  constructor(answer, engine) {
    this.#answer = answer;
    this.#engine = engine;
  }

  /** Work until the answer is over; what the engine throws becomes the answer's. */
  async run() {
    const answer = this.#answer;
    try {
      while (await this.#step());
    } catch (error) {
      if (error instanceof Cancelled && answer.over) return;
      const known = error instanceof SegueError;
      answer.loseEngine(known ? error : new InternalError(`the engine failed: ${error}`));
    }
  }

  /** One piece of work, or a wait; false when there is none any more. */
  async #step() {
    const view = this.#view();
    const work = nextWork(view);
    if (work === "stop") return false;
    if (work === "wait") await this.#wait(view);
    else if (!this.#begun) await this.#begin();
    else if (work === "prefill") await this.#prefillChunk();
    else if (work === "absorb") await this.#absorb();
    else if (work === "take_over") this.#takeOver();
    else await this.#decode();
    return true;
  }

  /** @returns {import("./catchUp.js").View} */
  #view() {
    const answer = this.#answer;
    const intervalS = answer.showIntervalS;
    return {
      prefillLeftTokens: answer.prefillLeftTokens,
      absorbedTokens: answer.absorbedTokens,
      logTokens: answer.log.length,
      creditThrough: answer.creditThrough,
      deviceWrites: answer.log.writer === "device",
      cloudAlive: answer.cloudAlive,
      takeoverForced: answer.takeoverForced,
      over: answer.over,
      paused: answer.request.standby && answer.cloudAlive,
      silenceS: answer.clock.nowS() - answer.lastCloudS,
      patienceS:
        answer.display.backlog > 0 ? Math.max(MIN_PATIENCE_S, 2 * intervalS) : intervalS,
    };
  }

  /** @param {import("./catchUp.js").View} view */
  async #wait(view) {
    const answer = this.#answer;
    await answer.wait(waitS(view));
    if (view.paused && this.#begun) {
      answer.prefillClock.start(answer.clock.nowS());
      answer.decodeClock.pause();
    }
  }

  /** Keep the tokens that are this prompt's; the client has compared them. */
  async #begin() {
    await this.#engine.rewind(this.#answer.request.cachedTokens);
    this.#begun = true;
    this.#answer.prefillClock.start(this.#answer.clock.nowS());
  }

  async #prefillChunk() {
    const answer = this.#answer;
    const { promptIds } = answer.request;
    const start = answer.prefilledTokens;
    const chunk = promptIds.slice(start, start + this.#engine.capabilities.chunkTokens);
    await this.#engine.append(chunk, { signal: answer.engineAbort.signal });
    const doneTokens = (answer.prefilledTokens = start + chunk.length);
    answer.prefillClock.observe(doneTokens, answer.clock.nowS());
    const totalTokens = promptIds.length;
    answer.pending.push({ type: "prefill_progress", doneTokens, totalTokens });
    if (answer.prefillLeftTokens === 0 && answer.state === "CLOUD") answer.enter("CATCHING_UP");
    answer.extendCredit();
    answer.notify();
  }

  /** Every token of the log that is not in the cache, as one more prefill. */
  async #absorb() {
    const answer = this.#answer;
    const end = answer.log.length;
    const ids = answer.log.ids.slice(answer.absorbedTokens, end);
    await this.#engine.append(ids, { signal: answer.engineAbort.signal });
    answer.absorbedTokens = end;
  }

  /** Become the writer and decode on without waiting for a reply. */
  #takeOver() {
    const answer = this.#answer;
    const index = answer.log.takeOver();
    if (answer.state !== "DEVICE_ONLY") answer.enter("DEVICE");
    const hash = prefixHash(answer.request.promptIds, answer.log.ids);
    answer.send({ takeover: { index, prefixHash: toBase64(hash) } });
    answer.notify();
  }

  async #decode() {
    const answer = this.#answer;
    const logits = await this.#engine.logits();
    if (answer.over || answer.log.writer !== "device") return; // cancelled in the meantime
    const { log, request } = answer;
    const chosen = sample(logits, request.sampling, {
      promptIds: request.promptIds,
      outputIds: log.ids,
      index: log.length,
    });
    const nowS = answer.clock.nowS();
    answer.minMargin = Math.min(answer.minMargin, chosen.margin);
    answer.decodeClock.made(nowS);
    log.appendFromDevice(chosen.tokenId, nowS, chosen.logprob);
    answer.tokenAppended(chosen.tokenId);
    answer.notify();
  }
}
