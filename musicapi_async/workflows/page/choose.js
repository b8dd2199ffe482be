/* Search, order, export and keys of the page, and the view that outlives a reload. */
// --- search, filters, order ---

const controls = ["search", "state", "model", "choice", "sort", "bpm-from", "bpm-to", "length-from", "length-to"].map($);
const [search, stateBox, modelBox, choiceBox, sortBox, bpmFrom, bpmTo, lengthFrom, lengthTo] = controls;
const optionsOf = (box, values) => box.append(...values.map(([value, text]) => el("option", { value }, text)));
optionsOf(stateBox, Object.keys(STATES).filter((state) => songs.some((song) => song.state === state)).map((state) => [state, STATES[state]]));
optionsOf(modelBox, [...new Set(songs.map((song) => song.model).filter(Boolean))].sort().map((model) => [model, model]));
if (!songs.some(bpmOf)) for (const part of document.querySelectorAll(".of-bpm")) part.remove();
const titleOf = (song) => song.title.toLocaleLowerCase();
const tagsOf = (song) => song.takes.map((take) => take.tags ?? "").join(" ").toLocaleLowerCase();
const SORTS = {
  row: (one, two) => one.index - two.index,
  title: (one, two) => titleOf(one).localeCompare(titleOf(two)),
  tags: (one, two) => tagsOf(one).localeCompare(tagsOf(two)),
  model: (one, two) => (one.model ?? "").localeCompare(two.model ?? ""),
  bpm: (one, two) => bpmOf(one) - bpmOf(two),
  length: (one, two) => lengthOf(one) - lengthOf(two),
  rating: (one, two) => starsOf(two) - starsOf(one),
  state: (one, two) => Object.keys(STATES).indexOf(one.state) - Object.keys(STATES).indexOf(two.state),
};
const seconds = (text) => (/^\s*(\d+:)?\d+(\.\d*)?\s*$/.test(text) ? text.split(":").reduce((sum, part) => 60 * sum + Number(part), 0) : NaN);  // NaN is no limit
const between = (value, from, to) => (Number.isNaN(from) || value >= from) && (Number.isNaN(to) || (value > 0 && value <= to));
const CHOICES = {
  "": () => true, keep: (take) => pickOf(take).choice === "keep", drop: (take) => pickOf(take).choice === "drop",
  open: (take) => !pickOf(take).choice, unrated: (take) => !pickOf(take).stars,
  ...Object.fromEntries([1, 2, 3, 4, 5].map((number) => [`${number}`, (take) => pickOf(take).stars >= number])),
};
const visible = () => order.filter((song) => !cards[song.index].hidden);
let order = [...songs], saving = 0;
(window.requestIdleCallback ?? setTimeout)(() => { for (const song of songs) song.words ??= words(song); });
function filter() {
  const texts = search.value.toLocaleLowerCase().split(/\s+/).filter(Boolean);
  const [bpmLow, bpmHigh] = [bpmFrom, bpmTo].map((box) => (box?.value ? Number(box.value) : NaN));
  const [short, long] = [lengthFrom, lengthTo].map((box) => seconds(box.value));
  const chosen = CHOICES[choiceBox.value] ?? CHOICES[""];
  for (const [box, value] of [[lengthFrom, short], [lengthTo, long]]) box.setAttribute("aria-invalid", Boolean(box.value.trim()) && Number.isNaN(value));
  const ofTakes = choiceBox.value || [bpmLow, bpmHigh, short, long].some((limit) => !Number.isNaN(limit));  // else songs without takes fit, too
  let count = 0;
  for (const song of songs) {
    song.words ??= words(song);
    const fits = (!stateBox.value || song.state === stateBox.value) && (!modelBox.value || song.model === modelBox.value)
      && texts.every((text) => song.words.includes(text)) && (!ofTakes || song.takes.some((take) => chosen(take)
        && between(take.bpm ?? 0, bpmLow, bpmHigh) && between(take.length ?? 0, short, long)));
    count += fits;
    const card = cards[song.index];
    if (card.hidden === fits) card.hidden = !fits;
  }
  $("count").textContent = count === songs.length ? `${count} ${count === 1 ? "song" : "songs"}` : `${count} of ${songs.length} songs`;
  $("none").hidden = count > 0;
  $("clear").hidden = !controls.some((box) => box && box !== sortBox && box.value);
  clearTimeout(saving);
  saving = setTimeout(saveView, 300);
}
function sort() {
  order = [...songs].sort(SORTS[sortBox.value] ?? SORTS.row);
  $("list").append(...order.map((song) => cards[song.index]));
  saveView();
}
for (const box of controls) box?.addEventListener(box.tagName === "SELECT" ? "change" : "input", () => { if (box === sortBox) sort(); else filter(); });
$("unfold").addEventListener("click", () => $("unfold").setAttribute("aria-expanded", $("tools").classList.toggle("open")));
$("clear").addEventListener("click", () => { for (const box of controls) if (box && box !== sortBox) box.value = ""; filter(); search.focus(); });

