/** The cloud over WebSocket: every stream is a connection of its own. */

import { InvalidRequest, ProtocolError, Unavailable } from "./errors.js";
import {
  GENERATE_PATH,
  SUBPROTOCOL,
  bearerSubprotocol,
  decodeResponse,
  encodeRequest,
  fromClose,
} from "./frames.js";

/**
 * @typedef {object} CloudStream the device's end of one `Generate` stream
 * @property {(message: import("./frames.js").Message) => void} send throws Unavailable once it
 *   is over
 * @property {() => Promise<import("./frames.js").Response | null>} receive null after an orderly
 *   end; throws the cloud's error
 * @property {() => void} close
 */

/**
 * @typedef {object} Transport
 * @property {() => Promise<CloudStream>} open throws Unavailable when nobody answers
 */

const LOOPBACK = /^(localhost|127(\.\d{1,3}){3}|\[::1\])$/;

/** Connections to `url`, ws://host:port or wss://host:port, a path before Segue's own allowed. */
export class WebSocketTransport {
  #url;
  #protocols;
  #WebSocket;

  /**
   * `token` is shown to a cloud that asks for one. `insecure` allows plain text to
   * other hosts than loopback, on a network that encrypts by itself. `WebSocket` is
   * the browser's own unless a program without one passes another.
   * @param {string} url
   * @param {{token?: string, insecure?: boolean, WebSocket?: any}} [options]
   */
  constructor(url, { token = "", insecure = false, WebSocket = globalThis.WebSocket } = {}) {
    const { protocol, hostname, search, hash } = parse(url);
    if (!["ws:", "wss:"].includes(protocol) || search || hash) {
      throw new InvalidRequest(
        `cloud address '${url}', expected ws://host:port or wss://host:port`,
      );
    }
    if (protocol === "ws:" && !insecure && !LOOPBACK.test(hostname)) {
      throw new InvalidRequest(
        `'${url}' is plain text to a host that is not loopback; use wss://, or say ` +
          "insecure: true on a network that encrypts by itself",
      );
    }
    this.#url = url.replace(/\/+$/, "") + GENERATE_PATH;
    this.#protocols = token ? [SUBPROTOCOL, bearerSubprotocol(token)] : [SUBPROTOCOL];
    this.#WebSocket = WebSocket;
  }

  /** @returns {Promise<CloudStream>} */
  open() {
    const socket = new this.#WebSocket(this.#url, this.#protocols);
    const stream = new WebSocketStream(socket);
    return new Promise((resolve, reject) => {
      socket.addEventListener("open", () => resolve(stream));
      // A browser does not tell why a handshake failed; nothing listens to a late call.
      socket.addEventListener("close", () => {
        reject(new Unavailable(`no cloud answers at ${this.#url}`));
      });
    });
  }
}

class WebSocketStream {
  #socket;
  /** @type {(import("./frames.js").Response | null | Error)[]} */
  #received = [];
  #wake = () => {};
  #over = false;

  /** @param {any} socket */
  constructor(socket) {
    this.#socket = socket;
    socket.addEventListener("message", (/** @type {MessageEvent} */ { data }) => this.#take(data));
    socket.addEventListener("close", (/** @type {CloseEvent} */ { code, reason }) => {
      this.#end(fromClose(code, reason));
    });
    socket.addEventListener("error", () => {}); // `close` follows and says more
  }

  /** @param {import("./frames.js").Message} message */
  send(message) {
    const frame = encodeRequest(message);
    if (this.#over) throw new Unavailable("the stream has ended", { reason: "STREAM_ENDED" });
    this.#socket.send(frame);
  }

  async receive() {
    while (this.#received.length === 0) {
      await new Promise((resolve) => {
        this.#wake = () => resolve(null);
      });
    }
    const first = this.#received[0];
    const isEnd = first === null || first instanceof Error;
    if (!isEnd) this.#received.shift(); // an end stays: it is the answer to every later call
    if (first instanceof Error) throw first;
    return first;
  }

  close() {
    this.#end(new Unavailable("the stream was closed", { reason: "CLOSED" }));
    this.#socket.close();
  }

  /** @param {unknown} data */
  #take(data) {
    if (this.#over) return;
    try {
      this.#received.push(decodeResponse(data));
      this.#wake();
    } catch (error) {
      if (error instanceof ProtocolError) this.#socket.close();
      this.#end(/** @type {Error} */ (error));
    }
  }

  /** @param {Error | null} how the first end counts */
  #end(how) {
    if (this.#over) return;
    this.#over = true;
    this.#received.push(how);
    this.#wake();
  }
}

/** @param {string} url */
function parse(url) {
  try {
    return new URL(url);
  } catch {
    throw new InvalidRequest(`cloud address '${url}' is no URL, expected ws://host:port`);
  }
}
