/* What the page displays of songs and takes, drawn when they come into view. */
// --- stems ---

/** A browser opens no page at a file that is in this one: it is saved instead. */
const linkTo = (file, name) => (file.startsWith("data:") ? { href: file, download: name } : { href: file });
const mixOf = (take) => { if (!soundOf.has(take.id)) soundOf.set(take.id, { muted: new Set(), solo: new Set() }); return soundOf.get(take.id); };
function isMuted(take, stem) {
  const { muted, solo } = mixOf(take);
  return muted.has(stem.name) || (solo.size > 0 && !solo.has(stem.name));
}
function applyMix(take) {
  if (isOn(take) && deck.track.kind === "stems") sounding(take).forEach((stem, index) => deck.mute(index, isMuted(take, stem)));
}
function stemsOf(take) {
  const silent = take.stems.filter((stem) => stem.silent), list = el("ul", { class: "stems" });
  const button = el("button", { type: "button", class: "act stem-play" });
  button.addEventListener("click", () => {
    choose(take);
    if (isOn(take) && deck.track.kind === "stems") deck.toggle();
    else deck.load(stemTrackOf(take), { at: deck.track?.take.song === take.song ? deck.position : 0 });
  });
  const flip = (set, other, stem) => () => {
    if (set.has(stem.name)) set.delete(stem.name); else { set.add(stem.name); other.delete(stem.name); }
    draw(); applyMix(take);
  };
  const toggles = sounding(take).map((stem) => {
    const { muted, solo } = mixOf(take);
    const mute = el("button", { type: "button", class: "act", "aria-label": `Mute ${stem.name}`, click: flip(muted, solo, stem) }, "Mute");
    const alone = el("button", { type: "button", class: "act", "aria-label": `Solo ${stem.name}`, click: flip(solo, muted, stem) }, "Solo");
    list.append(el("li", {}, el("span", {}, stem.name), mute, alone, el("a", { class: "act", ...linkTo(stem.file, `${take.name} ${stem.name}`), "aria-label": `File of ${stem.name}` }, "File")));
    return { stem, mute, alone };
  });
  function draw() {
    const { muted, solo } = mixOf(take), plays = isOn(take) && deck.track.kind === "stems" && deck.playing;
    button.textContent = plays ? "Pause the stems" : "Play the stems";
    for (const { stem, mute, alone } of toggles) {
      mute.setAttribute("aria-pressed", muted.has(stem.name));
      alone.setAttribute("aria-pressed", solo.has(stem.name));
      mute.parentElement.classList.toggle("muted", isMuted(take, stem));
    }
  }
  draw();
  const folded = silent.length ? el("details", {}, el("summary", {}, `${silent.length} silent`), el("p", { class: "soft" }, silent.map((stem) => stem.name).join(", "))) : null;
  return { element: el("section", {}, el("h4", {}, "Stems"), toggles.length ? button : null, list, folded), state: draw };
}

// --- lyrics ---

function lyricsOf(take) {
  if (!take.lines?.length) return take.lyrics ? { element: el("section", {}, el("h4", {}, "Lyrics"), el("p", { class: "lyrics words" }, take.lyrics)), time() {} } : null;
  const lines = take.lines.map(([start, text]) => el("button", { type: "button", class: "line", click: () => seekTake(take, start) }, text));
  const box = el("div", { class: "lyrics" }, ...lines);
  let last = -1;
  function time() {
    let now = -1;
    if (isOn(take) && deck.track.kind !== "file") {
      now = take.lines.findIndex(([start]) => start > deck.position + 0.05);
      now = (now < 0 ? lines.length : now) - 1;
    }
    if (now === last) return;
    lines[last]?.removeAttribute("aria-current");
    last = now;
    if (now < 0) return;
    lines[now].setAttribute("aria-current", "true");
    box.scrollTop = lines[now].offsetTop - box.clientHeight / 2;
  }
  return { element: el("section", {}, el("h4", {}, "Lyrics"), box), time };
}

// --- picks ---

