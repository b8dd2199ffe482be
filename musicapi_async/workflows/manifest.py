"""What to make: a file of songs, read and checked whole before the first credit is spent.

JSON Lines: one song on each line, the fields of a submitting operation and, if wanted, more:

    {"mv": "sonic-v6", "gpt_description_prompt": "calm rain", "steps": ["stems_basic", "wav"]}
    {"id": "intro", "operation": "sonic.create_music", "mv": "sonic-v6", "prompt": "[Verse] ...",
     "clips": "first", "steps": [{"persona": {"name": "Voice"}}, {"extend": {"continue_at": 60, ...}}]}

`operation` is any that gives a task (default `sonic.create_music`); `steps` follow for each clip of the song
(`"clips": "first"`: for the first only). CSV: a header with the same names, the steps separated by
`;` or `,`.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, cast

import msgspec

from ..api.families import FAMILIES
from ..api.operation import Operation
from ..api.request import Request, fields, violations
from ..api.spelling import is_folder, nearest
from ..errors import RequestValidationError, Violation

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
}
"""Short names of steps. `extend` also joins the extension to the song."""
OF_A_LINE: Final = ("id", "operation", "clips", "steps")
"""What a line holds beside the fields of its operation."""
SUBMITTING: Final = tuple(
    f"{word}.{name}"
    for word, family in FAMILIES.items()
    for name, operation in family.operations().items()
    if operation.submits
)
SOURCES: Final = ("clip_id", "continue_clip_id")
"""Fields that take the clip that a step works on."""

Which = Literal["all", "first"]


class Fault(Violation):
    """What is wrong with a line, in words of its own."""

    __slots__ = ("told",)

    def __init__(self, field: str, limit: str, value: str, told: str) -> None:
        super().__init__(field, limit, value)
        self.told = told

    def __str__(self) -> str:
        return self.told

    def within(self, step: str) -> Fault:
        """The same in a step."""
        return Fault(f"{step}.{self.field}", self.limit, self.value, f"{step}: {self.told}")


class Step(msgspec.Struct, frozen=True):
    """What follows from a clip: an operation of its family, with `fields` beside the clip id."""

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
    steps: tuple[Step, ...] = ()
    clips: Which = "all"

    @property
    def key(self) -> str:
        """The job key of the song."""
        return f"{self.id}/{self.operation}"

    def step_key(self, step: Step, clip_id: str, operation: str = "") -> str:
        """The job key of a step for a clip."""
        return f"{self.id}/{step.name}/{clip_id}/{operation or step.operation}"

    @property
    def title(self) -> str:
        """What to call the song before it has a title."""
        return str(self.fields.get("title") or self.fields.get("gpt_description_prompt") or self.id)[:80]


class Manifest(msgspec.Struct, frozen=True):
    """All songs of a batch, in their order; `source` names the file in errors."""

    songs: tuple[Song, ...]
    source: str = "manifest"

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Manifest:
        """Read and check a `.jsonl` or `.csv` file. Sends nothing, costs nothing.

        Raises `RequestValidationError`, which names each faulty line and field, and `OSError`.
        """
        file = Path(path)
        if file.stat().st_size > SIZE_LIMIT:
            told = f"the file is larger than {SIZE_LIMIT} bytes"
            raise _refuse(str(file), [(0, Fault("file", f"at most {SIZE_LIMIT} bytes", "", told))])
        try:
            text = file.read_bytes().decode("utf-8-sig")
        except UnicodeDecodeError as error:
            place = f"byte {error.start}"
            fault = Fault("file", "UTF-8 text", place, f"not UTF-8 text ({place})")
            raise _refuse(str(file), [(0, fault)]) from None
        rows = _csv_rows(text) if file.suffix.lower() == ".csv" else _json_rows(text)
        return cls._checked(rows, str(file), loose=file.suffix.lower() == ".csv")

    @classmethod
    def of(cls, songs: Sequence[Mapping[str, Any]], source: str = "manifest") -> Manifest:
        """Check songs given as mappings, with the keys of a line of a manifest."""
        rows = ((number, dict(song)) for number, song in enumerate(songs, 1))
        return cls._checked(rows, source, loose=False)

    @classmethod
    def _checked(
        cls, rows: Iterator[tuple[int, dict[str, Any] | Violation]], source: str, *, loose: bool
    ) -> Manifest:
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
                        told = f"the id {found.id!r} stands in an earlier line, too"
                        faults.append((number, Fault("id", "different for each song", repr(found.id), told)))
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


def operation_of(song: Song, step: Step | None = None) -> Operation[Any, Any]:
    """The operation of a song, or of one of its steps."""
    return FAMILIES[song.family].operations()[step.operation if step is not None else song.operation]


def _refuse(source: str, faults: list[tuple[int, Violation]]) -> RequestValidationError:
    told = [f"line {number}: {fault}" if number else str(fault) for number, fault in faults[:REPORTED]]
    if len(faults) > REPORTED:
        told.append(f"and {len(faults) - REPORTED} more")
    first = faults[0][1]
    return RequestValidationError(
        f"{source}: {told[0]}" if len(told) == 1 else "\n".join([f"{source}:", *told]),
        field=first.field,
        limit=first.limit,
        value=first.value,
        violations=[fault for _, fault in faults],
        hint="Mend the manifest and start again.",
    )


def _json_rows(text: str) -> Iterator[tuple[int, dict[str, Any] | Violation]]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row: Any = msgspec.json.decode(line)
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            why = str(error).removeprefix("JSON is malformed: ")[:80]
            yield number, Fault("line", "one JSON object", why, f"not JSON ({why})")
            continue
        if isinstance(row, dict):
            yield number, cast("dict[str, Any]", row)
        else:
            shown = repr(cast("object", row))[:40]
            yield number, Fault("line", "one JSON object", shown, f"not a JSON object {{...}}, but {shown}")


def _csv_rows(text: str) -> Iterator[tuple[int, dict[str, Any] | Violation]]:
    reader = csv.DictReader(io.StringIO(text), strict=True)
    try:
        names = Counter(name.strip() for name in reader.fieldnames or ())
        for name in (name for name, count in names.items() if count > 1):
            told = f"the column {name[:80]!r} stands in the header more than once"
            yield reader.line_num, Fault(name, "once in the header", "more than once", told)
        for row in reader:
            if None in row or None in row.values():
                told = "not as many columns as the header"
                yield reader.line_num, Fault("line", "as many columns as the header", "", told)
            elif any(row.values()):
                yield reader.line_num, {name.strip(): value for name, value in row.items() if value}
    except csv.Error as error:
        why = str(error)[:80]
        yield reader.line_num, Fault("line", "well-formed CSV", why, f"not CSV ({why})")


def _song(number: int, row: dict[str, Any], loose: bool) -> Song | list[Violation]:
    rest = dict(row)
    name = rest.pop("operation", None) or DEFAULT_OPERATION
    given_id = rest.pop("id", None)
    which = rest.pop("clips", "all")
    asked: Any = rest.pop("steps", None) or []
    family, _, operation_name = str(name).rpartition(".")
    family = family or "sonic"
    known = FAMILIES[family].operations() if family in FAMILIES else {}
    operation = known.get(operation_name)
    if operation is None or not operation.submits:
        shown = repr(name)[:80]
        wrong = "makes no song" if operation is not None else "is no operation"
        near = nearest(str(name), SUBMITTING)
        told = f"operation {shown} {wrong}, " + (
            f"did you mean {near!r}?" if near else f"as {DEFAULT_OPERATION!r} is"
        )
        return [Fault("operation", "one that gives a task", shown, told)]
    faults: list[Violation] = []
    if which not in ("all", "first"):
        faults.append(Violation("clips", "'all' or 'first'", repr(which)))
    if given_id is not None and not (isinstance(given_id, str) and 0 < len(given_id.strip()) <= ID_LENGTH):
        faults.append(Violation("id", f"text of at most {ID_LENGTH} characters", repr(given_id)[:40]))
    checked, found = _checked_fields(operation, rest, loose)
    faults += found
    if isinstance(asked, str):
        asked = [step for step in asked.replace(",", ";").split(";") if step.strip()]
    steps: list[Step] = []
    wanted: list[Any] = list(cast("Any", asked)) if isinstance(asked, list) else [asked]
    for one in wanted:
        step = _step(family, one)
        if isinstance(step, Step):
            steps.append(step)
        else:
            faults += step
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


def _checked_fields(
    operation: Operation[Any, Any], given: dict[str, Any], loose: bool, source: str = ""
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
    told = f"unknown field {name[:80]!r}" + (f", did you mean {near!r}?" if near else instead)
    return Fault(name, "a known field", "an unknown name", told)


def _loosened(hint: Any, value: Any) -> Any:
    """A CSV value in the type of its field, or as it is: the checks then tell what is wrong with it."""
    try:
        return msgspec.convert(value, hint, strict=False)
    except msgspec.ValidationError:
        return value


def _step(family: str, given: Any) -> Step | list[Violation]:
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
        words = sorted({*STEP_NAMES, *steps_of(family)})
        near = nearest(name, words)
        told = f"unknown step {name[:80]!r}, " + (
            f"did you mean {near!r}?" if near else f"not one of {', '.join(words)}"
        )
        return [Fault("steps", f"one of {', '.join(words)}", repr(name), told)]
    if source in values:
        told = f"step {name!r} takes no {source!r}: it is the clip of the song"
        return [Fault(f"steps.{name}.{source}", "left out: it is the clip of the song", "", told)]
    checked, faults = _checked_fields(operation, values, loose=False, source=source)
    if faults:
        step = f"steps.{name}"
        return [
            fault.within(step)
            if isinstance(fault, Fault)
            else Violation(f"{step}.{fault.field}", fault.limit, fault.value)
            for fault in faults
        ]
    return Step(name, operation_name, source, checked)


def steps_of(family: str) -> list[str]:
    """The operations that can follow from a clip of the family."""
    return [
        name
        for name, operation in FAMILIES[family].operations().items()
        if operation.method != "GET" and any(field.name in SOURCES for field in fields(operation.request))
    ]


def _digest(row: Mapping[str, Any]) -> str:
    """An id that follows from what is asked for, so that lines may be moved without being paid for again."""
    return hashlib.sha256(msgspec.json.encode(row, order="sorted")).hexdigest()[:16]
