/**
 * What an app sees of one answer: plain objects, told apart by `type`, with the
 * names of the Python SDK's events.
 *
 * @typedef {import("./tokenLog.js").Source} Source
 * @typedef {"stop" | "length" | "cancelled"} FinishReason
 *
 * @typedef {{type: "started", generationId: string, promptTokens: number,
 *   creditThrough: number, cloudTokens: number}} Started the cloud has taken the request;
 *   `cloudTokens` is its advice for N
 * @typedef {{type: "token", index: number | null, tokenId: number | null, text: string,
 *   source: Source, logprob: number | null}} Token at its paced moment; `text` may be empty or
 *   belong to earlier ids too, `index` is null for text held back until the end
 * @typedef {{type: "prefill_progress", doneTokens: number, totalTokens: number}} PrefillProgress
 * @typedef {{type: "takeover", index: number, early: boolean}} Takeover from `index` on the
 *   device writes; early: before the credit was used
 * @typedef {{type: "reconnecting", reason: string}} Reconnecting
 * @typedef {{type: "resumed", nextIndex: number}} Resumed the stream goes on
 * @typedef {{type: "fallback", reason: string}} Fallback one side is gone, the other goes on
 * @typedef {{type: "warning", code: string, message: string}} Warning
 * @typedef {{type: "done", result: import("./result.js").Result}} Done always the last event of
 *   an answer that did not fail
 *
 * @typedef {Started | Token | PrefillProgress | Takeover | Reconnecting | Resumed | Fallback |
 *   Warning | Done} Event
 */
export {};