// --- export and import ---

const listed = () => takes.filter((take) => picks.has(take.id)).map((take) => ({
  clip_id: take.id, song: take.song.id, row: take.song.row, title: take.song.title, take: take.number,
  stars: pickOf(take).stars, choice: pickOf(take).choice, file: take.path ?? "",
}));
function offer(name, type, text) {
  const link = el("a", { href: URL.createObjectURL(new Blob([text], { type })), download: name });
  document.body.append(link); link.click(); link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}
const cell = (value) => { const text = String(value); return `"${(/^[=+\-@\t\r]/.test(text) ? `'${text}` : text).replaceAll('"', '""')}"`; };
$("json").addEventListener("click", () => {
  offer("picks.json", "application/json", JSON.stringify({ batch: batch.name, batch_id: batch.id, picks: listed() }, null, 2));
  say(`Downloaded as picks.json, or as picks (1).json if there was one. To copy what you keep into a folder: ${batch.keep_command}`, 120);  // time to copy it
});
$("csv").addEventListener("click", () => {
  const columns = ["row", "title", "take", "stars", "choice", "file", "song", "clip_id"];
  offer("picks.csv", "text/csv", "\ufeff" + [columns, ...listed().map((one) => columns.map((column) => one[column]))].map((line) => line.map(cell).join(",")).join("\r\n") + "\r\n");
});
$("m3u").addEventListener("click", () => {
  const place = (take) => (take.file.startsWith("data:") ? take.path : new URL(take.file, location.href).href);  // the list is saved elsewhere
  const lines = takes.filter((take) => pickOf(take).choice === "keep" && take.file)
    .map((take) => `#EXTINF:${Math.round(take.length ?? -1)},${take.song.title.replace(/\s+/g, " ")} (${take.name})\n${place(take)}`);
  offer("picks.m3u8", "audio/x-mpegurl", ["#EXTM3U", ...lines, ""].join("\n"));
});
$("import").addEventListener("change", async () => {
  const [file] = $("import").files;
  try {
    const read = JSON.parse(await file.text());
    const known = cleaned(Object.fromEntries(read.picks.filter((one) => byId.has(one.clip_id)).map((one) => [one.clip_id, one])));
    const others = read.picks.filter((one) => !byId.has(one.clip_id)).length;
    picks = new Map([...picks, ...known]);
    storePicks();
    for (const id of known.keys()) redrawPick(byId.get(id));
    say(`${known.size} picks read.${others ? ` ${others} are of takes that are not on this page.` : ""}`);
  } catch { say("This file has no picks that this page has exported."); }
  $("import").value = "";
});
let saying = 0;
function say(text, seconds = 15) {
  $("says").textContent = text; $("says").hidden = !text;
  clearTimeout(saying);
  saying = setTimeout(() => { $("says").hidden = true; }, 1000 * seconds);
}
window.addEventListener("storage", (event) => {
  if (event.key !== PICKS) return;
  picks = cleaned(stored("localStorage", PICKS));
  countPicks();
  for (const take of takes) if (rows.has(take.id) || take === current) redrawPick(take);
});
for (const button of document.querySelectorAll("button.copy")) {
  button.hidden = !navigator.clipboard;
  button.addEventListener("click", () => navigator.clipboard.writeText(button.previousElementSibling.textContent)
    .then(() => { button.textContent = "Copied"; }, () => say("The browser does not allow copying: select the text.")));
}

