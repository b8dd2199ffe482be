"""The manifest: a file of songs, read and checked whole before the first credit is spent.

JSON Lines: one song on each line, the fields of a submitting operation and, if wanted, more:

    {"mv": "sonic-v6", "gpt_description_prompt": "calm rain", "steps": ["stems_basic", "wav"]}
    {"id": "intro", "operation": "sonic.create_music", "mv": "sonic-v6", "prompt": "[Verse] ...",
     "clips": "first", "steps": [{"persona": {"name": "Voice"}}, {"extend": {"continue_at": 60, ...}}]}

`operation` is any that gives a task (default `sonic.create_music`); `steps` follow for each clip of the song
(`"clips": "first"`: for the first only). The step `everything` means stems, WAV, MIDI and timed lyrics. A
table (CSV with commas, semicolons or tabs) has the same names in its header, and its steps separated by `;`
or `,`.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, cast

import msgspec

from ..api.families import FAMILIES
from ..api.operation import Operation
from ..api.request import Request, fields, violations
from ..api.suggestions import is_folder, nearest
from ..errors import RequestValidationError, Violation
from .manifest_rows import Fault, Form, Row, form_of, json_rows, table_rows, text_of

FORMS: Final[dict[str, Form]] = {".csv": "table", ".tsv": "table"}
"""How the rows of a file are written, by its ending; all others are JSON Lines."""
SIZE_LIMIT: Final = 256 * 1024 * 1024
"""Bytes of a manifest; a hundred thousand songs with long lyrics."""
REPORTED: Final = 20
"""Faults that one error names; more are counted."""
ID_LENGTH: Final = 120
DEFAULT_OPERATION: Final = "sonic.create_music"

STEP_NAMES: Final[Mapping[str, str]] = {
    "persona": "create_persona",
    "stems": "stems_basic",
    "lyrics": "aligned_lyrics",
    "extend": "extend_music",
    "cover": "cover_music",
}
"""Short names of steps. `extend` also joins the extension to the song."""
EVERYTHING: Final = "everything"
"""The step that means all that `workflows.everything` does."""
STEPS_OF_EVERYTHING: Final = ("stems", "wav", "midi", "lyrics")
NEEDS_SINGING: Final = "aligned_lyrics"
"""The operation that has nothing to work on in an instrumental."""
OF_A_LINE: Final = ("id", "operation", "clips", "steps")
"""Names in a line beside the fields of its operation."""
SUBMITTING: Final = tuple(
    f"{word}.{name}"
    for word, family in FAMILIES.items()
    for name, operation in family.operations().items()
    if operation.submits
)
SOURCES: Final = ("clip_id", "continue_clip_id")
"""Fields that take the clip that a step works on."""

Which = Literal["all", "first"]


class SongStep(msgspec.Struct, frozen=True):
    """A step that follows for a clip: an operation of its family, with `fields` beside the clip id."""

    name: str
    operation: str
    source: str
    fields: dict[str, Any] = msgspec.field(default_factory=dict[str, Any])


class Song(msgspec.Struct, frozen=True):
    """One line: an operation with its fields, and the steps that follow for its clips."""

    id: str
    line: int
    family: str
    operation: str
    fields: dict[str, Any]
    steps: tuple[SongStep, ...] = ()
    clips: Which = "all"

    @property
    def key(self) -> str:
        """The job key of the song."""
        return f"{self.id}/{self.operation}"

    def step_key(self, step: str, clip_id: str, operation: str) -> str:
        """Return the job key of an operation that a step makes for a clip."""
        return f"{self.id}/{step}/{clip_id}/{operation}"

    @property
    def title(self) -> str:
        """The name of the song before it has a title."""
        return str(self.fields.get("title") or self.fields.get("gpt_description_prompt") or self.id)[:80]


class Manifest(msgspec.Struct, frozen=True):
    """All songs of a batch, in their order; `source` names the file in errors."""

    songs: tuple[Song, ...]
    source: str = "manifest"

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Manifest:
        """Read and check a `.jsonl`, `.csv` or `.tsv` file. Sends nothing, costs nothing.

        Raises `RequestValidationError`, which names each faulty line and field, and `OSError`.
        """
        file = Path(path)
        with file.open("rb") as opened:
            data = opened.read(SIZE_LIMIT + 1)
        form: Form = FORMS.get(file.suffix.lower(), "json")
        return cls.parse(data, str(file), form=form, separator="\t" if file.suffix.lower() == ".tsv" else "")

    @classmethod
    def parse(
        cls, data: bytes, source: str = "manifest", *, form: Form | None = None, separator: str = ""
    ) -> Manifest:
        """Check the bytes of a manifest, such as those of standard input. Sends nothing, costs nothing.

        Args:
            data: The text in UTF-8.
            source: What errors call it.
            form: 'json' or 'table'; by default a text that begins with a brace is JSON.
            separator: Of the columns of a table; by default the one that the header has most of.

        Raises:
            RequestValidationError: Names each faulty line and field.
        """
        if len(data) > SIZE_LIMIT:
            fault = Fault(
                "file", f"at most {SIZE_LIMIT} bytes", "", f"the file is larger than {SIZE_LIMIT} bytes"
            )
            raise _refuse(source, [(0, fault)])
        text = text_of(data)
        if isinstance(text, tuple):
            raise _refuse(source, [text])
        is_table = (form or form_of(text)) == "table"
        rows = table_rows(text, separator) if is_table else json_rows(text)
        return cls._checked(rows, source, loose=is_table)

    @classmethod
    def of(cls, songs: Sequence[Mapping[str, Any]], source: str = "manifest") -> Manifest:
        """Check songs given as mappings, with the keys of a line of a manifest."""
        rows = ((number, dict(song)) for number, song in enumerate(songs, 1))
        return cls._checked(rows, source, loose=False)

    @classmethod
    def _checked(cls, rows: Iterator[Row], source: str, *, loose: bool) -> Manifest:
        faults: list[tuple[int, Violation]] = []
        songs: list[Song] = []
        taken: Counter[str] = Counter()
        for number, row in rows:
            if isinstance(row, Violation):
                faults.append((number, row))
                continue
            found = _song(number, row, loose)
            if isinstance(found, Song):
                taken[found.id] += 1
                if taken[found.id] > 1:
                    if row.get("id"):
                        text = f"the id {found.id!r} is that of an earlier line, too"
                        faults.append((number, Fault("id", "different for each song", repr(found.id), text)))
                        continue
                    found = msgspec.structs.replace(found, id=f"{found.id}-{taken[found.id]}")
                songs.append(found)
            else:
                faults.extend((number, fault) for fault in found)
        if not songs and not faults:
            faults.append((0, Fault("file", "at least one song", "none", "no song in the file")))
        if faults:
            raise _refuse(source, faults)
        return cls(tuple(songs), source)


def operation_of(song: Song, step: SongStep | None = None) -> Operation[..., Any]:
    """The operation of a song, or of one of its steps."""
    return FAMILIES[song.family].operations()[step.operation if step is not None else song.operation]


def _refuse(source: str, faults: list[tuple[int, Violation]]) -> RequestValidationError:
    lines = [f"line {number}: {fault}" if number else str(fault) for number, fault in faults[:REPORTED]]
    if len(faults) > REPORTED:
        lines.append(f"and {len(faults) - REPORTED} more")
    first = faults[0][1]
    return RequestValidationError(
        f"{source}: {lines[0]}" if len(lines) == 1 else "\n".join([f"{source}:", *lines]),
        field=first.field,
        limit=first.limit,
        value=first.value,
        violations=[fault for _, fault in faults],
        hint="Correct the manifest and start again.",
    )


def _song(number: int, row: dict[str, Any], loose: bool) -> Song | list[Violation]:
    rest = dict(row)
    name = rest.pop("operation", None) or DEFAULT_OPERATION
    given_id = rest.pop("id", None)
    which = rest.pop("clips", "all")
    given_steps: Any = rest.pop("steps", None) or []
    family, _, operation_name = str(name).rpartition(".")
    family = family or "sonic"
    known = FAMILIES[family].operations() if family in FAMILIES else {}
    operation = known.get(operation_name)
    if operation is None or not operation.submits:
        shown = repr(name)[:80]
        wrong = "makes no song" if operation is not None else "is no operation"
        near = nearest(str(name), SUBMITTING)
        text = f"operation {shown} {wrong}, " + (
            f"did you mean {near!r}?" if near else f"as {DEFAULT_OPERATION!r} is"
        )
        return [Fault("operation", "one that gives a task", shown, text)]
    faults: list[Violation] = []
    if which not in ("all", "first"):
        faults.append(Violation("clips", "'all' or 'first'", repr(which)))
    if given_id is not None and not (isinstance(given_id, str) and 0 < len(given_id.strip()) <= ID_LENGTH):
        faults.append(Violation("id", f"text of at most {ID_LENGTH} characters", repr(given_id)[:40]))
    checked, found = _checked_fields(operation, rest, loose)
    faults += found
    if isinstance(given_steps, str):
        given_steps = [step for step in given_steps.replace(",", ";").split(";") if step.strip()]
    steps: list[SongStep] = []
    wanted: list[Any] = list(cast("Any", given_steps)) if isinstance(given_steps, list) else [given_steps]
    instrumental = checked.get("make_instrumental") is True
    for one in _expanded(wanted, instrumental):
        step = _step(family, one)
        if not isinstance(step, SongStep):
            faults += step
        elif instrumental and step.operation == NEEDS_SINGING:
            text = f"step {step.name!r} needs singing, and make_instrumental is true in this row"
            faults.append(Fault("steps", "of a song with singing", step.name, text))
        else:
            steps.append(step)
    names = [step.name for step in steps]
    if len(set(names)) < len(names):
        faults.append(Violation("steps", "each step once", ", ".join(names)))
    if faults:
        return faults
    return Song(
        id=given_id.strip() if given_id else _digest(row),
        line=number,
        family=family,
        operation=operation_name,
        fields=checked,
        steps=tuple(steps),
        clips=which,
    )


def _expanded(steps: list[Any], instrumental: bool) -> Iterator[Any]:
    """Yield the steps, with those that `everything` means in its place."""
    for step in steps:
        if isinstance(step, str) and step.strip() == EVERYTHING:
            yield from (name for name in STEPS_OF_EVERYTHING if not (instrumental and name == "lyrics"))
        else:
            yield step


def _checked_fields(
    operation: Operation[..., Any], given: dict[str, Any], loose: bool, source: str = ""
) -> tuple[dict[str, Any], list[Violation]]:
    known = {field.name: field for field in fields(operation.request)}
    words = [*known] if source else [*known, *OF_A_LINE]
    faults = [
        _unknown(name, words, f"; {operation.name} has {', '.join(known)}")
        for name in given
        if name not in known
    ]
    values = {
        name: _loosened(known[name].hint, value) if loose else value
        for name, value in given.items()
        if name in known
    }
    filled = {source: "clip"} if source else {}
    missing = [
        name for name, field in known.items() if field.required and name not in values and name not in filled
    ]
    for name in missing:
        listed = f" ({known[name].known_words})" if known[name].known else ""
        faults.append(Fault(name, "needed", "nothing", f"{name!r} is missing{listed}"))
    if faults:
        return values, [*faults]
    request: Request = operation.request(**values, **filled)
    return values, violations(request)


def _unknown(name: str, words: Sequence[str], instead: str) -> Fault:
    near = nearest(name, words)
    if not near and is_folder(name):
        instead = ": all files of a batch are downloaded into one folder, which --out (out=) names"
    text = f"unknown field {name[:80]!r}" + (f", did you mean {near!r}?" if near else instead)
    return Fault(name, "a known field", "an unknown name", text)


def _loosened(hint: Any, value: Any) -> Any:
    """Return a table's value in the type of its field, or as it is: the checks then say what is wrong."""
    try:
        return msgspec.convert(value, hint, strict=False)
    except msgspec.ValidationError:
        return value


