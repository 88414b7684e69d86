/** What the cloud's messages do to one answer, as the table in `state` says. */

import { DeadlineExceeded, NotFound, ProtocolError, Unavailable } from "./errors.js";
import { Reconnect } from "./reconnect.js";
import { showIntervalS, startMessage } from "./request.js";
import { actionOf } from "./state.js";

/** @type {Record<string, import("./events.js").FinishReason>} */
const REASONS = { FINISH_REASON_STOP: "stop", FINISH_REASON_LENGTH: "length" };

/** Applies responses, and the loss of the stream, to an answer. */
export class CloudMessages {
  #answer;
  #reconnect = new Reconnect();
  #givenUp = false;
  #takeovers;

  generationId;
  /** Base64, as the cloud wrote it; a secret of this device. @type {string | null} */
  resumeToken;

  /**
   * @param {import("./answer.js").Answer} answer
   * @param {{generationId: string, resumeToken: string | null}} [known] of an answer that was
   *   interrupted
   */
  constructor(answer, { generationId, resumeToken } = { generationId: "", resumeToken: null }) {
    this.#answer = answer;
    this.#takeovers = answer.log.takeovers.length;
    this.generationId = generationId;
    this.resumeToken = resumeToken;
  }

  /** Whether the answer needs the cloud and has no stream. */
  get wantsStream() {
    const { state } = this.#answer;
    const waiting = state === "CONNECTING" || state === "RECONNECTING";
    return waiting && (this.#givenBack || !this.#givenUp);
  }

  /** The device had taken over and stopped: what the cloud says is about the past. */
  get #givenBack() {
    const { log } = this.#answer;
    return log.writer === "cloud" && log.takeovers.length !== this.#takeovers;
  }

  /** The cloud is asked, at first or after a pause: patience begins anew. */
  begin() {
    this.#reconnect.restart(this.#answer.clock.nowS());
  }

  /** `start`; then `resume`, or `start` with what there is if the cloud forgot us. */
  firstMessage() {
    const { log, request, creditThrough } = this.#answer;
    if (!this.wantsStream) return null;
    if (this.#givenBack) this.#startAnew();
    if (this.resumeToken === null) {
      return { start: startMessage(request, log.ids, creditThrough) };
    }
    return {
      resume: {
        generationId: this.generationId,
        resumeToken: this.resumeToken,
        nextIndex: log.length,
        credit: { through: creditThrough },
      },
    };
  }

  /** The device's takeover ended the old generation; the next stream is a new one. */
  #startAnew() {
    this.resumeToken = null;
    this.#givenUp = false;
    this.#takeovers = this.#answer.log.takeovers.length;
    const cause = new Unavailable("the device stopped, and no cloud took the answer over");
    this.#reconnect.begin(cause, this.#answer.clock.nowS());
  }

  /**
   * One message. What the protocol does not allow here ends the cloud's part.
   * @param {import("./frames.js").Response} response
   */
  onResponse({ kind, body }) {
    const answer = this.#answer;
    try {
      this.#apply(kind, body);
    } catch (error) {
      if (!(error instanceof ProtocolError)) throw error;
      answer.cloudAllowed = false;
      this.giveUp(error);
    }
    answer.notify();
  }

