/** Model files over real HTTP, good and bad; the browser's cache is tested in a browser. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { ModelStore } from "../src/modelStore.js";

const url = process.env.SEGUE_TEST_SITE;
assert.ok(url, "needs a web server; run python -m pytest tests/browser/test_node.py");

test("a file is fetched whole, with its progress", async () => {
  const seen = [];
  const blob = await new ModelStore(`${url}/good`).blob("model", (...told) => seen.push(told));
  assert.equal(blob.size, 300_000);
  assert.deepEqual(seen.at(-1), [300_000, 300_000]);
});

test("a download that breaks goes on where it broke", async () => {
  const blob = await new ModelStore(`${url}/broken/`).blob("model");
  assert.equal(blob.size, 300_000);
});

test("a server without ranges is asked for everything again", async () => {
  const blob = await new ModelStore(`${url}/whole/`).blob("model");
  assert.equal(blob.size, 300_000);
});

test("a download that always breaks is a typed error", async () => {
  const store = new ModelStore(`${url}/hopeless/`);
  await assert.rejects(store.blob("model"), { name: "Unavailable", reason: "DOWNLOAD_BROKEN" });
});

test("a file that is not the listed one is refused", async () => {
  for (const place of ["other", "longer"]) {
    const store = new ModelStore(`${url}/${place}/`);
    await assert.rejects(store.blob("model"), { name: "ProtocolError", reason: "DIGEST_MISMATCH" });
  }
});

test("what is not there is named", async () => {
  const store = new ModelStore(`${url}/good/`);
  assert.equal(await store.has("model"), true);
  assert.equal(await store.has("template"), false);
  await assert.rejects(store.blob("template"), { name: "NotFound", reason: "MODEL_FILE_MISSING" });
  await assert.rejects(new ModelStore(`${url}/none/`).blob("model"), { reason: "HTTP_404" });
  const nobody = new ModelStore("http://127.0.0.1:1/");
  await assert.rejects(nobody.blob("model"), { name: "Unavailable" });
  await assert.rejects(new ModelStore(`${url}/odd/`).blob("model"), { reason: "BAD_LISTING" });
});
