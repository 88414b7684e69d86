/**
 * One answer on the device.
 *
 * Tasks share one Answer: the cloud's stream appends what it sends (CloudPeer,
 * CloudMessages), the engine prefills, absorbs, takes over and decodes (EngineLoop),
 * `#show` reads the log to the user at the pacer's rate, `#watch` keeps the time
 * budgets. Their decisions are pure step functions: catchUp, credit, pacing, budgets.
 */

import { Answer, HANDOVER_S } from "./answer.js";
import { nextDeadline } from "./budgets.js";
import { CloudMessages } from "./cloudMessages.js";
import { CloudPeer } from "./cloudPeer.js";
import { EngineLoop } from "./engineLoop.js";
import { InternalError, SegueError } from "./errors.js";
import { resultOf } from "./result.js";

// The cloud's account of itself comes within a round trip of the end, or not at all.
const SETTLE_S = 0.5;
// A hand-over that was expected by now may still take this long.
const OVERDUE_S = 0.5;

/** Runs one request; `run` returns when its last event has been emitted. */
export class Generation {
  #emit;
  #peer;
  #messages;
  #engineLoop;
  #mode;

  /**
   * @param {import("./request.js").AnswerRequest} request
   * @param {(event: import("./events.js").Event) => void} emit
   * @param {{mode: import("./modes.js").Mode,
   *   engine: import("./engines/base.js").Engine | null,
   *   transport: import("./webSocketTransport.js").Transport | null,
   *   text: import("./textStream.js").TextStream | null,
   *   pacing: import("./pacing.js").Pacing, clock: import("./clock.js").Clock,
   *   saved: import("./snapshot.js").Snapshot | null}} parts one of `engine` and `transport` at
   *   least; `saved` is the answer to go on with
   */
  constructor(request, emit, { mode, engine, transport, text, pacing, clock, saved }) {
    this.#emit = emit;
    this.#mode = mode;
    this.#peer = transport === null ? null : new CloudPeer(transport, clock);
    const withCloud = saved === null ? "CONNECTING" : "RECONNECTING";
    this.answer = new Answer(request, this.#peer === null ? "DEVICE_ONLY" : withCloud, {
      text,
      pacing,
      clock,
      engineAlive: engine !== null,
      cloud: this.#peer,
    });
    if (saved !== null) this.#restore(saved);
    this.#messages = new CloudMessages(this.answer, saved ?? undefined);
    this.#engineLoop = engine === null ? null : new EngineLoop(this.answer, engine);
  }

  /** End the answer now; what was received is shown at once. Idempotent. */
  cancel() {
    this.answer.end("cancelled");
  }

  /** Take over as soon as the device has caught up, whatever the credit. */
  takeover() {
    this.answer.takeoverForced = true;
    this.answer.notify();
  }

  /**
   * What another page needs to go on with this answer; see `Client.resume`.
   * @returns {import("./snapshot.js").Snapshot}
   */
  snapshot() {
    const { log, request, creditThrough } = this.answer;
    // Behind a takeover there is no generation to resume in the cloud any more.
    const isAhead = log.writer === "cloud";
    return {
      version: 1,
      mode: this.#mode,
      requestId: request.requestId,
      promptIds: request.promptIds,
      sampling: { ...request.sampling, seed: request.sampling.seed.toString() },
      maxTokens: request.maxTokens,
      outputIds: [...log.ids],
      sources: log.entries.map((entry) => entry.source),
      takeovers: [...log.takeovers],
      appCredit: request.creditThrough,
      creditThrough,
      model: request.model,
      label: request.label,
      generationId: isAhead ? this.#messages.generationId : "",
      resumeToken: isAhead ? this.#messages.resumeToken : null,
    };
  }

  /** Run to the end. Throws the answer's error with `partial` filled. */
  async run() {
    const { answer } = this;
    const peer = this.#peer;
    // A bug in one of them must end the answer, not leave the others waiting.
    const fail = (/** @type {unknown} */ error) =>
      answer.fail(error instanceof SegueError ? error : new InternalError(String(error)));
    const tasks = [this.#talk(), this.#engineLoop?.run(), this.#watch()];
    const ended = tasks.map((task) => task?.catch(fail));
    await this.#show();
    const endedS = answer.clock.nowS();
    await this.#settle();
    peer?.close();
    answer.notify();
    await Promise.all(ended);
    if (answer.error !== null) {
      answer.error.partial = [...answer.log.ids];
      throw answer.error;
    }
    return resultOf(answer, endedS, peer?.finish ?? null);
  }

  /** @param {import("./snapshot.js").Snapshot} saved */
  #restore({ outputIds, sources, takeovers, creditThrough, resumeToken }) {
    const { answer } = this;
    const nowS = answer.clock.nowS();
    // A generation that is new takes its first credit from the cloud's advice.
    if (resumeToken !== null) answer.creditThrough = Math.max(answer.creditThrough, creditThrough);
    answer.display.restored = outputIds.length;
    answer.log.takeovers.push(...takeovers);
    for (const [index, tokenId] of outputIds.entries()) {
      answer.log.restore(tokenId, sources[index], nowS);
      answer.tokenAppended(tokenId);
    }
  }

  /** Keep a stream to the cloud whenever the answer needs one. */
  async #talk() {
    const { answer } = this;
    if (this.#peer === null) return;
    while (!answer.over) {
      if (this.#messages.wantsStream) {
        this.#messages.begin();
        await this.#peer.run(this.#messages);
      } else {
        await answer.wait();
      }
    }
  }

  /** End what outlasts its time budget. */
  async #watch() {
    const { answer } = this;
    while (!answer.over) {
      const deadline = nextDeadline(answer.request.budgets, this.#budgetsSince());
      const leftS = deadline === null ? null : deadline.atS - answer.clock.nowS();
      if (deadline === null || leftS === null || leftS > 0) {
        await answer.wait(leftS);
      } else if (deadline.fatal) {
        answer.fail(deadline.error);
      } else {
        this.#messages.giveUp(deadline.error);
        this.#peer?.hangUp();
      }
    }
  }

  #budgetsSince() {
    const { answer } = this;
    const cloudWrites = answer.cloudOwes && answer.log.writer === "cloud";
    const begun = answer.log.length > 0;
    const connecting = cloudWrites && answer.state === "CONNECTING";
    return {
      connectS: connecting ? answer.startedS : null,
      firstTokenS: cloudWrites && !begun ? answer.startedS : null,
      interTokenS: cloudWrites && begun ? answer.lastCloudS : null,
      totalS: answer.startedS,
    };
  }

  /** Read the log to the user until it is complete and shown. */
  async #show() {
    const { answer } = this;
    const { display, log } = answer;
    while (display.backlog > 0 || !answer.over) {
      this.#emitPending();
      const nowS = answer.clock.nowS();
      const dueS = display.backlog > 0 ? display.dueS(this.#paceView(), nowS) : Infinity;
      if (dueS > nowS) {
        await answer.wait(dueS === Infinity ? null : dueS - nowS);
        continue;
      }
      const { index, tokenId, source, logprob } = log.entries[display.cursor];
      if (log.takeovers.includes(index) && source === "device") {
        this.#emit({ type: "takeover", index, early: index < answer.creditThrough });
      }
      const text = display.showNext(dueS, nowS);
      const told = answer.request.logprobs ? logprob : null;
      this.#emit({ type: "token", index, tokenId, text, source, logprob: told });
      answer.extendCredit();
    }
    this.#emitPending();
    const text = display.takeTail();
    if (text) {
      const none = { index: null, tokenId: null, logprob: null };
      this.#emit({ type: "token", text, source: log.writer, ...none });
    }
  }

  /** @returns {import("./pacing.js").PaceView} */
  #paceView() {
    const { answer } = this;
    return {
      backlogTokens: answer.display.backlog,
      showIntervalS: answer.showIntervalS,
      deviceRateTps: 1 / (answer.decodeClock.tokenS ?? answer.showIntervalS),
      deviceWrites: answer.log.writer === "device",
      complete: answer.over,
      expectedS: this.#expectedS(),
      cancelled: answer.reason === "cancelled",
    };
  }

  /** Until the next token is in the log; 0 while somebody is writing. */
  #expectedS() {
    const { answer } = this;
    const written = answer.log.writer === "device" || answer.cloudOwes;
    if (written || answer.over || !answer.engineAlive) return 0;
    return answer.readyInS > HANDOVER_S ? answer.readyInS : OVERDUE_S;
  }

  #emitPending() {
    for (const event of this.answer.pending.splice(0)) this.#emit(event);
  }

  async #settle() {
    const { answer } = this;
    const peer = this.#peer;
    const untilS = answer.clock.nowS() + SETTLE_S;
    while (peer?.alive && peer.finish === null && answer.clock.nowS() < untilS) {
      await answer.wait(untilS - answer.clock.nowS());
    }
  }
}
