/** What the tests call in the browser: one client, one answer at a time. */

import { Template } from "/jinja/index.js";
import { Client, ModelStore, measureProfile } from "/sdk/index.js";
import { WllamaEngine } from "/sdk/engines/wllama.js";
import { Wllama } from "/wllama/index.js";

const SAVED = "answer";
const wasmUrl = "/wllama/single-thread/wllama.wasm";
let engine;
let client;
let running;

/** Load the model and be a device of `cloud`; returns how fast this one is. */
async function open(cloud, options = {}) {
  const store = new ModelStore("/model/");
  engine = await WllamaEngine.load({ store, Wllama, Template, wasmUrl, ...options });
  const profile = await measureProfile(engine);
  client = new Client({ cloud, engine, profile, pacing: { enabled: false } });
  return { ...profile };
}

/** Begin an answer; it is kept at every event, for a page that is loaded again. */
function start(options) {
  follow(client.stream(options));
}

function resume() {
  follow(client.resume(JSON.parse(sessionStorage.getItem(SAVED))));
}

function follow(answer) {
  const events = [];
  running = { answer, events, seen: [] };
  running.ended = read(running).catch((error) => {
    running.error = { name: error.name, reason: error.reason, message: error.message };
  });
}

async function read(run) {
  const shown = document.getElementById("answer");
  shown.textContent = "";
  for await (const event of run.answer) {
    run.events.push(event);
    if (event.type === "token") shown.textContent += event.text;
    sessionStorage.setItem(SAVED, JSON.stringify(run.answer.snapshot()));
    for (const check of run.seen) check();
  }
}

/** Until there are `count` events of a type; the answer's end is an error. */
function seen(type, count = 1) {
  return new Promise((resolve, reject) => {
    const check = () => {
      if (running.events.filter((event) => event.type === type).length >= count) resolve(null);
    };
    running.seen.push(check);
    check();
    running.ended.then(() => reject(new Error(`no ${type}: ${JSON.stringify(running.error)}`)));
  });
}

/** Read to the end: events and the error, if any, as JSON. */
async function finish() {
  await running.ended;
  const plain = (_, value) => (typeof value === "bigint" ? value.toString() : value);
  return JSON.parse(JSON.stringify({ events: running.events, error: running.error }, plain));
}

/** Ids of a prompt as this device tokenizes it, and the device's logits behind them. */
async function logitsOf(messages) {
  const ids = await engine.encodeChat(messages);
  await engine.rewind(0);
  await engine.append(ids, { signal: new AbortController().signal });
  return { ids, logits: Array.from(await engine.logits()) };
}

window.device = {
  open, start, resume, seen, finish, logitsOf,
  cancel: () => running.answer.cancel(),
  identity: () => engine.identity,
};
document.body.dataset.ready = "yes";
