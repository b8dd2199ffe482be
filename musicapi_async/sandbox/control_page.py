"""The page of a sandbox at `/`: journal, tasks and balance, live.

One file without anything from elsewhere. It polls the control once a second, with the token from its address
(`#token=...`, which no server ever sees) or from a field. Texts from requests are set as text, never as HTML,
and the policy that comes with the page allows its own script and style only.
"""

from __future__ import annotations

import base64
import hashlib
from typing import Final

from aiohttp import web

STYLE: Final = """
:root { color-scheme: light dark; --line: #8884; --soft: #888; --good: #2a8a4a; --bad: #c33; }
body { font: 15px/1.45 system-ui, sans-serif; margin: 0 auto; max-width: 76rem; padding: 1rem 1.25rem; }
header { display: flex; flex-wrap: wrap; gap: .4rem 2rem; align-items: baseline; }
h1 { font-size: 1.35rem; margin: 0; } h2 { font-size: 1.05rem; margin: 1.6rem 0 .4rem; }
header b { font-variant-numeric: tabular-nums; } .soft { color: var(--soft); }
table { border-collapse: collapse; width: 100%; font-size: .9rem; }
th { text-align: left; font-weight: 600; color: var(--soft); }
th, td { padding: .25rem .6rem .25rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
td, th { white-space: nowrap; } td.number, th.number { text-align: right; }
td.long { white-space: normal; overflow-wrap: anywhere; min-width: 14rem; }
.scroll { overflow-x: auto; } .good { color: var(--good); } .bad { color: var(--bad); }
audio { height: 2rem; width: 15rem; max-width: 100%; vertical-align: middle; }
.clip { display: flex; gap: .2rem .8rem; align-items: center; } .clip span { width: 14rem; }
form { margin: 2rem 0; } input { font: inherit; width: 24rem; max-width: 100%; }
progress { width: 6rem; } [hidden] { display: none !important; }
@media (prefers-color-scheme: dark) { :root { --good: #4fbf76; --bad: #ff7b72; --soft: #999; } }
@media (max-width: 700px) {
  thead { display: none; }
  tr { display: flex; flex-wrap: wrap; gap: 0 .8rem; border-bottom: 1px solid var(--line); padding: .4rem 0; }
  td { border: 0; padding: 0; } td:empty { display: none; }
  #tasks td.long { flex: 1 0 100%; } #journal td.long { flex: 1 1 12rem; min-width: 0; }
  #journal td:nth-child(4):not(:empty)::after { content: " credits"; } .clip { flex-wrap: wrap; }
  td.number { text-align: left; } td.soft { overflow-wrap: anywhere; white-space: normal; }
}
"""

