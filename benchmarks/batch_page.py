"""The page of a batch of 1,000 songs in a browser: first paint, search, and what writing it costs.

    python benchmarks/batch_page.py [--songs 1000] [--rounds 25]

Needs chromium and chromedriver.
"""

from __future__ import annotations

import random
import statistics
import sys
import tempfile
import time
import tracemalloc
from pathlib import Path
from typing import Any

from report import Report, arguments

sys.path.insert(0, str(Path(__file__).parent.parent))
sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from browser import set_width, start_browser

from musicapi_async.workflows import ClipRecord, SongRecord, StepRecord
from musicapi_async.workflows.batch_folder import BatchFolder
from musicapi_async.workflows.batch_report import write_page
from musicapi_async.workflows.report_overview import PageState
from musicapi_async.workflows.run_record import RowRecord, RunRecord

WHAT = """{songs:,} songs with two takes each: wave forms, 40 lines of lyrics with times, twelve stems of a
take, a tempo and a cost. The page has {size:.1f} MB. *Empty* is a page of the same size whose data no script
reads. Both load from the disk in turns, in one browser, which draws without a graphics card; the figures are
medians of {rounds} loads, after one that does not count, and their ratio is the median of the ratios of two
that followed each other. *First paint* is the browser's own first-contentful-paint, *songs drawn* the frame
after the first songs are there. A key in the search is a letter in the box, from the event until the frame
after it is painted."""
WORDS = (
    "rain", "tram", "paper", "boats", "kitchen", "northern", "hours", "copper", "tide", "glass", "ember",
    "sunday", "radio", "river", "salt", "wire",
)  # fmt: skip
KEYS = ("rain", "copper sonic-v5", "glass tide", "zzz")
PAINT, KEY = 1.3, 50.0
"""Bounds: of the first paint against that of an empty page, and of a key in ms."""

PAINTED = """
const done = arguments[arguments.length - 1];
const ready = () => {
  const paint = performance.getEntriesByName('first-contentful-paint')[0];
  if (!paint || !window.drawn) return setTimeout(ready, 10);
  done([paint.startTime, window.drawn]);
};
ready();
"""
DRAWN = """
const look = () => {
  if (!document.querySelector('.take, #empty')) return setTimeout(look, 5);
  requestAnimationFrame(() => setTimeout(() => { window.drawn = performance.now(); }));
};
look();
"""
TYPED = """
const [text, done] = [arguments[0], arguments[arguments.length - 1]];
const box = document.getElementById('search') || document.createElement('input'), times = [];
const next = (count) => {
  if (count > text.length) { box.value = ''; box.dispatchEvent(new Event('input')); return done(times); }
  const begun = performance.now();
  box.value = text.slice(0, count);
  box.dispatchEvent(new Event('input'));
  requestAnimationFrame(() => setTimeout(() => {
    times.push(performance.now() - begun);
    setTimeout(next, 30, count + 1);
  }));
};
next(1);
"""


def song(rng: random.Random, number: int) -> SongRecord:
    """One song as a run has settled it."""
    lines = [" ".join(rng.choices(WORDS, k=6)) for _ in range(40)]
    words = [
        {"word": f"{line}\n", "start_s": 4.0 * at, "end_s": 4.0 * at + 3} for at, line in enumerate(lines)
    ]

    def clip(take: int) -> ClipRecord:
        steps = [
            StepRecord(name="lyrics", state="done", reply={"words": words}),
            StepRecord(name="bpm", state="done", reply={"avg_bpm": rng.uniform(60, 180)}),
        ]
        if take == 0:
            names = [f"stem {stem}" for stem in range(12)]
            files = [f"stems/{number}/{name}.mp3" for name in names]
            steps.append(
                StepRecord(name="stems_full", state="done", labels=names, files=files, silent=files[8:])
            )
        return ClipRecord(
            clip_id=f"{number}-{take}",
            state="succeeded",
            title=f"Song {number}",
            tags=", ".join(rng.sample(WORDS, 3)),
            lyrics="\n".join(lines),
            duration=rng.uniform(60, 240),
            file=f"{number:04} Song (take {take + 1}).mp3",
            cover=f"covers/{number}-{take}.jpeg",
            peaks=[round(rng.random(), 3) for _ in range(160)],
            steps=steps,
        )

    begun = 1_800_000_000 + 3 * number
    return SongRecord(
        id=f"s{number}",
        line=number,
        operation="sonic.create_music",
        title=" ".join(rng.sample(WORDS, 3)),
        fields={"mv": rng.choice(["sonic-v6", "sonic-v5"]), "prompt": "\n".join(lines)},
        state="done",
        task_id=f"task-{number}",
        clips=[clip(0), clip(1)],
        queued_at=begun,
        submitted_at=begun + rng.uniform(0, 60),
        ended_at=begun + 180,
        fetched_at=begun + 190,
    )