function starControl(take) {
  const control = el("div", { class: "stars", role: "slider", tabindex: "0", "aria-label": `Rating of ${take.song.title}, ${take.name}`, "aria-valuemin": "0", "aria-valuemax": "5" });
  for (let number = 1; number <= 5; number++) control.append(el("span", { "aria-hidden": "true", click: () => pick(take, { stars: pickOf(take).stars === number ? 0 : number }) }));
  control.addEventListener("keydown", (event) => {
    const by = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1, Home: -5, End: 5 }[event.key];
    const stars = by ? Math.min(5, Math.max(0, pickOf(take).stars + by)) : /^[0-5]$/.test(event.key) ? Number(event.key) : null;
    if (stars === null || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault(); event.stopPropagation();
    pick(take, { stars });
  });
  return control;
}
function pickControls(take) {
  const toggle = (choice, text) => el("button", { type: "button", class: `act ${choice}`, "aria-label": `${text} ${take.song.title}, ${take.name}`,
    click: () => pick(take, { choice: pickOf(take).choice === choice ? "" : choice }) }, text);
  const controls = el("div", { class: "pick" }, starControl(take), toggle("keep", "Keep"), toggle("drop", "Drop"));
  controls.dataset.pick = take.id;
  drawPick(controls, take);
  return controls;
}
function drawPick(controls, take) {
  const { stars, choice } = pickOf(take), slider = controls.querySelector(".stars");
  slider.setAttribute("aria-valuenow", stars);
  slider.setAttribute("aria-valuetext", stars === 1 ? "1 star" : stars ? `${stars} stars` : "not rated");
  [...slider.children].forEach((star, index) => star.classList.toggle("on", index < stars));
  for (const name of ["keep", "drop"]) controls.querySelector(`.${name}`).setAttribute("aria-pressed", choice === name);
}
function redrawPick(take) {
  for (const controls of document.querySelectorAll("[data-pick]")) if (controls.dataset.pick === take.id) drawPick(controls, take);
  const row = rows.get(take.id);
  if (row) row.state();
}
function countPicks() {
  const marked = (choice) => takes.filter((take) => pickOf(take).choice === choice).length;
  const rated = takes.filter((take) => pickOf(take).stars).length, keep = marked("keep");
  $("picked").textContent = `${keep} to keep, ${marked("drop")} to drop, ${rated} rated`;
  $("m3u").disabled = !keep;
  $("m3u").title = keep ? "A playlist of the takes to keep" : "Mark takes to keep first";
}

// --- one take, one song ---

