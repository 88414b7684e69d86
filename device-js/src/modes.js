/** Where an answer may run, decided before anything is opened or sent. */

import { InvalidRequest, Unsupported } from "./errors.js";

/**
 * @typedef {"split" | "prefer_on_device" | "prefer_in_cloud" | "only_on_device" |
 *   "only_in_cloud"} Mode what an app asks for, as in the Python SDK
 */

/** @type {readonly Mode[]} */
export const MODES = [
  "split",
  "prefer_on_device",
  "prefer_in_cloud",
  "only_on_device",
  "only_in_cloud",
];

/**
 * Which sides take part; `standby`: the device only once the cloud is lost.
 * Throws Unsupported, with a reason, when the mode cannot be had.
 * @param {Mode} mode
 * @param {{hasDevice: boolean, hasCloud: boolean}} situation
 */
export function plan(mode, { hasDevice, hasCloud }) {
  if (!MODES.includes(mode)) {
    throw new InvalidRequest(`mode '${mode}', expected one of ${MODES.join(", ")}`, {
      param: "mode",
    });
  }
  const needsCloud = mode === "only_in_cloud" || (mode === "prefer_in_cloud" && !hasDevice);
  const needsDevice = mode === "only_on_device" || mode === "split";
  if (needsCloud && !hasCloud) {
    throw new Unsupported(
      `this client has no cloud, which ${mode} needs; pass \`cloud\`, or use only_on_device`,
      { reason: "NO_CLOUD" },
    );
  }
  if (!hasDevice && (needsDevice || !hasCloud)) {
    throw new Unsupported(
      `this client has no engine, which ${mode} needs; pass \`engine\`, or use only_in_cloud`,
      { reason: "NO_DEVICE_MODEL" },
    );
  }
  const alone = mode === "only_on_device" || mode === "prefer_on_device";
  return {
    device: hasDevice && !needsCloud,
    cloud: hasCloud && !(alone && hasDevice),
    standby: hasDevice && hasCloud && mode === "prefer_in_cloud",
  };
}
