// A client on plain fetch, for the sandbox set up over HTTP: no SDK, no dependency, Node 18 or later.
//   node plain_fetch.mjs BASE_URL API_KEY CONTROL_URL CONTROL_TOKEN
// Prints one JSON line with what it found; any surprise is an error and exit code 1.
import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import { createServer } from "node:http";

const [base, key, control, token] = process.argv.slice(2);
const SECRET = "example-webhook-secret";

async function ask(method, url, secret, body) {
  const headers = { authorization: `Bearer ${secret}` };
  if (body !== undefined) headers["content-type"] = "application/json";
  const reply = await fetch(url, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
  return { status: reply.status, headers: reply.headers, body: await reply.json() };
}
const api = (method, path, body) => ask(method, base + path, key, body);
const set = async (method, path, body) => {
  const reply = await ask(method, control + path, token, body);
  assert.equal(reply.status, 200, JSON.stringify(reply.body));
  return reply.body;
};

async function create(path, body) {
  for (let attempt = 0; attempt < 5; attempt += 1) {
    const reply = await api("POST", path, body);
    if (reply.status !== 429) return reply.body;
    await new Promise(done => setTimeout(done, 5));
  }
  throw new Error(`refused for ever: ${path}`);
}

async function poll(taskId) {
  for (let attempt = 0; attempt < 4000; attempt += 1) {
    const reply = await api("GET", `/sonic/task/${taskId}`);
    if (reply.status === 200) return reply.body.data;
    assert.ok(reply.status === 202 || reply.status >= 500, `status ${reply.status}`);
    await new Promise(done => setTimeout(done, 5));
  }
  throw new Error(`never ended: ${taskId}`);
}

async function bytes(url) {
  const reply = await fetch(url);
  assert.equal(reply.status, 200, url);
  return Buffer.from(await reply.arrayBuffer());
}

// --- a receiver of webhooks ---
const events = [];
const receiver = createServer((request, response) => {
  const parts = [];
  request.on("data", part => parts.push(part));
  request.on("end", () => {
    const raw = Buffer.concat(parts);
    const stamp = request.headers["x-webhook-timestamp"];
    const signed = createHmac("sha256", SECRET).update(`${stamp}.`).update(raw).digest("hex");
    const fresh = Math.abs(Date.now() / 1000 - Number(stamp)) < 60;
    events.push({ ...JSON.parse(raw), authentic: fresh && request.headers["x-webhook-signature"] === `sha256=${signed}` });
    response.end();
  });
});
await new Promise(done => receiver.listen(0, "127.0.0.1", done));
const hook = `http://127.0.0.1:${receiver.address().port}/hook`;

// --- set up from outside ---
const description = await (await fetch(`${control}/openapi.json`)).json();
assert.equal(description.openapi, "3.1.0");
await set("POST", "/preset", { like: "vendor-samples" });
await set("PATCH", "/durations", { midi: 0 });
await set("POST", "/faults", { text: "POST /sonic/create 429*2 retry_after=1" });
await set("POST", "/faults", { method: "GET", path: "/sonic/task/*", fault: "status", code: 503, times: 2 });

// --- the program ---
const before = (await api("GET", "/get-credits")).body.credits;
const song = { custom_mode: true, mv: "sonic-v6", title: "Rain", prompt: "[Verse]\nRain on the window", duration: 10 };
const made = await create("/sonic/create", { ...song, webhook_url: hook, webhook_secret: SECRET });
const clips = await poll(made.task_id);
assert.deepEqual(clips.map(clip => clip.state), ["succeeded", "succeeded"]);
const file = await bytes(clips[0].audio_url);
assert.equal(file.subarray(0, 3).toString(), "ID3");

const persona = (await api("POST", "/sonic/persona", { name: "Ann", clip_id: clips[0].clip_id })).body.persona_id;
const sung = await create("/sonic/create", { ...song, task_type: "persona_music", persona_id: persona });
assert.equal((await poll(sung.task_id)).length, 2);
const stems = await poll((await create("/sonic/stems/basic", { clip_id: clips[0].clip_id })).task_id);
const wav = (await api("POST", "/sonic/wav", { clip_id: clips[0].clip_id })).body.data.wav_url;
assert.equal((await bytes(wav)).subarray(8, 12).toString(), "WAVE");
const midi = (await api("POST", "/sonic/midi", { clip_id: clips[0].clip_id })).body.data;
assert.equal((await bytes(midi.midi_url)).subarray(0, 4).toString(), "MThd");

await set("POST", "/faults", { text: "POST /sonic/create fail" });
const failing = await create("/sonic/create", { ...song, webhook_url: hook, webhook_secret: SECRET });
await set("POST", "/clock/forward", { seconds: 600 });
for (let wait = 0; wait < 2000 && events.length < 4; wait += 1) await new Promise(done => setTimeout(done, 5));
receiver.close();
receiver.closeAllConnections();

const after = (await api("GET", "/get-credits")).body.credits;
const journal = await set("GET", "/journal?limit=1000");
assert.equal(before - after, journal.charges);
console.log(JSON.stringify({
  events: events.map(event => [event.event, event.task_id === failing.task_id, event.authentic]),
  statuses: journal.requests.filter(row => row.kind === "create").map(row => row.status),
  stems: stems.map(stem => stem.stem_type),
  instruments: midi.instruments.length > 0,
  charges: journal.charges,
}));