// --- keys ---

const seekBy = (by) => { if (deck.track) deck.seek(deck.position + by); };
const openDetails = () => {
  if (!current) return;
  reveal(current);
  const box = rows.get(current.id)?.element.querySelector("details.more");
  if (box) box.open = !box.open;
};
const KEYS = {
  " ": () => { if (current && !isOn(current)) playTake(current); else if (deck.track) deck.toggle(); else step(1, { play: true }); },
  ArrowLeft: () => seekBy(-5), ArrowRight: () => seekBy(5),
  j: () => step(1), k: () => step(-1), a: compare, l: openDetails,
  f: () => { if (current) pick(current, { choice: pickOf(current).choice === "keep" ? "" : "keep" }); },
  d: () => { if (current) pick(current, { choice: pickOf(current).choice === "drop" ? "" : "drop" }); },
  e: () => $("json").click(),
  "/": () => { search.focus(); search.select(); scrollTo({ top: 0 }); },
  "?": () => $("help").showModal(),
};
document.addEventListener("keydown", (event) => {
  const at = event.target;
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || $("help").open) return;
  if (at.matches?.("input, select, textarea")) { if (event.key === "Escape") at.blur(); return; }
  if (event.key === " " && at.closest?.("button, summary, a")) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (/^[0-5]$/.test(key) && current) pick(current, { stars: Number(key) });
  else if (KEYS[key]) KEYS[key]();
  else return;
  event.preventDefault();
});
document.addEventListener("click", (event) => {  // by the mouse: then space is for the player, not for the button once more
  if (event.detail && !$("help").open) document.activeElement?.closest("button, summary")?.blur();
});
$("show-help").addEventListener("click", () => $("help").showModal());

$("course").addEventListener("toggle", () => { if (!$("timeline").childElementCount) Timeline.draw($("timeline"), songs); });

// --- the view, which outlives a reload; while the batch runs, the page is loaded again when nothing plays ---

function saveView(more = {}) {
  if (!restored) return;
  const values = Object.fromEntries(controls.filter(Boolean).map((box) => [box.id, box.value]));
  save("sessionStorage", VIEW, { ...stored("sessionStorage", VIEW), values, ...more });
}
let restored = false;
const view = stored("sessionStorage", VIEW);
for (const box of controls) if (box && typeof view.values?.[box.id] === "string") { box.value = view.values[box.id]; if (box.tagName === "SELECT" && box.selectedIndex < 0) box.value = box === sortBox ? "row" : ""; }
for (const id of Array.isArray(view.opened) ? view.opened : []) opened.add(id);
sort(); filter(); countPicks();
restored = true;
if (byId.has(view.current)) {
  choose(byId.get(view.current));
  if (view.at > 0 && current.file) deck.load(trackOf(current), { at: view.at, play: false });
}
if (view.scroll > 0) requestAnimationFrame(() => scrollTo({ top: view.scroll }));
addEventListener("pagehide", () => saveView({ scroll: scrollY, current: current?.id, at: deck.position, opened: [...opened] }));

if (batch.running) {
  const quiet = view.written === batch.written ? (view.quiet ?? 0) + 1 : 0;
  saveView({ written: batch.written, quiet });
  const live = $("live");
  live.hidden = false;
  live.textContent = "The batch is running: this page follows it.";
  const again = el("button", { type: "button", class: "act", click: () => location.reload() }, "Reload");
  if (quiet >= QUIET_RELOADS) live.replaceChildren("No news for a while: if the run was stopped, the same command continues it. ", again);
  else setInterval(() => {
    const busy = deck.playing || $("help").open || document.hidden || document.activeElement?.matches("input, select, .wave, .stars");
    live.replaceChildren(...(busy ? ["The batch is running: new songs appear when nothing plays. ", again] : ["The batch is running: this page follows it."]));
    if (!busy) location.reload();
  }, 1000 * Math.max(1, batch.renewed));
}
