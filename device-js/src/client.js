/** `Client`: what an app holds. One client, one engine, one cloud. */

import { AnswerStream } from "./answerStream.js";
import { budgetsOf } from "./budgets.js";
import { systemClock } from "./clock.js";
import { InvalidRequest, Unsupported, requireKnown } from "./errors.js";
import { Generation } from "./generation.js";
import { plan } from "./modes.js";
import { pacingOf } from "./pacing.js";
import { checkedKeepRatio, requireFit } from "./request.js";
import { randomSeed, samplingOf } from "./samplingOptions.js";
import { readSnapshot } from "./snapshot.js";
import { TextStream } from "./textStream.js";
import { WebSocketTransport } from "./webSocketTransport.js";

/**
 * @typedef {object} ClientOptions
 * @property {string | import("./webSocketTransport.js").Transport | null} [cloud] ws:// or
 *   wss:// address, or a transport
 * @property {import("./engines/base.js").Engine | null} [engine] without one: cloud-only
 * @property {import("./timeline.js").DeviceProfile | null} [profile] the engine's speed, from
 *   `measureProfile`
 * @property {import("./modes.js").Mode} [mode]
 * @property {Partial<import("./pacing.js").Pacing>} [pacing]
 * @property {Partial<import("./budgets.js").Budgets>} [budgets]
 * @property {boolean} [reuseKv] a prompt that begins like the turn before is prefilled only
 *   from where it differs
 * @property {boolean} [uploadHistory] tokens made here may go to the cloud if it must go on
 * @property {string} [label] names the scenario that answers belong to
 * @property {string} [token] shown to a cloud that asks for one
 * @property {boolean} [insecure] allow plain text to other hosts than loopback
 * @property {any} [WebSocket] the browser's own unless another is passed
 * @property {import("./clock.js").Clock} [clock]
 * @property {() => bigint} [drawSeed]
 */

const CLIENT_OPTIONS = [
  "cloud", "engine", "profile", "mode", "pacing", "budgets", "reuseKv", "uploadHistory", "label",
  "token", "insecure", "WebSocket", "clock", "drawSeed",
];

/**
 * @typedef {object} AnswerOptions exactly one of `messages`, `prompt` and `promptTokenIds`
 * @property {readonly {role: string, content: string}[]} [messages]
 * @property {string} [prompt]
 * @property {readonly number[]} [promptTokenIds]
 * @property {number} [maxTokens] undefined fills the engine's context
 * @property {Parameters<typeof samplingOf>[0]} [sampling]
 * @property {import("./modes.js").Mode} [mode]
 * @property {number | null} [creditThrough] how many tokens the cloud makes at most, in place of
 *   its advice and of extensions
 * @property {Partial<import("./pacing.js").Pacing>} [pacing]
 * @property {Partial<import("./budgets.js").Budgets>} [budgets]
 * @property {boolean} [logprobs]
 * @property {number} [keepRatio] of the prompt; below 1 only without an engine
 * @property {string} [model] the cloud's
 * @property {string} [label]
 */

const ANSWER_OPTIONS = [
  "messages", "prompt", "promptTokenIds", "maxTokens", "sampling", "mode", "creditThrough",
  "pacing", "budgets", "logprobs", "keepRatio", "model", "label",
];

/** Opens answers. */
export class Client {
  #engine;
  #profile;
  #transport;
  #defaults;
  #clock;
  #drawSeed;
  #engineInUse = false;

