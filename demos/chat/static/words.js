// Every sentence and number that the page says about an answer.

import { CLOUD, DEVICE, slotSaved } from "./story.js";

export const MODES = {
  split: "Split: cloud, then device",
  only_on_device: "Device only",
  only_in_cloud: "Cloud only",
  prefer_on_device: "Device, cloud only without one",
  prefer_in_cloud: "Cloud, device if that is lost",
};
export const SHORT_MODES = {
  split: "Split",
  only_on_device: "Device only",
  only_in_cloud: "Cloud only",
  prefer_on_device: "Device preferred",
  prefer_in_cloud: "Cloud preferred",
};
export const WRITERS = { [CLOUD]: "The cloud", [DEVICE]: "The device" };

export const seconds = (value) =>
  value === null || value === undefined ? "–" : `${value.toFixed(value < 9.95 ? 2 : 1)} s`;
export const percent = (share) => `${Math.round(share * 100)} %`;
export const tokens = (count) => `${count} ${count === 1 ? "token" : "tokens"}`;

/** One sentence on where an answer is now. */
export function situation(story, mode) {
  if (story.error) return `It ended with an error: ${story.error.message}`;
  if (story.result) return ending(story.result);
  if (!story.connected && !story.takeover) return "The network is gone; the device goes on as soon as it can.";
  if (story.takeover) return "The device writes; the cloud's slot is free for others.";
  const own = mode === "only_in_cloud" ? "" : `; the device has read ${percent(story.prefill)} of the prompt`;
  if (!story.shown) return mode === "only_on_device" ? `Waiting for the device${own}.` : `Waiting for the first token${own}.`;
  const last = story.bySource[DEVICE] ? DEVICE : CLOUD;
  return last === DEVICE ? "The device writes." : `The cloud writes${own}.`;
}

function ending(result) {
  const how = { stop: "Complete", length: "Ended at the chosen length", cancelled: "Stopped" };
  const { cloudTokens, deviceTokens } = result.usage;
  const who =
    cloudTokens && deviceTokens
      ? `${tokens(cloudTokens)} from the cloud, then ${deviceTokens} from the device`
      : `${tokens(cloudTokens || deviceTokens)}, all from the ${cloudTokens ? "cloud" : "device"}`;
  return cloudTokens + deviceTokens ? `${how[result.finishReason]}: ${who}.` : `${how[result.finishReason]} before the first token.`;
}

/** What a takeover is called, in the text and to a screen reader. */
export function takeoverWords({ index, early }) {
  if (index === 0) return "the device was ready before the cloud’s first token";
  return early ? "from here on: the device, earlier than planned" : "from here on: the device";
}

/** An event that a reader should know of beside the text; null for the others. */
export function note(event) {
  switch (event.type) {
    case "reconnecting":
      return `The connection broke and is tried again: ${event.reason}.`;
    case "resumed":
      return `The connection is back, from token ${event.nextIndex} on.`;
    case "fallback":
      return `One side goes on without the other: ${event.reason}.`;
    case "refinement":
      return `Of the prompt’s ${tokens(event.promptTokens)} the cloud found ${event.keptTokens} worth reading; the device reads only those.`;
    case "warning":
      return `Warning ${event.code}: ${event.message}`;
    default:
      return null;
  }
}

/** The figures of a finished answer: [name, value, explanation or null]. */
export function figures(result) {
  const { usage, timings } = result;
  const rows = [
    ["First token", seconds(timings.ttftS), null],
    ["Cloud", tokens(usage.cloudTokens), null],
    ["Device", tokens(usage.deviceTokens), null],
    ["Pace", timings.tpotS ? `${(1 / timings.tpotS).toFixed(1)} tok/s` : "–", null],
    ["Longest gap", seconds(timings.maxGapS), null],
    ["Stalls over 250 ms", String(timings.stalls), null],
  ];
  const known = usage.cachedTokens ? `, ${usage.cachedTokens} from before` : "";
  const read = usage.keptTokens != null ? `, ${usage.keptTokens} read` : "";
  rows.push(["Prompt", tokens(usage.promptTokens) + known + read, null]);
  const saved = slotSaved(result);
  if (saved) {
    rows.push([
      "Cloud slot time saved",
      `${seconds(saved.savedS)} of ${seconds(saved.aloneS)}`,
      `Computed: the cloud held a place in its batch for ${seconds(result.cloud.slotS)}, ` +
        `${(saved.perTokenS * 1e3).toFixed(1)} ms for each of its tokens after the first; at that speed ` +
        `the whole answer would have held it for ${seconds(saved.aloneS)}.`,
    ]);
  } else if (usage.deviceTokens) {
    rows.push(["Cloud slot time saved", usage.cloudTokens ? "not known" : "all of it", savedNothingWhy(result)]);
  }
  return rows;
}

function savedNothingWhy({ cloud, usage }) {
  if (!usage.cloudTokens) return "The cloud made no token of this answer and gave it no place in its batch.";
  if (!cloud) return "The cloud’s own account of this answer did not arrive.";
  return "The cloud made too few tokens of this answer to tell its time per token.";
}