def make(out: Path, songs: int, seed: int) -> tuple[Path, Path, float, float]:
    """Write the page and an empty one; return both, the seconds that writing takes, and its memory in MB."""
    rng, folder = random.Random(seed), BatchFolder(out)
    records = [song(rng, number) for number in range(1, songs + 1)]
    for record in records:
        folder.save(record)
    rows = [RowRecord(one.id, one.id, one.line, one.title, one.operation) for one in records]
    run = RunRecord(batch_id="bench", source="songs.jsonl", rows=rows, started_at=1, ended_at=2)
    state = PageState(run=run, costs={one.id: "24 credits" for one in records})
    del records
    page, empty = out / "report.html", out / "empty.html"
    write_page(page, folder, state)
    took = []
    for _ in range(3):
        begun = time.perf_counter()
        write_page(page, folder, state)
        took.append(time.perf_counter() - begun)
    tracemalloc.start()
    write_page(page, folder, state)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    text = page.read_text("utf-8")
    data = text[text.index('<script type="application/json" id="songs">') : text.index("</script>\n<script>")]
    head = (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Empty</title><p id="empty">Nothing</p>'
    )
    rest = " " * (len(text) - len(data) - len(head))
    empty.write_text(f"{head}<!--{rest}-->{data}</script>", encoding="utf-8")
    return page, empty, statistics.median(took), peak / 1e6


def load(driver: Any, page: Path) -> tuple[float, float]:
    """Load a page; return when it was first painted, and when its songs were drawn, in ms."""
    driver.get(page.as_uri())
    paint, drawn = driver.execute_async_script(PAINTED)
    return paint, drawn


def type_in(driver: Any) -> list[float]:
    """Type the words of `KEYS`; return how long each key took, in ms, the quickest first."""
    return sorted(time for text in KEYS for time in driver.execute_async_script(TYPED, text))


def main() -> None:
    parser = arguments((__doc__ or "").partition("\n")[0])
    parser.add_argument("--songs", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=25)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        page, empty, writing, memory = make(Path(folder, "batch"), options.songs, options.seed)
        size = page.stat().st_size / 1e6
        what = WHAT.format(songs=options.songs, size=size, rounds=options.rounds)
        report = Report("batch_page", what, ("jinja2",))
        driver = start_browser(Path(folder, "profile"))
        try:
            driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": DRAWN})
            set_width(driver, 1280)
            loads: dict[Path, list[tuple[float, float]]] = {page: [], empty: []}
            for number in range(options.rounds + 1):
                for one in (page, empty) if number % 2 else (empty, page):
                    found = load(driver, one)
                    if number:
                        loads[one].append(found)
            load(driver, page)
            keys = type_in(driver)
            load(driver, empty)
            idle = type_in(driver)
        finally:
            driver.quit()
    paints = {one: statistics.median(paint for paint, _ in found) for one, found in loads.items()}
    drawn = statistics.median(drawn for _, drawn in loads[page])
    report.table(
        "Loading", ("page", "first paint ms", "songs drawn ms"),
        [("of the batch", paints[page], drawn), ("empty", paints[empty], "")],
    )  # fmt: skip
    report.table(
        f"A key in the search, in ms, {len(keys)} times", ("page", "median", "95 %", "longest"),
        [(name, statistics.median(found), found[int(0.95 * len(found))], found[-1])
         for name, found in (("of the batch", keys), ("empty, so a frame alone", idle))],
    )  # fmt: skip
    report.table(
        "Writing the page", ("seconds", "ms a song", "MB at most"),
        [(writing, 1e3 * writing / options.songs, memory)],
    )  # fmt: skip
    pairs = zip(loads[page], loads[empty], strict=True)
    ratio = statistics.median(one / other for (one, _), (other, _) in pairs)
    report.target("first paint against that of an empty page", ratio, PAINT)
    report.target("a key in the search, 95 % of them, in ms", keys[int(0.95 * len(keys))], KEY)
    report.write(options.out)


if __name__ == "__main__":
    main()
