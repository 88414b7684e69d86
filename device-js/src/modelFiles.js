/** What a converted model directory says about its model; the reading of `identity.py`. */

import { InvalidRequest, NotFound } from "./errors.js";
import { sha256 } from "./sha256.js";
import { Vocabulary } from "./vocabulary.js";

const SPECIAL_TOKENS = ["bos_token", "eos_token", "pad_token", "unk_token"];

/**
 * @typedef {object} ModelFiles
 * @property {import("./identity.js").ModelIdentity} identity
 * @property {Vocabulary} vocabulary
 * @property {string | null} template Jinja source; null: the model has none
 * @property {Record<string, string>} specialTokens handed to the template by name
 * @property {number} maxContextTokens
 */

/**
 * Throws NotFound or InvalidRequest naming the file that is missing or damaged.
 * @param {import("./modelStore.js").ModelStore} store
 * @returns {Promise<ModelFiles>}
 */
export async function readModelFiles(store) {
  const manifest = await store.json("segue_model.json");
  const tokenizer = await store.json("tokenizer.json");
  const { vocab_size: vocabSize } = await store.json("config.json");
  const settings = await optionalJson(store, "tokenizer_config.json");
  if (manifest.format !== 1 || !(vocabSize >= 1)) {
    throw new InvalidRequest(
      `segue_model.json has format ${manifest.format}, config.json a vocabulary of ${vocabSize}; ` +
        "expected format 1 and a positive number: convert the model again",
      { reason: "MODEL_FILE_DAMAGED" },
    );
  }
  const template = await readTemplate(store, settings);
  const vocabulary = Vocabulary.fromTokenizerJson(tokenizer);
  const named = SPECIAL_TOKENS.filter((name) => settings[name]);
  return {
    vocabulary,
    template,
    specialTokens: Object.fromEntries(named.map((name) => [name, contentOf(settings[name])])),
    maxContextTokens: manifest.max_context_tokens,
    identity: {
      model: manifest.model,
      vocabSize,
      vocabularyDigest: vocabulary.digest(),
      specialTokenIds: [...vocabulary.specialIds].sort((a, b) => a - b),
      stopTokenIds: await readStopTokenIds(store),
      mergesDigest: mergesDigest(tokenizer),
      templateDigest: template === null ? new Uint8Array() : digestOf(template),
      weightsDigest: fromHex(manifest.weights_digest),
      numerics: manifest.numerics,
    },
  };
}

/**
 * Over all that turns text into ids beside the vocabulary.
 * @param {any} tokenizer
 */
export function mergesDigest(tokenizer) {
  const merges = tokenizer.model.merges ?? [];
  // Two spellings of one merge exist: "a b" and ["a", "b"].
  const pairs = merges.map((/** @type {any} */ merge) =>
    typeof merge === "string" ? splitOnce(merge) : merge,
  );
  return digestOf(
    pythonJson([pairs, tokenizer.pre_tokenizer ?? null, tokenizer.normalizer ?? null]),
  );
}

/** @param {string} merge */
function splitOnce(merge) {
  const at = merge.indexOf(" ");
  return at < 0 ? [merge] : [merge.slice(0, at), merge.slice(at + 1)];
}

/**
 * The text that Python's `json.dumps(value, sort_keys=True)` gives, which is what is hashed.
 * @param {any} value
 * @returns {string}
 */
function pythonJson(value) {
  if (Array.isArray(value)) return `[${value.map(pythonJson).join(", ")}]`;
  if (typeof value === "object" && value !== null) {
    const names = Object.keys(value).sort();
    return `{${names.map((name) => `${pythonJson(name)}: ${pythonJson(value[name])}`).join(", ")}}`;
  }
  const escape = (/** @type {string} */ unit) => unit.charCodeAt(0).toString(16).padStart(4, "0");
  return JSON.stringify(value).replace(/[\u007f-\uffff]/g, (unit) => `\\u${escape(unit)}`);
}

/**
 * @param {import("./modelStore.js").ModelStore} store
 * @param {any} settings
 * @returns {Promise<string | null>}
 */
async function readTemplate(store, settings) {
  if (await store.has("chat_template.jinja")) return store.text("chat_template.jinja");
  const found = settings.chat_template ?? null;
  if (!Array.isArray(found)) return found;
  return found.find((each) => each.name === "default")?.template ?? null;
}

/** @param {import("./modelStore.js").ModelStore} store */
async function readStopTokenIds(store) {
  for (const name of ["generation_config.json", "config.json"]) {
    const found = (await optionalJson(store, name)).eos_token_id ?? [];
    const ids = /** @type {number[]} */ ([found].flat());
    if (ids.length > 0) return [...new Set(ids)].sort((a, b) => a - b);
  }
  throw new NotFound(
    "no eos_token_id in generation_config.json or config.json; an answer could never end: add one",
    { reason: "MODEL_FILE_MISSING" },
  );
}

/**
 * @param {import("./modelStore.js").ModelStore} store
 * @param {string} path
 */
async function optionalJson(store, path) {
  return (await store.has(path)) ? store.json(path) : {};
}

/** @param {any} token spelled as text or as an object with `content` */
function contentOf(token) {
  return typeof token === "string" ? token : token.content;
}

/** @param {string} text */
function digestOf(text) {
  return sha256(new TextEncoder().encode(text));
}

/** @param {string} text */
function fromHex(text) {
  return Uint8Array.from(text.match(/../g) ?? [], (pair) => parseInt(pair, 16));
}