function takeRow(take) {
  const song = take.song, form = wave(take.peaks, `Position in ${song.title}, ${take.name}`, (at) => seekTake(take, at));
  const image = take.cover ? el("img", { src: take.cover, alt: "", loading: "lazy", decoding: "async" }) : null;
  image?.addEventListener("error", () => image.classList.add("absent"));
  const button = el("button", { type: "button", class: "round", click: () => playTake(take) });
  const times = el("span", { class: "times" });
  const facts = [take.title && take.title !== song.title ? take.title : "", take.bpm ? `${Math.round(take.bpm)} bpm` : "", take.tags].filter(Boolean).join(" · ");
  const element = el("section", { class: "take", "aria-label": `${song.title}, ${take.name}` },
    el("div", { class: "cover" }, image, take.file ? button : null),
    el("div", { class: "name" }, el("h3", {}, take.name), el("span", { class: "soft", title: facts }, facts)),
    pickControls(take),
    take.file ? el("div", { class: "seek" }, form.element, times) : null,
    take.error ? el("p", { class: "bad" }, take.error) : null,
    ...(take.failed ?? []).map((failed) => el("p", { class: "bad" }, `${failed.label} failed: ${failed.error}`)));
  const parts = [];
  const more = details(take, parts);
  if (more) element.append(more);
  const row = {
    element,
    time() {
      const on = isOn(take) && deck.track.kind !== "file";
      form.set(on ? deck.position : 0, take.length || (on ? deck.length : 0), on);
      times.textContent = on ? `${clock(deck.position)} / ${clock(take.length ?? deck.length)}` : clock(take.length ?? NaN);
      for (const part of parts) part.time?.();
    },
    state() {
      const plays = isOn(take) && deck.track.kind === "take" && deck.playing;
      button.replaceChildren(icon(plays ? "pause" : "play"));
      button.setAttribute("aria-label", `${plays ? "Pause" : "Play"} ${song.title}, ${take.name}`);
      element.classList.toggle("current", current === take);
      element.classList.toggle("dropped", pickOf(take).choice === "drop");
      element.classList.toggle("chosen", pickOf(take).choice === "keep");
      row.time();
      for (const part of parts) part.state?.();
    },
  };
  rows.set(take.id, row);
  row.state();
  return element;
}
/** The lyrics, stems and files of a take, made when they are opened. */
function details(take, parts) {
  const has = [take.lines?.length || take.lyrics ? "lyrics" : "", take.stems?.length ? "stems" : "", take.files?.length ? "files" : "", take.facts?.length ? "facts" : ""].filter(Boolean);
  if (!has.length) return null;
  const inside = el("div", { class: "parts" });
  const box = el("details", { class: "more" }, el("summary", {}, sentence(has)), inside);
  box.addEventListener("toggle", () => {
    if (box.open) opened.add(take.id); else opened.delete(take.id);
    if (!box.open || inside.childElementCount) return;
    const lyrics = lyricsOf(take), stems = take.stems?.length ? stemsOf(take) : null;
    for (const part of [lyrics, stems]) if (part) { parts.push(part); inside.append(part.element); }
    if (take.files?.length) inside.append(filesOf(take));
    if (take.facts?.length) inside.append(el("section", {}, el("h4", {}, "Facts"), factList(take.facts)));
    rows.get(take.id)?.state();
  });
  if (opened.has(take.id)) box.open = true;
  return box;
}
const sentence = (names) => { const text = names.join(", "); return text[0].toUpperCase() + text.slice(1); };
const factList = (facts) => el("dl", { class: "facts" }, ...facts.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]));
function filesOf(take) {
  const labels = [...new Set(take.files.map((file) => file.label))];
  return el("section", {}, el("h4", {}, "Files"), el("ul", { class: "files" }, ...labels.map((label) => el("li", {}, el("span", {}, label),
    ...take.files.filter((file) => file.label === label).flatMap((file) => [
      file.audio ? el("button", { type: "button", class: "act", "aria-label": `Play ${label}`, click: () => { choose(take); deck.load(fileTrackOf(take, file)); } }, "Play") : null,
      el("a", { class: "act", ...linkTo(file.file, `${take.name} ${label}`), "aria-label": `${label}, ${file.ending}` }, file.ending)])))));
}
function songBody(song) {
  const persona = song.persona && (personas.get(song.persona)?.name ? `${personas.get(song.persona).name} (${song.persona})` : song.persona);
  const facts = [["Model", song.model], ["Persona", persona], ["Cost", song.cost], ["Operation", song.operation], ["Task", song.task_id], ...(song.facts ?? [])].filter(([, value]) => value);
  return [
    song.note ? el("p", { class: song.state === "done" ? "soft" : "bad" }, song.note) : null,
    song.takes.length ? el("div", { class: "takes" }, ...song.takes.map(takeRow)) : null,
    el("details", { class: "about" }, el("summary", {}, [song.model, song.cost ? song.cost : ""].filter(Boolean).join(" · ") || "About"),
      song.prompt ? el("p", { class: "prompt" }, song.prompt) : null, factList(facts)),
  ].filter(Boolean);
}
/** Return what tells a song from others with titles of the service's own: its id in the manifest, its prompt. */
const about = (song) => [song.named ? song.id : "", (song.prompt ?? "").slice(0, PROMPT_LENGTH).replace(/\[[^\]]*\]/g, " ").replace(/\s+/g, " ").trim()].filter((part) => part && part !== song.title).join(" · ");
function makeCard(song) {
  const from = about(song);
  const card = el("article", { class: "card song", id: `song-${song.row}`, "aria-labelledby": `title-${song.row}` },
    el("div", { class: "top" }, el("span", { class: "number" }, song.row), el("h2", { id: `title-${song.row}` }, song.title),
      from ? el("span", { class: "from soft", title: from }, from) : null,
      song.state === "done" ? null : el("span", { class: `state ${STATE_CLASSES[song.state] ?? ""}` }, STATES[song.state] ?? song.state)),
    el("div", { class: "body" }));
  card.song = song;
  if (!song.takes.length) card.classList.add("bare");
  return card;
}
const bodyOf = (song) => cards[song.index].lastElementChild;
function fill(song) {
  const body = bodyOf(song);
  if (body.childElementCount) return;
  body.style.minHeight = "";
  body.append(...songBody(song));
}
function empty(song) {
  const body = bodyOf(song);
  if (!body.childElementCount || body.contains(document.activeElement)) return;
  body.style.minHeight = `${body.offsetHeight}px`;
  body.replaceChildren();
  for (const take of song.takes) rows.delete(take.id);
}
const near = new IntersectionObserver((entries) => {
  for (const { isIntersecting, target } of entries) if (isIntersecting) fill(target.song); else empty(target.song);
}, { rootMargin: AHEAD });
for (const song of songs) { const card = makeCard(song); cards.push(card); near.observe(card); }
