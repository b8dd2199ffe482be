/* The page of a batch: its songs, and what plays. It sends nothing; picks are stored in this browser. */
const { Deck, bar, clock, el, icon, wave } = Player;
const $ = (id) => document.getElementById(id);
const batch = JSON.parse($("batch").textContent);
const songs = JSON.parse($("songs").textContent);
const LEVELS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
const STATES = { queued: "waiting", submitting: "waiting for the rate", running: "generating", fetching: "downloading", done: "done", failed: "failed", unknown: "outcome unknown", unfinished: "unfinished" };
const STATE_CLASSES = { done: "good", failed: "bad", unknown: "bad", unfinished: "bad", running: "busy", fetching: "busy", submitting: "busy" };
const QUIET_RELOADS = 12;
const AHEAD = "600px";
const PROMPT_LENGTH = 200;  // of a line on the card; the details have all

// --- what is stored in this browser: picks for good, the view until the tab is closed ---

const PICKS = `musicapi picks ${batch.id}`, VIEW = `musicapi view ${batch.id}`;
const stored = (store, key) => { try { return JSON.parse(window[store].getItem(key)) ?? {}; } catch { return {}; } };
const save = (store, key, value) => { try { window[store].setItem(key, JSON.stringify(value)); return true; } catch { return false; } };
const cleaned = (given) => new Map(Object.entries(Object(given)).flatMap(([id, pick]) => {
  const stars = Number.isInteger(pick?.stars) ? Math.min(5, Math.max(0, pick.stars)) : 0;
  const choice = ["keep", "drop"].includes(pick?.choice) ? pick.choice : "";
  return stars || choice ? [[id, { stars, choice }]] : [];
}));
let picks = cleaned(stored("localStorage", PICKS));
const pickOf = (take) => picks.get(take.id) ?? { stars: 0, choice: "" };
function pick(take, change) {
  const inStore = cleaned(stored("localStorage", PICKS));  // another tab may have changed it
  if (inStore.size) picks = inStore;
  const now = { ...pickOf(take), ...change };
  if (now.stars || now.choice) picks.set(take.id, now); else picks.delete(take.id);
  storePicks();
  redrawPick(take);
}
function storePicks() {
  if (!save("localStorage", PICKS, Object.fromEntries(picks))) say("This browser stores nothing for this page: export your picks before you close it.");
  countPicks();
}

// --- songs, takes, and what may be searched ---

const takes = [], cards = [];
const rows = new Map();  // what is drawn of takes, by their ids
const opened = new Set();  // takes whose details are open
const personas = new Map();
for (const [index, song] of songs.entries()) {
  song.index = index; song.takes ??= [];
  for (const [number, take] of song.takes.entries()) {
    Object.assign(take, { song, number: number + 1, name: `take ${number + 1}` });
    take.stems ??= []; take.files ??= []; take.failed ??= []; take.facts ??= []; take.lines ??= [];  // left out where empty
    take.peaks = [...(take.peaks ?? "")].map((letter) => LEVELS.indexOf(letter) / 63);
    takes.push(take);
    if (take.persona) personas.set(take.persona[0], { name: take.persona[1], take });
  }
}
const words = (song) => [song.title, song.id, song.model, song.prompt, song.persona, personas.get(song.persona)?.name,
  ...song.takes.flatMap((take) => [take.title, take.tags])].filter(Boolean).join("\n").toLocaleLowerCase();
const largest = (values) => values.reduce((most, value) => (value > most ? value : most), 0);
const lengthOf = (song) => largest(song.takes.map((take) => take.length ?? 0));
const bpmOf = (song) => largest(song.takes.map((take) => take.bpm ?? 0));
const starsOf = (song) => largest(song.takes.map((take) => pickOf(take).stars));
const byId = new Map(takes.map((take) => [take.id, take]));

// --- the player ---