SCRIPT: Final = """
"use strict";
const $ = id => document.getElementById(id);
const given = new URLSearchParams(location.hash.slice(1)).get("token");
if (given) { sessionStorage.token = given; history.replaceState(null, "", location.pathname); }
const tasks = new Map(), requests = new Map();

async function ask(path) {
  const headers = { Authorization: "Bearer " + (sessionStorage.token || "") };
  const reply = await fetch("_sandbox" + path, { headers, cache: "no-store" });
  if (reply.status === 401) throw new Error("token");
  if (!reply.ok) throw new Error("status " + reply.status);
  return reply.json();
}

function cell(row, text, kind) {
  const td = row.insertCell();
  td.textContent = text;
  if (kind) td.className = kind;
  return td;
}

function seconds(value) {
  return value < 3600 ? value.toFixed(1) + " s" : (value / 3600).toFixed(2) + " h";
}

function credits(value) {
  return Math.round(value * 1e4) / 1e4;
}

function fillRequest(row, request) {
  cell(row, seconds(request.at), "number");
  cell(row, request.method + " " + (request.event ? request.event + " to " : "") + request.path, "long");
  const wrong = request.status >= 400 || request.status === 0;
  cell(row, request.status || "none", wrong ? "number bad" : "number");
  const refunded = request.refunded ? " (refunded)" : "";
  cell(row, request.charge ? credits(request.charge) + refunded : "", "number");
  cell(row, request.fault, "bad");
  cell(row, request.task_id, "soft");
}

function fillTask(row, task) {
  cell(row, task.created_at.slice(11, 19), "number");
  cell(row, task.family + " " + task.kind);
  const colours = { failed: "bad", succeeded: "good" };
  const state = cell(row, task.state, colours[task.state] || "");
  if (task.state === "running") {
    const bar = document.createElement("progress");
    bar.max = 100; bar.value = task.progress;
    state.append(" ", bar);
  }
  const clips = row.insertCell();
  clips.className = "long";
  for (const clip of task.clips) {
    const line = document.createElement("div");
    line.className = "clip";
    const title = document.createElement("span");
    title.textContent = (clip.title || clip.clip_id) + " ";
    line.append(title);
    if (clip.state === "succeeded" && clip.audio_url) {
      const audio = document.createElement("audio");
      audio.controls = true; audio.preload = "none"; audio.src = clip.audio_url;
      audio.setAttribute("aria-label", "Play " + (clip.title || clip.clip_id));
      line.append(audio);
    } else {
      const word = document.createElement("span");
      word.className = "soft"; word.textContent = clip.state;
      line.append(word);
    }
    clips.append(line);
  }
  cell(row, task.task_id, "soft");
}

function fill(body, rows, items, id, fillRow) {
  const ids = new Set(items.map(id));
  for (const [key, known] of rows) if (!ids.has(key)) { known.row.remove(); rows.delete(key); }
  items.forEach((item, at) => {
    const text = JSON.stringify(item);
    let known = rows.get(id(item));
    if (!known) rows.set(id(item), known = { row: document.createElement("tr"), text: "" });
    if (known.text !== text) { known.row.textContent = ""; fillRow(known.row, item); known.text = text; }
    if (body.rows[at] !== known.row) body.insertBefore(known.row, body.rows[at] || null);
  });
}

async function refresh() {
  try {
    const [page, newest, account, clock] = await Promise.all([
      ask("/journal?newest=200&limit=200&bodies=false"), ask("/tasks?limit=30"),
      ask("/account"), ask("/clock")]);
    $("login").hidden = true; $("live").hidden = false;
    $("balance").textContent = credits(account.credits + account.extra_credits);
    $("charges").textContent = credits(page.charges);
    const speed = clock.speed === 1 ? "" : ", " + clock.speed + " times as fast";
    $("clock").textContent = seconds(clock.now) + speed;
    fill($("journal"), requests, page.requests.reverse(), request => request.number, fillRequest);
    $("no-requests").hidden = requests.size > 0;
    fill($("tasks"), tasks, newest, task => task.task_id, fillTask);
    $("no-tasks").hidden = tasks.size > 0;
    $("state").textContent = "live";
    $("state").className = "good";
  } catch (error) {
    if (error.message === "token") { $("login").hidden = false; $("live").hidden = true; }
    $("state").textContent = error.message === "token" ? "no token" : "not reachable";
    $("state").className = "bad";
  }
}

async function run() {
  await refresh();
  setTimeout(run, 1000);
}

$("login").addEventListener("submit", event => {
  event.preventDefault();
  sessionStorage.token = $("token").value.trim();
  refresh();
});
run();
"""

PAGE: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>musicapi sandbox</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,"><style>{style}</style></head>
<body>
<header><h1>musicapi sandbox</h1><span id="state" class="soft" role="status">loading</span></header>
<form id="login" hidden>
<label for="token">The token that the sandbox printed when it started:</label><br>
<input id="token" autocomplete="off" spellcheck="false"> <button>Show</button>
</form>
<main id="live" hidden>
<p>Balance <b id="balance"></b> credits, charged <b id="charges"></b>. <span class="soft">Clock:
<span id="clock"></span></span></p>
<h2>Tasks</h2>
<div class="scroll"><table><thead><tr><th class="number">Created (UTC)</th><th>Kind</th><th>State</th>
<th>Clips</th><th>Task</th></tr></thead><tbody id="tasks"></tbody></table></div>
<p id="no-tasks" class="soft">No task yet.</p>
<h2>Journal</h2>
<div class="scroll"><table><thead><tr><th class="number">At</th><th>Request</th><th class="number">Status</th>
<th class="number">Credits</th><th>Fault</th><th>Task</th></tr></thead><tbody id="journal"></tbody>
</table></div>
<p id="no-requests" class="soft">No request yet.</p>
</main>
<script>{script}</script></body></html>
"""


def page(media_origin: str) -> web.Response:
    """Return the page, with a policy that lets it load its own script and style, and audio of the sandbox."""
    policy = (
        f"default-src 'none'; script-src {_hash(SCRIPT)}; style-src {_hash(STYLE)}; connect-src 'self'; "
        f"media-src 'self' {media_origin}; img-src data:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )
    return web.Response(
        text=PAGE.format(style=STYLE, script=SCRIPT),
        content_type="text/html",
        headers={
            "Content-Security-Policy": policy,
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cache-Control": "no-store",
        },
    )


def _hash(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"
