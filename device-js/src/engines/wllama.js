/**
 * llama.cpp in WebAssembly, by wllama 2.4.0: the model runs in a worker that the
 * library starts, this page only sends it ids.
 *
 * Its interface decides what this engine can do. Positions are consecutive, so
 * `capabilities.positions` is "compact". It tells probabilities, not logits: their
 * logarithms are the logits less a constant of each row, in float32 (1e-7 of a score), so
 * `rawLogits` is false. What it computes with is set for exactness level 2: a float32
 * cache and no flash attention, on a model converted with `--format gguf --precision fp32`.
 */

import { InternalError, InvalidRequest, Unsupported } from "../errors.js";
import { readModelFiles } from "../modelFiles.js";
import { toHex } from "../sha256.js";
import { checkAppend, checkRewind, requireNotAborted } from "./base.js";

const WEIGHTS_NAME = "model.gguf";
// The file's own word on which weights it was made from.
const DIGEST_KEY = "segue.weights_digest";
const SILENT = { debug() {}, log() {}, warn() {}, error() {} };

/** @typedef {import("./base.js").Engine} Engine */

/**
 * @typedef {object} Options
 * @property {import("../modelStore.js").ModelStore} store the converted model's files
 * @property {any} Wllama the class that the wllama package exports
 * @property {any} Template the class that the package huggingface/jinja exports
 * @property {string} wasmUrl address of the package's esm/single-thread/wllama.wasm
 * @property {number} [maxContextTokens] the model's own at most
 * @property {number} [chunkTokens]
 * @property {import("../modelStore.js").OnProgress} [onProgress] of the download
 */

/** @implements {Engine} */
export class WllamaEngine {
  #wllama;
  #files;
  #template;
  #hasLogits = false;
  /** @type {number[]} */
  #held = [];

  /**
   * Fetch (or find in the browser's cache) and load a model. The libraries are passed in,
   * because a page without a build step says itself where they lie.
   * @param {Options} options
   */
  static async load({
    store,
    Wllama,
    Template,
    wasmUrl,
    maxContextTokens = 2048,
    chunkTokens = 128,
    onProgress,
  }) {
    const files = await readModelFiles(store);
    const weights = await store.blob(WEIGHTS_NAME, onProgress);
    const wllama = new Wllama(
      { "single-thread/wllama.wasm": wasmUrl },
      { suppressNativeLog: true, logger: SILENT },
    );
    const contextTokens = Math.min(maxContextTokens, files.maxContextTokens);
    try {
      await wllama.loadModel([weights], {
        n_ctx: contextTokens,
        n_batch: chunkTokens,
        n_threads: 1,
        cache_type_k: "f32",
        cache_type_v: "f32",
        flash_attn: false,
      });
      requireSameWeights(wllama, files);
    } catch (error) {
      await wllama.exit().catch(() => {});
      if (error instanceof InvalidRequest) throw error;
      throw new InternalError(
        `llama.cpp cannot load ${WEIGHTS_NAME} here: ${error}; it needs a browser with ` +
          "WebAssembly of 64 bits, 'wasm-unsafe-eval' and blob: workers allowed by the page's " +
          "policy, and memory for the model",
        { reason: "MODEL_NOT_LOADED" },
      );
    }
    const template = files.template === null ? null : new Template(files.template);
    return new WllamaEngine(wllama, files, template, contextTokens, chunkTokens);
  }

  /**
   * Called by `load`.
   * @param {any} wllama
   * @param {import("../modelFiles.js").ModelFiles} files
   * @param {any} template
   * @param {number} maxContextTokens
   * @param {number} chunkTokens
   */
  constructor(wllama, files, template, maxContextTokens, chunkTokens) {
    this.#wllama = wllama;
    this.#files = files;
    this.#template = template;
    this.identity = files.identity;
    this.vocabulary = files.vocabulary;
    /** @type {import("./base.js").Capabilities} */
    this.capabilities = { positions: "compact", rawLogits: false, maxContextTokens, chunkTokens };
  }

  get tokenIds() {
    return this.#held;
  }

  /**
   * Special tokens written in the text are parsed, none are added.
   * @param {string} text
   * @returns {Promise<number[]>}
   */
  async encode(text) {
    return [...(await this.#call("tokenize", text, true))];
  }

  /** @param {readonly {role: string, content: string}[]} messages */
  async encodeChat(messages) {
    if (this.#template === null) {
      throw new Unsupported("the model has no chat template; add one to it, or pass a prompt", {
        reason: "NO_CHAT_TEMPLATE",
      });
    }
    const values = { messages, add_generation_prompt: true, ...this.#files.specialTokens };
    let prompt;
    try {
      prompt = this.#template.render(values);
    } catch (error) {
      throw new InvalidRequest(
        `the chat template refuses these messages: ${error}; change roles or their order`,
        { reason: "TEMPLATE_REFUSED" },
      );
    }
    return this.encode(prompt);
  }

  /**
   * @param {readonly number[]} ids
   * @param {{signal: AbortSignal}} options
   */
  async append(ids, { signal }) {
    checkAppend(ids, this);
    this.#hasLogits = false;
    const { chunkTokens } = this.capabilities;
    for (let start = 0; start < ids.length; start += chunkTokens) {
      requireNotAborted(signal);
      const chunk = ids.slice(start, start + chunkTokens);
      const isLast = start + chunk.length === ids.length;
      await this.#call("decode", chunk, { skipLogits: !isLast });
      this.#held.push(...chunk);
    }
    this.#hasLogits = true;
  }

  async logits() {
    if (!this.#hasLogits) throw new InvalidRequest("no logits yet; append something first");
    const logits = new Float64Array(this.identity.vocabSize).fill(-Infinity);
    for (const { token, p } of await this.#call("getLogits", -1)) logits[token] = Math.log(p);
    return logits;
  }

  /** @param {number} tokens */
  async rewind(tokens) {
    checkRewind(tokens, this.#held.length);
    if (tokens === this.#held.length) return;
    this.#hasLogits = false;
    if (tokens === 0) await this.#call("kvClear");
    else await this.#call("kvRemove", tokens, -1);
    this.#held.length = tokens;
  }

  async close() {
    const wllama = this.#wllama;
    this.#wllama = null;
    await wllama?.exit();
  }

  /**
   * @param {string} method
   * @param {...any} parameters
   */
  async #call(method, ...parameters) {
    if (this.#wllama === null) {
      throw new InvalidRequest("the engine is closed; load another one", {
        reason: "ENGINE_CLOSED",
      });
    }
    try {
      return await this.#wllama[method](...parameters);
    } catch (error) {
      throw new InternalError(`llama.cpp failed in ${method}: ${error}`, {
        reason: "ENGINE_FAILED",
      });
    }
  }
}

/**
 * The identity is read from other files than the weights; both must be of one model.
 * @param {any} wllama
 * @param {import("../modelFiles.js").ModelFiles} files
 */
function requireSameWeights(wllama, { identity }) {
  const { hparams, meta } = wllama.getModelMetadata();
  if (meta[DIGEST_KEY] !== toHex(identity.weightsDigest) || hparams.nVocab !== identity.vocabSize) {
    throw new InvalidRequest(
      `${WEIGHTS_NAME} was made from other weights than segue_model.json says, or has another ` +
        "vocabulary; convert the model again",
      { reason: "MODEL_FILE_DAMAGED" },
    );
  }
}
