/**
 * The states of one answer on the device, and what every cloud message does in each;
 * the tables of `segue_device.state`.
 *
 * @typedef {"CONNECTING" | "CLOUD" | "CATCHING_UP" | "DEVICE" | "CLOUD_ONLY" | "DEVICE_ONLY" |
 *   "RECONNECTING" | "DONE" | "FAILED"} DeviceState
 * @typedef {"confirm" | "append" | "refine" | "discard" | "cloud_end" | "record_usage" | "warn" |
 *   "reconnect" | "lose" | "ignore" | "refuse"} Action
 */

import { InternalError } from "./errors.js";

/** @type {Record<DeviceState, readonly DeviceState[]>} */
const TRANSITIONS = {
  CONNECTING: ["CLOUD", "CATCHING_UP", "CLOUD_ONLY", "DEVICE", "DEVICE_ONLY", "DONE", "FAILED"],
  CLOUD: ["CATCHING_UP", "CLOUD_ONLY", "RECONNECTING", "DONE", "FAILED"],
  CATCHING_UP: ["DEVICE", "CLOUD_ONLY", "RECONNECTING", "DONE", "FAILED"],
  DEVICE: ["RECONNECTING", "DONE", "FAILED"],
  CLOUD_ONLY: ["RECONNECTING", "DONE", "FAILED"],
  RECONNECTING: ["CLOUD", "CATCHING_UP", "CLOUD_ONLY", "DEVICE", "DONE", "FAILED"],
  DEVICE_ONLY: ["RECONNECTING", "DONE", "FAILED"],
  DONE: [],
  FAILED: [],
};

/** @type {Record<string, Action>} */
const SILENT = { refinement: "ignore", progress: "ignore", heartbeat: "ignore" };
/** @type {Record<string, Action>} */
const CLOUD_WRITES = {
  ...SILENT,
  started: "refuse",
  tokens: "append",
  finish: "cloud_end",
  warning: "warn",
  lost: "reconnect",
};
/** @type {Record<string, Action>} */
const DEVICE_WRITES = {
  ...SILENT,
  started: "ignore",
  tokens: "discard",
  finish: "record_usage",
  warning: "warn",
  lost: "ignore",
};
/** @type {Record<string, Action>} */
const UNCONFIRMED = {
  ...SILENT,
  started: "confirm",
  tokens: "refuse",
  finish: "refuse",
  warning: "warn",
};

/** @type {Record<DeviceState, Record<string, Action>>} */
const ACTIONS = {
  CONNECTING: { ...UNCONFIRMED, lost: "lose" },
  RECONNECTING: { ...UNCONFIRMED, lost: "reconnect" },
  CLOUD: { ...CLOUD_WRITES, refinement: "refine" },
  CATCHING_UP: CLOUD_WRITES,
  CLOUD_ONLY: CLOUD_WRITES,
  DEVICE: DEVICE_WRITES,
  DEVICE_ONLY: DEVICE_WRITES,
  DONE: { ...DEVICE_WRITES, warning: "ignore" },
  FAILED: { ...DEVICE_WRITES, warning: "ignore" },
};

/**
 * What a message does; "lost" is none: the stream broke or ended early.
 * @param {DeviceState} state
 * @param {string} message
 * @returns {Action}
 */
export function actionOf(state, message) {
  return ACTIONS[state][message] ?? "refuse";
}

/** @param {DeviceState} state */
export function isOver(state) {
  return TRANSITIONS[state].length === 0;
}

/**
 * Throws InternalError on a transition the table does not allow.
 * @param {DeviceState} from
 * @param {DeviceState} to
 */
export function requireTransition(from, to) {
  if (!TRANSITIONS[from].includes(to)) {
    throw new InternalError(`illegal device state change ${from} -> ${to}`);
  }
}
