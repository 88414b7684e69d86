/** Model files in the browser: fetched once, checked against their SHA-256, kept in its cache. */

import { InvalidRequest, NotFound, ProtocolError, Unavailable } from "./errors.js";
import { Sha256, toHex } from "./sha256.js";

/** As `segue index DIRECTORY` writes it beside the files. */
const LISTING_NAME = "segue_files.json";
const LISTING_FORMAT = 1;
const MAX_TRIES = 5;

/**
 * @typedef {object} ListedFile
 * @property {string} path
 * @property {number} size_bytes
 * @property {string} sha256
 *
 * @typedef {(doneBytes: number, totalBytes: number) => void} OnProgress
 */

/** Files of one model directory on a web server that carries a `segue_files.json`. */
export class ModelStore {
  #base;
  #cacheName;
  #fetch;
  /** @type {Promise<ReadonlyMap<string, ListedFile>> | null} */
  #listing = null;

  /**
   * @param {string} url of the directory, on the page's own server or one that allows it
   * @param {{cacheName?: string, fetch?: typeof globalThis.fetch}} [options]
   */
  constructor(url, { cacheName = "segue-models", fetch = globalThis.fetch } = {}) {
    this.#base = new URL(url.endsWith("/") ? url : `${url}/`, globalThis.location?.href);
    this.#cacheName = cacheName;
    this.#fetch = fetch.bind(globalThis);
  }

  /** @param {string} path whether the directory has such a file */
  async has(path) {
    return (await this.#list()).has(path);
  }

  /**
   * A file as JSON.
   * @param {string} path
   */
  async json(path) {
    return JSON.parse(await this.text(path));
  }

  /** @param {string} path a file as text */
  async text(path) {
    return (await this.blob(path)).text();
  }

  /**
   * A file, from the browser's cache or, once, from the server. Throws NotFound when it is
   * not listed, Unavailable when the server does not deliver, ProtocolError when what it
   * delivers is something else: nothing of that is kept.
   * @param {string} path
   * @param {OnProgress} [onProgress]
   */
  async blob(path, onProgress = () => {}) {
    const listed = (await this.#list()).get(path);
    if (listed === undefined) {
      throw new NotFound(`${this.#base} lists no file '${path}'; convert the model again`, {
        reason: "MODEL_FILE_MISSING",
      });
    }
    const cache = await globalThis.caches?.open(this.#cacheName);
    // Content is the key: a file that has changed on the server is another one.
    const key = new URL(path, this.#base);
    key.searchParams.set("sha256", listed.sha256);
    const kept = await cache?.match(key);
    if (kept !== undefined) return kept.blob();
    const blob = await this.#download(listed, onProgress);
    await cache?.put(key, new Response(blob));
    return blob;
  }

  async #list() {
    this.#listing ??= this.#readListing();
    return this.#listing;
  }

  async #readListing() {
    const url = new URL(LISTING_NAME, this.#base);
    const response = await this.#get(url, {});
    const { format, files } = await response.json();
    if (format !== LISTING_FORMAT || !Array.isArray(files)) {
      throw new InvalidRequest(`${url} is no list of files; write it with segue index`, {
        reason: "BAD_LISTING",
      });
    }
    return new Map(files.map((/** @type {ListedFile} */ file) => [file.path, file]));
  }

  /**
   * The whole file; where the connection breaks it goes on with the rest.
   * @param {ListedFile} listed
   * @param {OnProgress} onProgress
   */
  async #download({ path, size_bytes: totalBytes, sha256 }, onProgress) {
    const url = new URL(path, this.#base);
    /** @type {Uint8Array<ArrayBuffer>[]} */
    let parts = [];
    let hash = new Sha256();
    let doneBytes = 0;
    for (let tries = 1; doneBytes < totalBytes; tries++) {
      const headers = doneBytes > 0 ? { Range: `bytes=${doneBytes}-` } : undefined;
      const response = await this.#get(url, { headers });
      if (response.status !== 206) [parts, hash, doneBytes] = [[], new Sha256(), 0];
      try {
        for await (const part of chunksOf(response)) {
          parts.push(part);
          hash.update(part);
          doneBytes += part.length;
          onProgress(doneBytes, totalBytes);
        }
        if (doneBytes < totalBytes) throw new TypeError("the body ended early");
      } catch (error) {
        if (tries === MAX_TRIES) {
          throw new Unavailable(
            `${url} broke off ${tries} times, last at ${doneBytes} of ${totalBytes} bytes: ` +
              `${error}; check the network`,
            { reason: "DOWNLOAD_BROKEN" },
          );
        }
      }
    }
    if (doneBytes !== totalBytes || toHex(hash.digest()) !== sha256) {
      throw new ProtocolError(
        `${url} is not the file that ${LISTING_NAME} names (size or SHA-256 differ); nothing of ` +
          "it was kept: run segue index again where it is served from",
        { reason: "DIGEST_MISMATCH" },
      );
    }
    return new Blob(parts);
  }

  /**
   * @param {URL} url
   * @param {RequestInit} options
   */
  async #get(url, options) {
    let response;
    try {
      response = await this.#fetch(url, options);
    } catch (error) {
      throw new Unavailable(`${url} cannot be fetched: ${error}`);
    }
    if (!response.ok) {
      const Kind = response.status >= 500 ? Unavailable : NotFound;
      throw new Kind(`${url} answered HTTP ${response.status}`, {
        reason: `HTTP_${response.status}`,
      });
    }
    return response;
  }
}

/**
 * @param {Response} response
 * @returns {AsyncGenerator<Uint8Array<ArrayBuffer>>}
 */
async function* chunksOf(response) {
  const reader = response.body?.getReader();
  for (;;) {
    const read = await reader?.read();
    if (read === undefined || read.done) return;
    yield read.value;
  }
}
