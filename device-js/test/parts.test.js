/** Small parts that no vector holds. */

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { test } from "node:test";

import { budgetsOf, nextDeadline } from "../src/budgets.js";
import { Display } from "../src/display.js";
import { NotFound, Unavailable, fromCode } from "../src/errors.js";
import { kthLargest } from "../src/kthLargest.js";
import { plan } from "../src/modes.js";
import { pacingOf } from "../src/pacing.js";
import * as segue from "../src/index.js";
import { Reconnect } from "../src/reconnect.js";
import { sha256, toHex } from "../src/sha256.js";
import { DeviceProfile } from "../src/timeline.js";
import { TokenLog } from "../src/tokenLog.js";

test("the public names", () => {
  const errors = [
    "SegueError", "InvalidRequest", "OutOfRange", "ContextTooLong", "IdentityMismatch",
    "Unsupported", "NotFound", "Unauthenticated", "PermissionDenied", "Aborted", "Cancelled",
    "Overloaded", "Unavailable", "DeadlineExceeded", "TransferError", "InternalError",
    "ProtocolError",
  ];
  const others = [
    "Client", "DeviceProfile", "MODES", "ModelStore", "WebSocketTransport", "measureProfile",
  ];
  assert.deepEqual(Object.keys(segue), [...errors, ...others].sort());
});

test("the k-th largest is the one of a sort", () => {
  let state = 5;
  const draw = (below) => (state = (state * 48271) % 2147483647) % below;
  for (let round = 0; round < 300; round++) {
    const values = Float64Array.from({ length: 1 + draw(40) }, () => draw(12) - 6);
    const count = 1 + draw(values.length);
    const sorted = values.slice().sort().reverse();
    assert.equal(kthLargest(values, count), sorted[count - 1]);
  }
});

test("SHA-256 in pieces is the one of the platform", () => {
  for (let length = 0; length < 300; length++) {
    const bytes = Uint8Array.from({ length }, (_, index) => (index * 37 + length) % 256);
    assert.equal(toHex(sha256(bytes)), createHash("sha256").update(bytes).digest("hex"));
  }
});

test("a log has one writer, no gaps, and takes no entry back", () => {
  const log = new TokenLog();
  log.appendFromCloud(0, 7, 0);
  assert.throws(() => log.appendFromCloud(2, 7, 0), { name: "ProtocolError" });
  assert.throws(() => log.appendFromCloud(0, 8, 0), { name: "ProtocolError" });
  assert.throws(() => log.appendFromDevice(8, 0), { name: "InternalError" });
  assert.equal(log.takeOver(), 1);
  assert.throws(() => log.takeOver(), { name: "InternalError" });
  assert.throws(() => log.appendFromCloud(1, 8, 0), { name: "InternalError" });
  log.appendFromDevice(9, 0);
  assert.deepEqual([...log.ids], [7, 9]);
  assert.deepEqual([log.count("cloud"), log.count("device"), log.takeoverIndex], [1, 1, 1]);
});

test("what the user has seen before is shown at once, what follows is paced", () => {
  const log = new TokenLog();
  const display = new Display(log, null, pacingOf({}));
  const view = {
    backlogTokens: 3, showIntervalS: 0.05, deviceRateTps: 10, deviceWrites: false,
    complete: false, expectedS: 0, cancelled: false,
  };
  display.restored = 2;
  for (const index of [0, 1, 2]) {
    log.restore(index, "cloud", 0);
    display.derive(index, `${index}`);
  }
  for (const index of [0, 1]) {
    assert.equal(display.dueS(view, 5), 5);
    assert.equal(display.showNext(5, 5), `${index}`);
  }
  assert.equal(display.dueS(view, 5), 5.05);
});

test("a broken stream is tried again for ten seconds", () => {
  const reconnect = new Reconnect();
  reconnect.begin(new Unavailable("gone"), 3);
  const delays = [3, 3.1, 3.3, 3.7, 4.5, 12.9].map((nowS) => reconnect.nextDelayS(nowS));
  assert.deepEqual(delays, [0.1, 0.2, 0.4, 0.8, 0.8, 0.8]);
  assert.equal(reconnect.nextDelayS(13), null);
});

test("the budget that runs out first has its name in the error", () => {
  const budgets = budgetsOf({ interTokenS: 4 });
  const since = { connectS: null, firstTokenS: null, interTokenS: 10, totalS: 0 };
  const { atS, fatal, error } = nextDeadline(budgets, since);
  assert.deepEqual([atS, fatal, error.reason], [14, false, "INTER_TOKEN_BUDGET"]);
  assert.equal(nextDeadline(budgets, { ...since, interTokenS: null }), null);
});

test("the class of an error comes from its code, and between two from its reason", () => {
  assert.ok(fromCode("NOT_FOUND", "x", { reason: "UNKNOWN_GENERATION" }) instanceof NotFound);
  const long = fromCode("OUT_OF_RANGE", "x", { reason: "CONTEXT_TOO_LONG" });
  assert.equal(long.name, "ContextTooLong");
  assert.equal(fromCode("OUT_OF_RANGE", "x").name, "OutOfRange");
  assert.equal(fromCode("SOMETHING_NEW", "x").name, "InternalError");
});

test("which sides take part", () => {
  const both = { hasDevice: true, hasCloud: true };
  const sides = (mode, situation) => {
    const { device, cloud, standby } = plan(mode, situation);
    return [device, cloud, standby];
  };
  assert.deepEqual(sides("split", both), [true, true, false]);
  assert.deepEqual(sides("split", { ...both, hasCloud: false }), [true, false, false]);
  assert.deepEqual(sides("prefer_on_device", both), [true, false, false]);
  assert.deepEqual(sides("prefer_on_device", { ...both, hasDevice: false }), [false, true, false]);
  assert.deepEqual(sides("prefer_in_cloud", both), [true, true, true]);
  assert.deepEqual(sides("prefer_in_cloud", { ...both, hasCloud: false }), [true, false, false]);
  assert.deepEqual(sides("only_on_device", both), [true, false, false]);
  assert.deepEqual(sides("only_in_cloud", both), [false, true, false]);
  const none = { hasDevice: false, hasCloud: false };
  assert.throws(() => plan("split", none), { reason: "NO_DEVICE_MODEL" });
  assert.throws(() => plan("only_in_cloud", none), { reason: "NO_CLOUD" });
});

test("a profile that says nothing is refused", () => {
  const good = {
    prefillBaseS: 0, prefillPerTokenS: 0.001, prefillPerToken2S: 0, decodeS: 0.01, handoverS: 0,
  };
  assert.equal(new DeviceProfile(good).prefillS(100), 0.1);
  for (const bad of [{ decodeS: 0 }, { prefillBaseS: -1 }, { handoverS: NaN }, { speed: 1 }]) {
    assert.throws(() => new DeviceProfile({ ...good, ...bad }), { reason: "INVALID_REQUEST" });
  }
});
