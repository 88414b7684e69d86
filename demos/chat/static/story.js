// What one answer's events amount to. No page in here: events go in, figures come out.

/** Which maker a token had. */
export const CLOUD = "cloud";
export const DEVICE = "device";

const PACE_WINDOW_S = 1;

/**
 * One answer so far. Feed it every event in order; times are seconds from the
 * request, `event.atS` where the event's maker tells it, else since `clock` began.
 */
export class Story {
  constructor(clock = () => performance.now() / 1000) {
    this.clock = clock;
    this.startS = clock();
    this.nowS = 0;
    this.received = 0;
    this.shown = 0;
    this.prefilled = 0;
    this.promptTokens = 0;
    this.lag = 0;
    this.bySource = { [CLOUD]: 0, [DEVICE]: 0 };
    this.takeover = null; // {index, early, atS}
    this.refinement = null;
    this.connected = true;
    this.result = null;
    this.error = null;
    this.shownAtS = [];
    this.samples = []; // {atS, received, shown, prefill (0..1), lag, pace}
  }

  get over() {
    return this.result !== null || this.error !== null;
  }

  /** Tokens shown a second, over the last second that had any. */
  get pace() {
    if (this.shownAtS.length < 2) return 0;
    const lastS = this.shownAtS.at(-1);
    const first = this.shownAtS.findIndex((atS) => atS > lastS - PACE_WINDOW_S);
    const spanS = lastS - this.shownAtS[first];
    return spanS > 0 ? (this.shownAtS.length - 1 - first) / spanS : 0;
  }

  get prefill() {
    return this.promptTokens ? this.prefilled / this.promptTokens : 0;
  }

  apply(event) {
    this.nowS = event.atS ?? this.clock() - this.startS;
    const change = CHANGES[event.type];
    if (change) change(this, event);
    if (SAMPLED.has(event.type)) this.#sample();
  }

  #sample() {
    this.samples.push({
      atS: this.nowS,
      received: this.received,
      shown: this.shown,
      prefill: this.prefill,
      lag: this.lag,
      pace: this.pace,
    });
  }
}

const SAMPLED = new Set(["progress", "token", "prefill_progress", "done"]);

const CHANGES = {
  token(story, { index, source }) {
    if (index === null) return; // text that was held back, no token of its own
    story.shown += 1;
    story.shownAtS.push(story.nowS);
    story.bySource[source] += 1;
    // Progress is told from time to time only; what is shown was received.
    story.received = Math.max(story.received, story.shown);
  },
  progress(story, event) {
    story.received = Math.max(event.receivedTokens, story.shown);
    story.prefilled = event.prefilledTokens;
    story.promptTokens = event.promptTokens;
    story.lag = event.lagTokens;
  },
  prefill_progress(story, { doneTokens, totalTokens }) {
    story.prefilled = doneTokens;
    story.promptTokens = totalTokens;
  },
  refinement(story, { keptTokens, promptTokens }) {
    story.refinement = { keptTokens, promptTokens };
  },
  takeover(story, { index, early }) {
    story.takeover = { index, early, atS: story.nowS };
  },
  reconnecting(story) {
    story.connected = false;
  },
  resumed(story) {
    story.connected = true;
  },
  done(story, { result }) {
    story.result = result;
    story.received = story.shown = result.tokenIds.length;
  },
  error(story, { message, reason }) {
    story.error = { message, reason };
  },
};

/**
 * Seconds of the cloud's decode slot that the device's part saved: what the cloud-only
 * answer would have held it for, at the time per token that was measured on this
 * answer's own cloud tokens, less what it did hold. The first token comes from the
 * prefill and takes no slot. null where the cloud's own account is not there, or too
 * short to tell.
 */
export function slotSaved(result) {
  const account = result.cloud;
  const tokens = result.tokenIds.length;
  if (!account || account.cloudTokens < 2 || !account.slotS || !result.usage.deviceTokens) return null;
  const perTokenS = account.slotS / (account.cloudTokens - 1);
  const aloneS = perTokenS * (tokens - 1);
  return { savedS: Math.max(0, aloneS - account.slotS), aloneS, perTokenS };
}