  /**
   * @param {string} kind
   * @param {any} body
   */
  #apply(kind, body) {
    const answer = this.#answer;
    const action = actionOf(answer.state, kind);
    if (this.#givenUp || this.#givenBack || action === "discard") {
      if (kind === "tokens") answer.log.discarded += body.ids?.length ?? 0;
    } else if (action === "confirm") this.#confirm(body);
    else if (action === "append") this.#append(body);
    else if (action === "cloud_end") this.#ended(body);
    else if (action === "warn") this.#warn(body.code ?? "", body.message ?? "");
    else if (action === "refine") {
      // A computed position is never wrong, only dear: the whole prompt is prefilled.
      this.#warn("REFINEMENT_IGNORED", "this engine cannot leave positions out of a prompt");
    } else if (action === "refuse") {
      throw new ProtocolError(`the cloud sent a ${kind} message in ${answer.state}`);
    }
  }

  /**
   * The stream is over. Decides whether to try again.
   * @param {import("./errors.js").SegueError | null} ended null without an error
   * @returns {number | null}
   */
  onStreamEnd(ended) {
    const answer = this.#answer;
    if (this.#givenBack) return 0;
    if (this.#givenUp) return null;
    const early = { reason: "STREAM_ENDED" };
    const error = ended ?? new Unavailable("the cloud ended the stream early", early);
    const action = actionOf(answer.state, "lost");
    answer.cloudAlive = false;
    let delayS = null;
    if (action === "reconnect") delayS = this.#tryAgain(error);
    else if (action === "lose") this.#goOnAlone(error);
    answer.notify();
    return delayS;
  }

  /**
   * Go on without this cloud, whatever it still says.
   * @param {import("./errors.js").SegueError} error
   */
  giveUp(error) {
    this.#answer.cloudAlive = false;
    this.#givenUp = true;
    this.#goOnAlone(error);
    this.#answer.notify();
  }

  /**
   * Seconds until the next try, or null when there is no sense in one.
   * @param {import("./errors.js").SegueError} error
   */
  #tryAgain(error) {
    const answer = this.#answer;
    const nowS = answer.clock.nowS();
    if (answer.state !== "RECONNECTING") {
      answer.pending.push({ type: "reconnecting", reason: error.message });
      answer.enter("RECONNECTING");
      this.#reconnect.begin(error, nowS);
    }
    const forgotten = error instanceof NotFound && this.resumeToken !== null;
    if (forgotten) this.resumeToken = null;
    const passes = error instanceof Unavailable || error instanceof DeadlineExceeded;
    if (!forgotten && !passes) {
      this.#goOnAlone(error); // asking again would change nothing
      return null;
    }
    const delayS = this.#reconnect.nextDelayS(nowS);
    // Out of time: what broke the stream says more than the last refused try.
    if (delayS === null) this.#goOnAlone(this.#reconnect.cause ?? error);
    return delayS;
  }

  /** @param {import("./errors.js").SegueError} error */
  #goOnAlone(error) {
    const answer = this.#answer;
    if (!answer.engineAlive) {
      answer.fail(error);
      return;
    }
    answer.pending.push({ type: "fallback", reason: `cloud: ${error.message}` });
    if (answer.state === "CONNECTING") answer.enter("DEVICE_ONLY");
    else if (answer.state === "RECONNECTING") answer.enterBesideTheCloud();
  }

  /** @param {any} started */
  #confirm(started) {
    const answer = this.#answer;
    const nowS = answer.clock.nowS();
    const { generationId = "", resumeToken = "", creditThrough = 0, promptTokens = 0 } = started;
    const { paceS = 0, cloudTokens = 0, explanation = "" } = started.advice ?? {};
    if (answer.state === "CONNECTING") answer.cloudReplyS = nowS - answer.startedS;
    answer.lastCloudS = nowS;
    answer.creditThrough = Math.max(answer.creditThrough, creditThrough);
    answer.showIntervalS = paceS || showIntervalS(answer.request);
    answer.cloudAlive = true;
    const reconnected = answer.state === "RECONNECTING";
    const isNew = this.generationId !== generationId || !reconnected;
    this.generationId = generationId;
    this.resumeToken = resumeToken;
    answer.enterBesideTheCloud();
    if (isNew) {
      if (answer.request.creditThrough === null) answer.explanation = explanation;
      const known = { generationId, promptTokens, cloudTokens };
      answer.pending.push({ type: "started", creditThrough, ...known });
    }
    if (reconnected) answer.pending.push({ type: "resumed", nextIndex: answer.log.length });
  }

  /** @param {any} tokens */
  #append({ index = 0, ids = [], text = "", logprobs = [] }) {
    const answer = this.#answer;
    const nowS = (answer.lastCloudS = answer.clock.nowS());
    for (const [offset, id] of ids.entries()) {
      if (answer.over) {
        answer.log.discarded += ids.length - offset;
        return;
      }
      answer.log.appendFromCloud(index + offset, id, nowS, logprobs[offset] ?? null);
      // The server's text covers the whole message; it goes with the last token.
      answer.tokenAppended(id, offset === ids.length - 1 ? text : "");
    }
  }

  /** @param {any} finish */
  #ended({ reason = "", length = 0 }) {
    const { log } = this.#answer;
    const known = REASONS[reason];
    if (known === undefined || length !== log.length) {
      throw new ProtocolError(
        `the cloud ended with ${reason} at ${length} tokens, ${log.length} had arrived`,
      );
    }
    this.#answer.end(known);
  }

  /**
   * @param {string} code
   * @param {string} message
   */
  #warn(code, message) {
    this.#answer.pending.push({ type: "warning", code, message });
  }
}