const deck = new Deck();
let current = null;  // the take that keys are about
const soundOf = new Map();  // the muted and solo stems of takes
function trackOf(take) {
  return { id: take.id, take, kind: "take", title: take.song.title, detail: describe(take, take.song.takes.length > 1 ? `${take.name} of ${take.song.takes.length}` : ""),
    cover: take.cover, length: take.length, peaks: take.peaks, voices: [{ url: take.file }] };
}
const describe = (take, first) => [first, take.tags].filter(Boolean).join(" · ");
const sounding = (take) => take.stems.filter((stem) => !stem.silent);
function stemTrackOf(take) {
  const stems = sounding(take);
  return { ...trackOf(take), id: `${take.id} stems`, kind: "stems", detail: `${take.name}, stems`,
    voices: stems.map((stem) => ({ url: stem.file, muted: isMuted(take, stem) })) };
}
function fileTrackOf(take, file) {
  return { id: file.file, take, kind: "file", title: `${take.song.title}: ${file.label}`, detail: take.name, cover: take.cover, voices: [{ url: file.file }] };
}
const isOn = (take) => deck.track?.take === take;
function playTake(take, at = null) {
  choose(take);
  if (!take.file) { deck.pause(); return; }
  const same = isOn(take) && deck.track.kind === "take";
  if (!same) deck.load(trackOf(take), { at: at ?? 0 });
  else if (at !== null) { deck.seek(at); deck.play(); } else deck.toggle();
  deck.prepare(take.song.takes.filter((other) => other !== take && other.file).slice(0, 3).map(trackOf));
}
function seekTake(take, at) {
  if (isOn(take) && deck.track.kind !== "file") { deck.seek(at); choose(take); } else playTake(take, at);
}
/** Switch to the next take of the song at the same position. */
function compare() {
  const song = (current ?? deck.track?.take)?.song;
  const usable = song?.takes.filter((take) => take.file) ?? [];
  if (usable.length < 2) return;
  const next = usable[(usable.indexOf(current) + 1) % usable.length];
  const plays = deck.playing, at = deck.track?.take.song === song ? deck.position : 0;
  const stems = deck.track?.kind === "stems" && sounding(next).length > 0;
  choose(next);
  deck.load(stems ? stemTrackOf(next) : trackOf(next), { at, play: plays || !deck.track });
  deck.prepare(usable.filter((take) => take !== next).slice(0, 3).map(trackOf));
}
/** Return the take before or after the current one, which the filters hide. */
function beside(listed, by) {
  const place = (take) => order.indexOf(take.song), here = place(current);
  return by > 0 ? listed.find((take) => place(take) > here) : listed.findLast((take) => place(take) < here);
}
function step(by, { play = deck.playing } = {}) {
  const listed = visible().flatMap((song) => song.takes.filter((take) => take.file));
  if (!listed.length) return;
  const at = listed.indexOf(current);
  const next = at >= 0 || !current ? listed[at < 0 ? 0 : at + by] : beside(listed, by);
  if (!next) return;
  choose(next);
  if (play) playTake(next, 0); else if (deck.track) deck.load(trackOf(next), { play: false });
  reveal(next);
}
deck.on((event) => {
  const take = deck.track?.take;
  if (event === "ended" && deck.track.kind === "take") step(1, { play: true });
  if (event === "track" || event === "state") for (const row of rows.values()) row.state();
  if (take) { rows.get(take.id)?.time(); }
  ab.hidden = !((take?.song.takes.filter((one) => one.file).length ?? 0) > 1);
});
const ab = el("button", { type: "button", class: "act", title: "The other take, at the same position (a)", hidden: true, click: compare }, "A/B");
const barPick = el("div", { class: "pick" });
bar(deck, { more: [ab, barPick], step: (by) => step(by) });
deck._say("state");
function choose(take) {
  if (current === take) return;
  const before = current;
  current = take;
  for (const one of [before, take]) rows.get(one?.id)?.state();
  barPick.replaceChildren(pickControls(take));
}
function reveal(take) {
  const card = cards[take.song.index];
  fill(take.song);
  card.scrollIntoView({ block: "nearest" });
  rows.get(take.id)?.element.scrollIntoView({ block: "nearest" });
}

/** Bring a song to the top, once more when the songs above it have their height. */
function visit(song) {
  fill(song);
  cards[song.index].hidden = false;
  for (const at of [0, 100, 300]) setTimeout(() => cards[song.index].scrollIntoView({ block: "start" }), at);
}
for (const link of document.querySelectorAll(".problems a")) link.addEventListener("click", (event) => {
  const song = songs.find((one) => `#song-${one.row}` === link.hash);
  if (song) { event.preventDefault(); visit(song); }
});
