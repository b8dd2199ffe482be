"use strict";
/* The player that the page of a batch and the page of the example service share: one thing sounds at a time.

   A track is { id, title, detail, cover, length, peaks, voices: [{ url, name, muted }] }. Several voices, the
   stems of a song, play in sync: the first is the clock, the others follow it. */
const Player = (() => {
  const ICONS = {
    play: "M4 2.2v11.6a.8.8 0 0 0 1.2.7l9-5.8a.8.8 0 0 0 0-1.4l-9-5.8A.8.8 0 0 0 4 2.2z",
    pause: "M4 2h2a1 1 0 0 1 1 1v10a1 1 0 0 1-1 1H4a1 1 0 0 1-1-1V3a1 1 0 0 1 1-1zm6 0h2a1 1 0 0 1 1 1v10a1 1 0 0 1-1 1h-2a1 1 0 0 1-1-1V3a1 1 0 0 1 1-1z",
    next: "M2 2.6v10.8a.7.7 0 0 0 1.1.6L10 9v4.4h3V2.6h-3V7L3.1 2A.7.7 0 0 0 2 2.6z",
    previous: "M14 2.6v10.8a.7.7 0 0 1-1.1.6L6 9v4.4H3V2.6h3V7l6.9-5A.7.7 0 0 1 14 2.6z",
  };
  const SVG = "http://www.w3.org/2000/svg";
  const IN_SYNC = 0.008, FAR_OFF = 0.2, CORRECTION = 0.02;  // seconds of drift; the most that the speed is changed by
  const INAUDIBLE = 1e-4;  // -80 dB
  const READY = 3000;  // milliseconds that voices may take to be ready to start together
  const WIDTH = 1000, FLAT = Array(160).fill(0.12);

  /** Return a new element; a property that is a function is a listener, null and false leave an attribute out. */
  function el(name, attributes = {}, ...children) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) {
      if (typeof value === "function") made.addEventListener(key, value);
      else if (value === true) made.setAttribute(key, "");
      else if (value !== null && value !== undefined && value !== false) made.setAttribute(key, value);
    }
    made.append(...children.filter((child) => child !== null && child !== undefined && child !== false && child !== ""));
    return made;
  }
  function drawing(name, attributes) {
    const made = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return made;
  }
  function icon(name) {
    const svg = drawing("svg", { viewBox: "0 0 16 16", class: "icon", "aria-hidden": "true" });
    svg.append(drawing("path", { d: ICONS[name] }));
    return svg;
  }
  const clock = (seconds) => Number.isFinite(seconds) && seconds >= 0
    ? `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")}` : "–:––";

  /** Return a wave form, as an element to seek in: by click, drag and arrow keys. `seek` gets seconds. */
  function wave(peaks, label, seek) {
    const drawn = peaks && peaks.length ? peaks : FLAT;
    const step = WIDTH / drawn.length;
    const bars = drawn.map((peak, i) => {
      const half = Math.max(1.5, 48 * peak);
      return `M${(i * step + step / 2).toFixed(1)} ${(50 - half).toFixed(1)}V${(50 + half).toFixed(1)}`;
    }).join("");
    const svg = drawing("svg", { viewBox: `0 0 ${WIDTH} 100`, preserveAspectRatio: "none", "aria-hidden": "true" });
    for (const part of ["all", "played"]) svg.append(drawing("path", { d: bars, class: part, "stroke-width": (step * 0.62).toFixed(2) }));
    const element = el("div", { class: "wave", role: "slider", tabindex: "0", "aria-label": label, "aria-valuemin": "0" }, svg);
    let length = 0, position = 0, dragged = false, said = "";
    const to = (event) => {
      const box = element.getBoundingClientRect();
      if (length && box.width) seek(Math.min(1, Math.max(0, (event.clientX - box.left) / box.width)) * length);
    };
    element.addEventListener("pointerdown", (event) => {
      if (event.button) return;
      dragged = true;
      element.setPointerCapture(event.pointerId);
      to(event);
    });
    element.addEventListener("pointermove", (event) => { if (dragged) to(event); });
    for (const name of ["pointerup", "pointercancel"]) element.addEventListener(name, () => { dragged = false; });
    element.addEventListener("keydown", (event) => {
      const by = { ArrowLeft: -5, ArrowRight: 5, Home: -Infinity, End: Infinity }[event.key];
      if (by === undefined || event.ctrlKey || event.metaKey || event.altKey || !length) return;
      event.preventDefault(); event.stopPropagation();
      seek(Math.min(Math.max(0, position + by), Math.max(0, length - 0.1)));
    });
    const set = (now, whole, current = true) => {
      position = now; length = Number.isFinite(whole) ? whole : 0;
      element.style.setProperty("--played", `${length ? Math.min(100, 100 * now / length) : 0}%`);
      element.classList.toggle("at", current && now > 0);
      element.classList.toggle("off", !length);
      const text = `${clock(now)} of ${clock(length)}`;
      if (text === said) return;
      said = text;
      element.setAttribute("aria-valuemax", Math.round(length));
      element.setAttribute("aria-valuenow", Math.round(now));
      element.setAttribute("aria-valuetext", text);
    };
    set(0, 0);
    return { element, set };
  }

  /** What plays. Listeners get "track", "state", "time", "ended" and "problem". */
  class Deck {
    constructor(place = document.body) {
      this.track = null; this.voices = []; this.problem = "";
      this._place = place; this._listeners = []; this._loads = 0; this._wanted = this._begins = false; this._start = 0; this._near = new Map();
    }
    on(listener) { this._listeners.push(listener); }
    _say(event) { for (const listener of this._listeners) listener(event); }
    get _clock() { return this.voices[0]; }
    get playing() { return this._wanted; }
    get position() { return this._clock ? (this._clock.readyState ? this._clock.currentTime : this._start) : 0; }
    get length() {
      const own = this._clock ? this._clock.duration : NaN;
      return Number.isFinite(own) && own > 0 ? own : this.track?.length || 0;
    }

    /** Take a track; what sounded before is silent. `at` in seconds. */
    load(track, { at = 0, play = true } = {}) {
      const load = ++this._loads;
      this._silence();
      this.track = track; this.problem = ""; this._start = at; this._wanted = play;
      this.voices = track.voices.map((voice) => this._voice(track, voice, load));
      for (const voice of this.voices) this._move(voice, at);
      this._say("track"); this._say("state");
      if (play) this._begin(load);
    }
    /** Have the first bytes of tracks at hand that may be next, so that a switch between takes has no gap. */
    prepare(tracks) {
      const wanted = new Set(tracks.flatMap((track) => track.voices.map((voice) => voice.url)));
      for (const [url, audio] of this._near) if (!wanted.has(url)) { this._near.delete(url); this._drop(audio); }
      for (const url of wanted) if (!this._near.has(url)) this._near.set(url, this._audio(url));
    }
    /** Let what plays continue at the same place from other files, such as the finished one of an early stream. */
    replace(track) {
      if (this.track?.id === track.id) this.load(track, { at: this.position, play: this.playing });
    }
    play() { if (this.track && !this._wanted) { this._wanted = true; this._say("state"); this._begin(this._loads); } }
    pause() { this._wanted = false; for (const voice of this.voices) voice.pause(); this._say("state"); }
    toggle() { if (this._wanted) this.pause(); else this.play(); }
    seek(seconds) {
      const at = Math.min(Math.max(0, seconds), Math.max(0, this.length - 0.05));
      this._start = at;
      for (const voice of this.voices) this._move(voice, at);
      this._say("time");
      if (this._wanted && this.voices.length > 1) { for (const voice of this.voices) voice.pause(); this._begin(++this._loads); }
    }
    mute(index, muted) { if (this.voices[index]) this._mute(this.voices[index], muted); }
    eject() { this._loads++; this._silence(); this.track = null; this.voices = []; this._wanted = false; this._say("track"); this._say("state"); }

    /** A muted element is taken off the sound card and its clock; one that is too quiet to hear stays in sync. */
    _mute(audio, muted) { audio.volume = muted ? INAUDIBLE : 1; audio.muted = muted && audio.volume === 1; }
    _audio(url) {
      const audio = el("audio", { preload: "auto", src: url });
      this._place.append(audio);
      return audio;
    }
    _drop(audio) { audio.pause(); audio.removeAttribute("src"); audio.load(); audio.remove(); }
    _silence() { for (const voice of this.voices) { voice.detach(); this._drop(voice); } this.voices = []; }
    _voice(track, { url, muted = false }, load) {
      const audio = this._near.get(url) || this._audio(url);
      this._near.delete(url);
      const first = this.voices.length === 0, owner = new AbortController();
      const listen = (name, listener) => audio.addEventListener(name, (event) => { if (this.voices.includes(audio)) listener(event); }, { signal: owner.signal });
      audio.detach = () => owner.abort();
      audio.dataset.track = track.id; this._mute(audio, muted); audio.preservesPitch = false; audio.playbackRate = 1;
      listen("durationchange", () => { if (audio === this._clock) this._say("time"); });
      listen("ended", () => { if (audio === this._clock) { this._wanted = false; for (const voice of this.voices) voice.pause(); this._say("state"); this._say("ended"); } });
      listen("pause", () => { if (audio === this._clock && this._wanted && audio.paused && !audio.ended && !this._begins) { this._wanted = false; this._say("state"); } });  // by a key of the keyboard or the system
      const failed = () => { this.problem = this._absent(url); this._wanted = false; this._say("problem"); this._say("state"); };
      listen("error", failed);
      if (audio.error) setTimeout(failed);
      return audio;
    }
    _absent(url) {
      const name = url.startsWith("data:") ? "The audio in this page" : decodeURIComponent(url.split("?")[0].split("/").pop());
      return location.protocol === "file:" || location.protocol === "about:"
        ? `${name} cannot be played: it is not beside this page, or the browser does not know its format.`
        : `${name} cannot be played just now.`;
    }
    _move(audio, at) {
      if (audio.readyState) { audio.currentTime = at; return; }
      audio.addEventListener("loadedmetadata", () => { if (this.voices.includes(audio)) audio.currentTime = this._start; }, { once: true });
    }
    /** Start all voices together, once each has enough to play. */
    async _begin(load) {
      const voices = this.voices;
      this._begins = true;
      if (voices.length > 1) {
        const ready = (audio) => audio.readyState >= 3 && !audio.seeking ? null : new Promise((resolve) => {
          const look = () => { if (audio.error || (audio.readyState >= 3 && !audio.seeking)) resolve(); };
          for (const name of ["canplay", "seeked", "error", "emptied"]) audio.addEventListener(name, look);
          setTimeout(resolve, READY);
        });
        await Promise.all(voices.map(ready));
      }
      if (load !== this._loads || !this._wanted) return;
      this._begins = false;
      for (const audio of voices) {
        audio.play().catch((error) => {
          if (error.name === "NotAllowedError" && load === this._loads) { this._wanted = false; this._say("state"); }
        });
      }
      this._follow(load);
    }
    /** Report the time, and have the other voices follow the first: a little faster or slower, with a jump only
        where they are far off. */
    _follow(load) {
      if (load !== this._loads || !this._wanted) return;
      const now = this._clock.currentTime;
      for (const audio of this.voices.slice(1)) {
        const drift = audio.currentTime - now;
        if (audio.ended || audio.error || audio.seeking || now >= audio.duration) continue;
        if (Math.abs(drift) > FAR_OFF) audio.currentTime = now;
        audio.playbackRate = Math.abs(drift) < IN_SYNC ? 1 : 1 - Math.max(-CORRECTION, Math.min(CORRECTION, drift));
      }
      this._say("time");
      setTimeout(() => this._follow(load), 100);
    }
  }

  /** Return the player at the lower edge of the window. `more` are controls of the page itself. */
  function bar(deck, { more = [], step = null } = {}) {
    const image = el("img", { alt: "" });
    image.addEventListener("error", () => image.classList.add("absent"));
    image.addEventListener("load", () => image.classList.remove("absent"));
    const title = el("b"), detail = el("span"), times = el("span", { class: "times" }), problem = el("p", { class: "problem", role: "alert", hidden: true });
    const button = el("button", { type: "button", class: "round", click: () => deck.toggle() });
    const line = el("div", { class: "line" });
    const skip = (name, label, by) => el("button", { type: "button", class: "plain", "aria-label": label, title: label, click: () => step(by) }, icon(name));
    const buttons = el("div", { class: "buttons" }, step && skip("previous", "Previous take (k)", -1), button, step && skip("next", "Next take (j)", 1));
    const extra = el("div", { class: "buttons more" }, ...more);
    const element = el("section", { class: "player", "aria-label": "Player", hidden: true },
      el("div", { class: "inside" }, el("div", { class: "cover" }, image), buttons, el("div", { class: "what" }, title, detail), line, times, extra, problem));
    let form = null;
    const time = () => { times.textContent = `${clock(deck.position)} / ${clock(deck.length || NaN)}`; form?.set(deck.position, deck.length); };
    deck.on((event) => {
      if (event === "track") {
        const track = deck.track;
        element.hidden = !track;
        document.body.classList.toggle("has-player", !!track);
        if (!track) return;
        title.textContent = track.title; detail.textContent = track.detail || "";
        image.classList.toggle("absent", !track.cover);
        if (track.cover) image.src = track.cover; else image.removeAttribute("src");
        form = wave(track.peaks, `Position in ${track.title}`, (seconds) => deck.seek(seconds));
        line.replaceChildren(form.element);
      }
      if (event === "state") {
        const label = deck.playing ? "Pause" : "Play";
        button.replaceChildren(icon(deck.playing ? "pause" : "play"));
        button.setAttribute("aria-label", `${label} ${deck.track?.title || ""}`.trim());
        button.title = `${label} (space)`;
      }
      problem.textContent = deck.problem; problem.hidden = !deck.problem;
      time();
    });
    document.body.append(element);
    return element;
  }
  return { Deck, bar, clock, drawing, el, icon, wave };
})();