def _step(family: str, given: Any) -> SongStep | list[Violation]:
    shown = repr(given)[:40]
    if isinstance(given, str):
        name, values = given.strip(), dict[str, Any]()
    elif isinstance(given, dict) and len(cast("dict[str, Any]", given)) == 1:
        ((name, inner),) = cast("dict[str, Any]", given).items()
        if inner is not None and not isinstance(inner, dict):
            return [Violation(f"steps.{name}", "an object with the fields of the step", repr(inner)[:40])]
        values = cast("dict[str, Any]", inner or {})
    else:
        return [Violation("steps", "names, or objects with one name and its fields", shown)]
    operation_name = STEP_NAMES.get(name, name)
    operation = FAMILIES[family].operations().get(operation_name)
    names = [field.name for field in fields(operation.request)] if operation is not None else []
    source = next((field for field in SOURCES if field in names), None)
    if operation is None or source is None or operation.method == "GET":
        words = sorted({*STEP_NAMES, EVERYTHING, *steps_of(family)})
        near = nearest(name, words)
        text = f"unknown step {name[:80]!r}, " + (
            f"did you mean {near!r}?" if near else f"not one of {', '.join(words)}"
        )
        return [Fault("steps", f"one of {', '.join(words)}", repr(name), text)]
    if source in values:
        text = f"step {name!r} takes no {source!r}: it is the clip of the song"
        return [Fault(f"steps.{name}.{source}", "left out: it is the clip of the song", "", text)]
    checked, faults = _checked_fields(operation, values, loose=False, source=source)
    if faults:
        step = f"steps.{name}"
        return [
            fault.within(step)
            if isinstance(fault, Fault)
            else Violation(f"{step}.{fault.field}", fault.limit, fault.value)
            for fault in faults
        ]
    return SongStep(name, operation_name, source, checked)


def steps_of(family: str) -> list[str]:
    """Return the operations that can follow from a clip of the family."""
    return [
        name
        for name, operation in FAMILIES[family].operations().items()
        if operation.method != "GET" and any(field.name in SOURCES for field in fields(operation.request))
    ]


def priced_operations() -> set[str]:
    """Return the names of all operations that a batch can call: those of songs, and those of steps."""
    songs = {name.partition(".")[2] for name in SUBMITTING}
    return songs.union(*map(steps_of, FAMILIES))


def _digest(row: Mapping[str, Any]) -> str:
    """Return an id that follows from the row, so that lines may be moved without being paid for again."""
    return hashlib.sha256(msgspec.json.encode(row, order="sorted")).hexdigest()[:16]
