/**
 * The WebSocket form of the messages, without sockets: one JSON text a frame, the
 * protobuf JSON mapping (`segue.v1.json`). It loses nothing: 64-bit numbers are
 * decimal text, bytes are base64, doubles read back as the same double.
 */

import { CODES, InvalidRequest, ProtocolError, Unavailable, fromCode } from "./errors.js";

export const SUBPROTOCOL = "segue.v1.json";
export const GENERATE_PATH = "/segue/v1/generate";

const BEARER_PREFIX = "segue.bearer.";
const MAX_MESSAGE_BYTES = 16 * 2 ** 20;
const TOO_LARGE = "MESSAGE_TOO_LARGE";
const MALFORMED = "MALFORMED_FRAME";
const ERROR_BASE = 4400;
const CLOSE = { normal: 1000, protocol: 1002, none: 1005, lost: 1006, text: 1007, tooBig: 1009 };

/**
 * @typedef {Record<string, any>} Message a `GenerateRequest`: one field, named after its kind
 */

/**
 * @typedef {object} Response
 * @property {string} kind started, refinement, tokens, progress, finish, heartbeat, warning,
 *   or "nameless" for what this build does not know
 * @property {any} body the message's fields; a field at its default may be absent
 */

const KINDS = ["started", "refinement", "tokens", "progress", "finish", "heartbeat", "warning"];

/**
 * Throws InvalidRequest when the frame is too large.
 * @param {Message} message
 */
export function encodeRequest(message) {
  const frame = JSON.stringify(message);
  const bytes = new TextEncoder().encode(frame).length;
  if (bytes > MAX_MESSAGE_BYTES) {
    throw new InvalidRequest(
      `a message has ${bytes} bytes, expected at most ${MAX_MESSAGE_BYTES}; shorten the prompt`,
      { reason: TOO_LARGE },
    );
  }
  return frame;
}

/**
 * Throws the error that an error frame carries, ProtocolError on a malformed frame.
 * @param {unknown} frame
 * @returns {Response}
 */
export function decodeResponse(frame) {
  if (typeof frame !== "string") {
    throw new ProtocolError(`a binary frame came over ${SUBPROTOCOL}`, { reason: MALFORMED });
  }
  let decoded;
  try {
    decoded = JSON.parse(frame);
  } catch (error) {
    throw new ProtocolError(`a text is no StreamFrame: ${error}`, { reason: MALFORMED });
  }
  if (decoded?.error) {
    const { code = "", message = "", reason = "", retryAfterS = null } = decoded.error;
    throw fromCode(code, message, { reason, retryAfterS });
  }
  const body = decoded?.response;
  if (typeof body !== "object" || body === null) {
    throw new ProtocolError("a frame holds neither a response nor an error", { reason: MALFORMED });
  }
  const kind = KINDS.find((name) => name in body) ?? "nameless";
  if (kind === "tokens") requireIds(body.tokens);
  return { kind, body: body[kind] ?? {} };
}

/** @param {any} tokens */
function requireIds({ index = 0, ids = [] }) {
  const numbers = [index, ...ids];
  const odd = numbers.find((each) => !Number.isInteger(each) || each < 0 || each > 0xffffffff);
  if (odd !== undefined) {
    throw new ProtocolError(`a tokens message holds ${odd}, expected whole 32-bit numbers`, {
      reason: MALFORMED,
    });
  }
}

/**
 * What a connection that closed without an error frame means; null after an orderly end.
 * @param {number} code
 * @param {string} reason
 */
export function fromClose(code, reason) {
  if (code === CLOSE.normal) return null;
  if (code === CLOSE.tooBig) {
    return new InvalidRequest(`the cloud refused a message as too large: ${reason}`, {
      reason: TOO_LARGE,
    });
  }
  if (code === CLOSE.protocol || code === CLOSE.text) {
    return new ProtocolError(`the cloud refused what it was sent: ${reason}`, {
      reason: MALFORMED,
    });
  }
  if (code > ERROR_BASE && code < ERROR_BASE + CODES.length) {
    return fromCode(CODES[code - ERROR_BASE], `the cloud ended the stream: ${reason}`, { reason });
  }
  const isLost = code === CLOSE.lost || code === CLOSE.none;
  const how = isLost ? "was lost" : `ended with close code ${code}`;
  const why = reason ? `: ${reason}` : "";
  return new Unavailable(`the connection to the cloud ${how}${why}`, { reason: "CONNECTION_LOST" });
}

/**
 * What a page, which cannot set headers, offers to show a token.
 * @param {string} token
 */
export function bearerSubprotocol(token) {
  const text = toBase64(new TextEncoder().encode(token));
  return BEARER_PREFIX + text.replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

/** @param {Uint8Array} bytes */
export function toBase64(bytes) {
  return btoa(String.fromCharCode(...bytes));
}
