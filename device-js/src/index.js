/** The public names. */

export { Client } from "./client.js";
export {
  Aborted,
  Cancelled,
  ContextTooLong,
  DeadlineExceeded,
  IdentityMismatch,
  InternalError,
  InvalidRequest,
  NotFound,
  OutOfRange,
  Overloaded,
  PermissionDenied,
  ProtocolError,
  SegueError,
  TransferError,
  Unauthenticated,
  Unavailable,
  Unsupported,
} from "./errors.js";
export { ModelStore } from "./modelStore.js";
export { MODES } from "./modes.js";
export { measureProfile } from "./profile.js";
export { DeviceProfile } from "./timeline.js";
export { WebSocketTransport } from "./webSocketTransport.js";
