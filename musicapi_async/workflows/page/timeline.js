/* The course of a run: when each song waited for the rate, was generated, and was downloaded. */
const Timeline = (() => {
  const { drawing, el } = Player;
  const PHASES = [["rate", "waiting for the rate"], ["generating", "generating"], ["downloading", "steps and downloading"]];
  /** Return the phases of a song as [phase, begin, end]; a clock that was set meanwhile gives none. */
  const spansOf = (song) => (song.times ?? []).slice(0, 3).map((begin, i) => [i, begin, song.times[i + 1]]).filter(([, begin, end]) => begin > 0 && end > begin);
  function duration(value) {
    const whole = Math.round(value), hours = Math.floor(whole / 3600), minutes = Math.floor((whole % 3600) / 60);
    return hours ? `${hours} h ${minutes} min` : minutes ? `${minutes} min ${whole % 60} s` : value < 10 && value !== whole ? `${value.toFixed(1)} s` : `${whole} s`;
  }
  /** Return a function from time to place, in which idle times between runs are short. */
  function scale(all) {
    const pieces = [];
    for (const [, begin, end] of all.sort((one, two) => one[1] - two[1])) {
      const last = pieces.at(-1);
      if (last && begin <= last.end + Math.max(60, 0.2 * (last.end - last.begin))) last.end = Math.max(last.end, end);
      else pieces.push({ begin, end });
    }
    const whole = pieces.reduce((sum, piece) => sum + piece.end - piece.begin, 0), gap = 0.03 * whole;
    let at = 0;
    for (const piece of pieces) { piece.at = at; at += piece.end - piece.begin + gap; }
    const total = Math.max(at - gap, 1e-9);
    return { pieces, total, place: (time) => { const piece = pieces.findLast((one) => one.begin <= time) ?? pieces[0]; return (piece.at + Math.min(time, piece.end) - piece.begin) / total; } };
  }
  function draw(box, songs) {
    const spans = songs.map(spansOf), all = spans.flat();
    if (!all.length) { box.append(el("p", { class: "soft" }, "No song has times yet.")); return; }
    const sums = PHASES.map((_, phase) => all.filter(([which]) => which === phase).map(([, begin, end]) => end - begin).sort((one, two) => one - two));
    const head = el("tr", {}, ...["Phase", "All songs together", "Median of a song", "Longest"].map((text) => el("th", { scope: "col" }, text)));
    box.append(el("table", {}, el("thead", {}, head), el("tbody", {}, ...PHASES.map(([look, text], phase) => {
      const times = sums[phase], cells = times.length ? [times.reduce((sum, one) => sum + one, 0), times[times.length >> 1], times.at(-1)] : [0, 0, 0];
      return el("tr", {}, el("th", { scope: "row" }, el("i", { class: `phase ${look}` }), text), ...cells.map((value) => el("td", {}, duration(value))));
    }))));
    const { pieces, total, place } = scale(all), LEFT = 46, WIDTH = 1000, HIGH = songs.length > 60 ? 4 : 14, shown = songs.filter((song, index) => spans[index].length);
    const x = (share) => LEFT + share * (WIDTH - LEFT - 8);
    const chart = drawing("svg", { viewBox: `0 0 ${WIDTH} ${shown.length * HIGH + 30}`, role: "img", "aria-label": "When each song waited, was generated and was downloaded" });
    const mark = (name, attributes, text) => { const made = drawing(name, attributes); if (text) made.append(text); chart.append(made); return made; };
    const tick = [1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21600, 86400].find((one) => total / one <= 9) ?? 86400 * Math.ceil(total / 86400 / 9);
    for (const [number, piece] of pieces.entries()) {
      if (number) mark("text", { x: x((piece.at - 0.015 * total) / total), y: 14, class: "soft", "text-anchor": "middle" }, "…");
      for (let time = 0; time <= piece.end - piece.begin; time += tick) {
        const at = x((piece.at + time) / total);
        mark("line", { x1: at, x2: at, y1: 20, y2: shown.length * HIGH + 24, class: "grid" });
        mark("text", { x: at, y: 14, class: "soft", "text-anchor": "middle" }, time ? duration(time) : new Date(piece.begin * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit" }));
      }
    }
    const apart = Math.max(1, Math.ceil(14 / HIGH));
    for (const [row, song] of shown.entries()) {
      const y = 24 + row * HIGH;
      if (row % apart === 0) mark("text", { x: LEFT - 8, y: y + HIGH / 2 + 4, class: "soft", "text-anchor": "end" }, String(song.row));
      for (const [phase, begin, end] of spansOf(song)) {
        const bar = mark("rect", { x: x(place(begin)), y: y + 0.1 * HIGH, width: Math.max(0.8, x(place(end)) - x(place(begin))), height: 0.8 * HIGH, class: `phase ${PHASES[phase][0]}` });
        bar.append(Object.assign(drawing("title", {}), { textContent: `${song.row} ${song.title}: ${PHASES[phase][1]}, ${duration(end - begin)}` }));
      }
    }
    box.append(el("div", { class: "chart" }, chart));
  }
  return { draw };
})();
