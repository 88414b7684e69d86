/** What the tests call in the browser: one client, one answer at a time. */

import { Template } from "/jinja/index.js";
import { Client, ModelStore, measureProfile } from "/sdk/index.js";
import { WllamaEngine } from "/sdk/engines/wllama.js";
import { identityToWire } from "/sdk/identity.js";
import { Wllama } from "/wllama/index.js";

const SAVED = "answer";
const wasmUrl = "/wllama/single-thread/wllama.wasm";
let engine;
let profile;
let client;
let running;

/** Load the model, from the cache if it is there; returns how fast this device is. */
async function load() {
  const store = new ModelStore("/model/");
  engine = await WllamaEngine.load({ store, Wllama, Template, wasmUrl });
  profile = await measureProfile(engine);
  return { ...profile };
}

/** Be a device of `cloud`. */
function connect(cloud, options = {}) {
  const plain = { pacing: { enabled: false }, reuseKv: false };
  client = new Client({ cloud, engine, profile, ...plain, ...options });
}

/** Begin an answer; it is kept at every event, for a page that is loaded again. */
function start(options) {
  follow(client.stream(options));
}

/** The same on a device that never gets its prompt prefilled. */
function startWithoutDevice(options) {
  engine.append = () => new Promise(() => {});
  start(options);
}

function resume() {
  follow(client.resume(JSON.parse(sessionStorage.getItem(SAVED))));
}

function follow(answer) {
  running = { answer, events: [], error: null, watchers: [] };
  running.ended = read(running).catch(({ name, reason, message }) => {
    running.error = { name, reason, message };
  });
}

async function read(run) {
  const shown = document.getElementById("answer");
  shown.textContent = "";
  for await (const event of run.answer) {
    run.events.push(event);
    if (event.type === "token") shown.textContent += event.text;
    sessionStorage.setItem(SAVED, JSON.stringify(run.answer.snapshot()));
    for (const watch of run.watchers) watch();
  }
}

/** Until there are `count` events of a type; an answer that ends before is an error. */
function seen(type, count = 1) {
  const run = running;
  return new Promise((resolve, reject) => {
    const watch = () => {
      if (run.events.filter((event) => event.type === type).length >= count) resolve(null);
    };
    run.watchers.push(watch);
    watch();
    run.ended.then(() => reject(new Error(`no ${type}: ${JSON.stringify(run.error)}`)));
  });
}

/** Read to the end: events and the error, if any, as JSON. */
async function finish() {
  const { ended, events } = running;
  await ended;
  const plain = (_, value) => (typeof value === "bigint" ? value.toString() : value);
  return JSON.parse(JSON.stringify({ events, error: running.error }, plain));
}

window.device = {
  load, connect, start, startWithoutDevice, resume, seen, finish,
  cancel: () => running.answer.cancel(),
  encodeChat: (messages) => engine.encodeChat(messages),
  identity: () => identityToWire(engine.identity),
  shown: () => document.getElementById("answer").textContent,
};
document.body.dataset.ready = "yes";