  /** @param {ClientOptions} options */
  constructor(options) {
    requireKnown(options, CLIENT_OPTIONS, "Client");
    const { cloud = null, engine = null, profile = null } = options;
    if (cloud === null && engine === null) {
      throw new InvalidRequest("a client needs a cloud, an engine, or both");
    }
    if (engine !== null && profile === null) {
      throw new InvalidRequest(
        "an engine came without its profile; pass `profile: await measureProfile(engine)`",
        { param: "profile" },
      );
    }
    this.#engine = engine;
    this.#profile = profile;
    const { token, insecure, WebSocket } = options;
    const isAddress = typeof cloud === "string";
    this.#transport = isAddress
      ? new WebSocketTransport(cloud, { token, insecure, WebSocket })
      : cloud;
    this.#clock = options.clock ?? systemClock;
    this.#drawSeed = options.drawSeed ?? randomSeed;
    this.#defaults = {
      mode: options.mode ?? "split",
      pacing: options.pacing ?? {},
      budgets: options.budgets ?? {},
      reuseKv: options.reuseKv ?? true,
      uploadHistory: options.uploadHistory ?? true,
      label: options.label ?? "",
    };
  }

  /**
   * An answer. What is wrong with the options is thrown here; what is wrong with the
   * prompt by the iteration, before anything is sent.
   * @param {AnswerOptions} options
   */
  stream(options) {
    requireKnown(options, ANSWER_OPTIONS, "stream");
    const given = [options.messages, options.prompt, options.promptTokenIds];
    const [prompt, ...more] = given.filter((each) => each !== undefined);
    if (prompt === undefined || more.length > 0 || prompt.length === 0) {
      throw new InvalidRequest(
        `${given.filter((each) => each !== undefined).length} of messages, prompt and ` +
          "promptTokenIds were given, expected one, and not empty",
      );
    }
    return this.#open(options, () => this.#tokenize(options), null);
  }

  /**
   * Go on with an answer that another page began; `snapshot` is what its
   * `answer.snapshot()` gave. All its events come again, what was received at once.
   * @param {any} snapshot
   * @param {Pick<AnswerOptions, "pacing" | "budgets">} [options]
   */
  resume(snapshot, options = {}) {
    requireKnown(options, ["pacing", "budgets"], "resume");
    const saved = readSnapshot(snapshot);
    const { mode, sampling, maxTokens, model, label } = saved;
    const asked = { mode, sampling, maxTokens, model, label, creditThrough: saved.appCredit };
    return this.#open({ ...options, ...asked }, async () => saved.promptIds, saved);
  }

  /** Free the engine. Idempotent. */
  async close() {
    await this.#engine?.close();
  }

  /**
   * @param {AnswerOptions} options
   * @param {() => Promise<readonly number[]>} tokenize
   * @param {import("./snapshot.js").Snapshot | null} saved
   */
  #open(options, tokenize, saved) {
    const mode = options.mode ?? this.#defaults.mode;
    const situation = { hasDevice: this.#engine !== null, hasCloud: this.#transport !== null };
    const chosen = plan(mode, situation);
    const engine = chosen.device ? this.#engine : null;
    const parts = {
      mode,
      engine,
      transport: chosen.cloud ? this.#transport : null,
      pacing: pacingOf({ ...this.#defaults.pacing, ...options.pacing }),
      clock: this.#clock,
      saved,
    };
    const sampling = this.#sampling(options.sampling ?? {}, engine);
    const keepRatio = checkedKeepRatio(options.keepRatio, engine !== null);
    const budgets = budgetsOf({ ...this.#defaults.budgets, ...options.budgets });
    if (this.#mustStayHere(saved)) parts.transport = null;
    if (engine !== null) this.#takeEngine();
    const open = async (/** @type {(event: import("./events.js").Event) => void} */ emit) => {
      const promptIds = await tokenize();
      const context = engine?.capabilities.maxContextTokens ?? Infinity;
      const maxTokens = requireFit(options.maxTokens, promptIds.length, context);
      const oneSide = !(chosen.device && chosen.cloud) || chosen.standby;
      const request = {
        requestId: saved?.requestId ?? crypto.randomUUID(),
        promptIds,
        text: options.prompt ?? null,
        messages: options.messages ?? [],
        sampling,
        maxTokens,
        creditThrough: oneSide ? maxTokens : (options.creditThrough ?? null),
        keepRatio,
        model: options.model ?? "",
        label: options.label ?? this.#defaults.label,
        logprobs: options.logprobs ?? false,
        budgets,
        standby: chosen.standby,
        uploadHistory: this.#defaults.uploadHistory,
        cachedTokens: engine === null ? 0 : this.#match(promptIds),
        identity: this.#engine?.identity ?? null,
        profile: this.#engine === null ? null : this.#profile,
      };
      const vocabulary = this.#engine?.vocabulary;
      const text = vocabulary ? new TextStream(vocabulary, sampling.stop) : null;
      return new Generation(request, emit, { ...parts, text });
    };
    return new AnswerStream(open, () => {
      if (engine !== null) this.#engineInUse = false;
    });
  }

  /**
   * Whether an interrupted answer must stay on this device: it wrote already, and what
   * it writes may not be uploaded.
   * @param {import("./snapshot.js").Snapshot | null} saved
   */
  #mustStayHere(saved) {
    const wroteHere = saved !== null && saved.sources.includes("device");
    return wroteHere && this.#engine !== null && !this.#defaults.uploadHistory;
  }

  /**
   * @param {Parameters<typeof samplingOf>[0]} given
   * @param {import("./engines/base.js").Engine | null} engine of the answer
   */
  #sampling(given, engine) {
    const vocabSize = this.#engine?.identity.vocabSize;
    const sampling = samplingOf(given, { drawSeed: this.#drawSeed, vocabSize });
    if (sampling.repetitionPenalty !== 1 && engine?.capabilities.rawLogits === false) {
      throw new Unsupported(
        "this engine does not tell the size of its logits, which repetitionPenalty needs; use " +
          "presencePenalty or frequencyPenalty, or only_in_cloud",
        { reason: "LOGITS_SHIFTED", param: "repetitionPenalty" },
      );
    }
    const own = this.#engine?.identity.stopTokenIds ?? [];
    const stopTokenIds = [...new Set([...sampling.stopTokenIds, ...own])].sort((a, b) => a - b);
    return { ...sampling, stopTokenIds };
  }

  #takeEngine() {
    if (this.#engineInUse) {
      throw new InvalidRequest(
        "another answer of this client is using the engine; end it first, or open a second " +
          "client with a second engine",
        { reason: "ENGINE_BUSY" },
      );
    }
    this.#engineInUse = true;
  }

  /** @param {AnswerOptions} options */
  async #tokenize({ messages, prompt, promptTokenIds }) {
    const engine = this.#engine;
    if (promptTokenIds !== undefined) {
      if (engine === null) {
        throw new InvalidRequest(
          "promptTokenIds need an engine that says which vocabulary they are from; pass " +
            "messages or prompt",
        );
      }
      return promptTokenIds;
    }
    if (engine === null) return []; // the cloud tokenizes
    return prompt === undefined ? engine.encodeChat(messages ?? []) : engine.encode(prompt);
  }

  /**
   * How many leading tokens of the prompt the engine holds; never the last one,
   * whose logits are needed.
   * @param {readonly number[]} promptIds
   */
  #match(promptIds) {
    if (!this.#defaults.reuseKv) return 0;
    const held = this.#engine?.tokenIds ?? [];
    let tokens = 0;
    while (tokens < promptIds.length - 1 && held[tokens] === promptIds[tokens]) tokens++;
    return tokens;
  }
}
