/**
 * Every error a user of Segue can meet: the tree, codes and reasons of
 * `segue_protocol.errors`.
 *
 * `reason` is a stable upper-case word for programs, `param` the name of the
 * option at fault where there is one. An error that ends an answer carries the
 * token ids made so far in `partial`.
 */

/** The names of gRPC's status codes; a name's place is its number. */
export const CODES = [
  "OK",
  "CANCELLED",
  "UNKNOWN",
  "INVALID_ARGUMENT",
  "DEADLINE_EXCEEDED",
  "NOT_FOUND",
  "ALREADY_EXISTS",
  "PERMISSION_DENIED",
  "RESOURCE_EXHAUSTED",
  "FAILED_PRECONDITION",
  "ABORTED",
  "OUT_OF_RANGE",
  "UNIMPLEMENTED",
  "INTERNAL",
  "UNAVAILABLE",
  "DATA_LOSS",
  "UNAUTHENTICATED",
];

/**
 * @typedef {object} Details
 * @property {string} [reason] the class's own if absent or empty
 * @property {number | null} [retryAfterS] when to ask again; null where waiting does not help
 * @property {string | null} [param]
 */

/** Root of the tree; never thrown itself. */
export class SegueError extends Error {
  static code = "UNKNOWN";
  static defaultReason = "UNKNOWN";
  static retryable = false;

  /**
   * @param {string} message what is wrong, what was expected, what to do
   * @param {Details} [details]
   */
  constructor(message, { reason, retryAfterS = null, param = null } = {}) {
    super(message);
    const kind = /** @type {typeof SegueError} */ (new.target);
    this.name = kind.name;
    this.code = kind.code;
    this.retryable = kind.retryable;
    this.reason = reason || kind.defaultReason;
    this.retryAfterS = retryAfterS;
    this.param = param;
    /** @type {number[]} */
    this.partial = [];
  }
}

/** The request contradicts its contract; sending it again changes nothing. */
export class InvalidRequest extends SegueError {
  static code = "INVALID_ARGUMENT";
  static defaultReason = "INVALID_REQUEST";
}

/** An index or a length lies outside what exists. */
export class OutOfRange extends SegueError {
  static code = "OUT_OF_RANGE";
  static defaultReason = "OUT_OF_RANGE";
}

/** Prompt and answer do not fit the model's context. */
export class ContextTooLong extends OutOfRange {
  static defaultReason = "CONTEXT_TOO_LONG";
}

/** The two models may not share a log; the message names the factor. */
export class IdentityMismatch extends SegueError {
  static code = "FAILED_PRECONDITION";
  static defaultReason = "TOKENIZER_MISMATCH";
}

/** A valid wish this build cannot fulfil. */
export class Unsupported extends SegueError {
  static code = "UNIMPLEMENTED";
  static defaultReason = "UNSUPPORTED";
}

/** No such model or generation here. */
export class NotFound extends SegueError {
  static code = "NOT_FOUND";
  static defaultReason = "NOT_FOUND";
}

/** No credentials, or unknown ones. */
export class Unauthenticated extends SegueError {
  static code = "UNAUTHENTICATED";
  static defaultReason = "UNAUTHENTICATED";
}

/** Known, but not allowed. */
export class PermissionDenied extends SegueError {
  static code = "PERMISSION_DENIED";
  static defaultReason = "PERMISSION_DENIED";
}

/** Ended by a newer stream of the same generation or by a worker's end. */
export class Aborted extends SegueError {
  static code = "ABORTED";
  static defaultReason = "ABORTED";
}

/** The caller ended it. */
export class Cancelled extends SegueError {
  static code = "CANCELLED";
  static defaultReason = "CANCELLED";
}

/** Everything is busy; `retryAfterS` says when to ask again. */
export class Overloaded extends SegueError {
  static code = "RESOURCE_EXHAUSTED";
  static defaultReason = "OVERLOADED";
  static retryable = true;
}

/** Nobody there: no worker, no gateway, or a connection that broke. */
export class Unavailable extends SegueError {
  static code = "UNAVAILABLE";
  static defaultReason = "UNAVAILABLE";
  static retryable = true;
}

/** A named time budget ran out. */
export class DeadlineExceeded extends SegueError {
  static code = "DEADLINE_EXCEEDED";
  static defaultReason = "DEADLINE_EXCEEDED";
  static retryable = true;
}

/** A KV transfer was stale, corrupt or of another layout; nothing of it is used. */
export class TransferError extends SegueError {
  static code = "DATA_LOSS";
  static defaultReason = "KV_TRANSFER";
  static retryable = true;
}

/** A bug or a broken peer. */
export class InternalError extends SegueError {
  static code = "INTERNAL";
  static defaultReason = "INTERNAL";
}

/** The peer sent what the protocol does not allow at this point. */
export class ProtocolError extends InternalError {
  static defaultReason = "PROTOCOL";
}

// A parent before its children, as `fromCode` needs it.
const KINDS = [
  InvalidRequest,
  OutOfRange,
  ContextTooLong,
  IdentityMismatch,
  Unsupported,
  NotFound,
  Unauthenticated,
  PermissionDenied,
  Aborted,
  Cancelled,
  Overloaded,
  Unavailable,
  DeadlineExceeded,
  TransferError,
  InternalError,
  ProtocolError,
];

/**
 * The error that belongs to a status code and reason. Two classes may share a
 * code; the one whose default reason matches wins. An unknown code becomes an
 * InternalError.
 * @param {string} code
 * @param {string} message
 * @param {Details} [details]
 * @returns {SegueError}
 */
export function fromCode(code, message, details = {}) {
  const sharing = KINDS.filter((kind) => kind.code === code);
  const exact = sharing.find((kind) => kind.defaultReason === details.reason);
  const Kind = exact ?? sharing[0] ?? InternalError;
  return new Kind(message, details);
}

/**
 * Unknown options are refused, never dropped.
 * @param {object} given
 * @param {readonly string[]} known
 * @param {string} what
 */
export function requireKnown(given, known, what) {
  const odd = Object.keys(given).filter((name) => !known.includes(name));
  if (odd.length > 0) {
    throw new InvalidRequest(
      `${what} got the unknown option ${odd.join(", ")}; expected ${known.join(", ")}`,
      { param: odd[0] },
    );
  }
}
