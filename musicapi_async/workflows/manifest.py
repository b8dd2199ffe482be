"""The manifest: a file of songs, read and checked whole before the first credit is spent.

JSON Lines: one song on each line, the fields of a submitting operation and, if wanted, more:

    {"mv": "sonic-v6", "gpt_description_prompt": "calm rain", "steps": ["stems_basic", "wav"]}
    {"id": "intro", "operation": "sonic.create_music", "mv": "sonic-v6", "prompt": "[Verse] ...",
     "clips": "first", "steps": [{"persona": {"name": "Voice"}}, {"extend": {"continue_at": 60, ...}}]}

`operation` is any that gives a task (default `sonic.create_music`); `steps` follow for each clip of the song
(`"clips": "first"`: for the first only). The step `everything` means stems, WAV, MIDI and timed lyrics. A
table (CSV with commas, semicolons or tabs) has the same names in its header, and its steps separated by `;`
or `,`.

Where a field wants a public link, a row may have a local file: `{"operation": "sonic.upload_cover", "url":
"demos/one.mp3", ...}`. Its path begins at the folder of the manifest. `run_batch` publishes it with the
`uploader` of its client, and refuses it without one.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from ..api.families import FAMILIES
from ..api.json_values import JSON, mapping_or_empty
from ..api.local_files import PLACEHOLDER, local_file
from ..api.operation import Operation
from ..api.request import Request, fields, is_link, violations
from ..api.suggestions import is_folder, nearest
from ..arguments import is_list, refused
from ..errors import RequestValidationError, Violation
from ..files import expand
from .manifest_formats import ManifestForm, Row, RowFault, form_of, json_rows, table_rows, text_of

FORMS: Final[dict[str, ManifestForm]] = {".csv": "table", ".tsv": "table"}
"""How the rows of a file are written, by its ending; all others are JSON Lines."""
MANIFEST_LIMIT: Final = 256 * 1024 * 1024
"""Bytes of a manifest; a hundred thousand songs with long lyrics."""
REPORTED_FAULTS: Final = 20
"""Faults that one error names; more are counted."""
NAMED_LINES: Final = 3
"""Lines that are named for one fault; more are counted."""
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
    """A step for each clip of a song: an operation of its family, with `fields` beside the clip id."""

    name: str
    operation: str
    source: str
    fields: dict[str, Any] = msgspec.field(default_factory=dict[str, Any])


class Song(msgspec.Struct, frozen=True):
    """A line of a manifest: an operation with its fields, and the steps for its clips.

    `is_named` is True if the line has an `id`; else the id follows from the operation and the fields.
    `former_id` is the id under which an earlier version sent the song, or ''. `batch` is the id of a batch
    that workers carry out, or ''.
    """

    id: str
    line: int
    family: str
    operation: str
    fields: dict[str, Any]
    steps: tuple[SongStep, ...] = ()
    clips: Which = "all"
    is_named: bool = True
    former_id: str = ""
    batch: str = ""

    @property
    def stored_id(self) -> str:
        """The id of the song in the folder: in its job keys and its record."""
        return self.former_id or self.id

    @property
    def job_prefix(self) -> str:
        """The prefix of all job keys of the song."""
        return f"{self.batch}/{self.stored_id}/" if self.batch else f"{self.stored_id}/"

    @property
    def key(self) -> str:
        """The job key of the song."""
        return f"{self.job_prefix}{self.operation}"

    def step_key(self, step: str, clip_id: str, operation: str) -> str:
        """Return the job key of an operation of a step for a clip."""
        return f"{self.job_prefix}{step}/{clip_id}/{operation}"

    @property
    def title(self) -> str:
        """The `title` in the fields, else the description, else the id; at most 80 characters."""
        return str(self.fields.get("title") or self.fields.get("gpt_description_prompt") or self.id)[:80]


class Manifest(msgspec.Struct, frozen=True):
    """All songs of a batch, in their order; `source` names the file in errors."""

    songs: tuple[Song, ...]
    source: str = "manifest"

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Manifest:
        """Read and check a `.jsonl`, `.csv` or `.tsv` file. Free, sends nothing.

        Relative paths of local files begin at the folder of the manifest; `run_batch` checks that the files
        exist. Raises `RequestValidationError`, which names each faulty line and field, and `OSError`.
        """
        if is_list(path):
            raise refused("manifest", "a file, or Manifest.of(songs) for songs that are mappings", "a list")
        file = expand(path)
        with file.open("rb") as opened:
            data = opened.read(MANIFEST_LIMIT + 1)
        form: ManifestForm = FORMS.get(file.suffix.lower(), "json")
        separator = "\t" if file.suffix.lower() == ".tsv" else ""
        return cls.parse(data, str(file), form=form, separator=separator, folder=file.parent)

    @classmethod
    def parse(
        cls,
        data: bytes,
        source: str = "manifest",
        *,
        form: ManifestForm | None = None,
        separator: str = "",
        folder: str | os.PathLike[str] = "",
    ) -> Manifest:
        """Read and check the bytes of a manifest, such as those of standard input. Free, sends nothing.

        Args:
            data: The text in UTF-8.
            source: What errors call it.
            form: 'json' or 'table'; by default a text that begins with a brace is JSON.
            separator: The separator of the columns of a table; by default the most frequent one in the
            header.
            folder: The folder where relative paths of local files begin; by default the current one.

        Raises:
            RequestValidationError: Names each faulty line and field.
        """
        if len(data) > MANIFEST_LIMIT:
            fault = RowFault(
                "file",
                f"at most {MANIFEST_LIMIT} bytes",
                "",
                f"the file is larger than {MANIFEST_LIMIT} bytes",
            )
            raise refuse_rows(source, [(0, fault)])
        text = text_of(data)
        if isinstance(text, tuple):
            raise refuse_rows(source, [text])
        is_table = (form or form_of(text)) == "table"
        rows = table_rows(text, separator) if is_table else json_rows(text)
        return cls._checked(rows, source, loose=is_table, folder=Path(folder))

    @classmethod
    def of(cls, songs: Sequence[Mapping[str, Any]], source: str = "manifest") -> Manifest:
        """Return the manifest of songs that are mappings, with the keys of a line of a manifest.

        A local file may also be a `Path`, or an open file that has a name. Raises `RequestValidationError`.
        """
        rows = ((number, dict(song)) for number, song in enumerate(songs, 1))
        return cls._checked(rows, source, loose=False)

    @classmethod
    def _checked(cls, rows: Iterator[Row], source: str, *, loose: bool, folder: Path = Path()) -> Manifest:
        faults: list[tuple[int, Violation]] = []
        songs: list[Song] = []
        taken: Counter[str] = Counter()
        for number, row in rows:
            if isinstance(row, Violation):
                faults.append((number, row))
                continue
            found = _song(number, row, loose, folder)
            if isinstance(found, Song):
                taken[found.id] += 1
                if taken[found.id] > 1:
                    if row.get("id"):
                        text = f"the id {found.id!r} is that of an earlier line, too"
                        faults.append(
                            (number, RowFault("id", "different for each song", repr(found.id), text))
                        )
                        continue
                    found = msgspec.structs.replace(found, id=f"{found.id}-{taken[found.id]}")
                songs.append(found)
            else:
                faults.extend((number, fault) for fault in found)
        if not songs and not faults:
            faults.append((0, RowFault("file", "at least one song", "none", "no song in the file")))
        if faults:
            raise refuse_rows(source, faults)
        return cls(tuple(songs), source)


def operation_of(song: Song, step: SongStep | None = None) -> Operation[..., Any]:
    """The operation of a song, or of one of its steps."""
    return FAMILIES[song.family].operations()[step.operation if step is not None else song.operation]


def refuse_rows(
    source: str,
    faults: Sequence[tuple[int, Violation]],
    hint: str = "Correct the manifest and start again.",
) -> RequestValidationError:
    """Return the error for faults of a manifest, each with its lines."""
    places: dict[str, list[int]] = {}
    for number, fault in faults:
        places.setdefault(str(fault), []).append(number)
    named = list(places.items())[:REPORTED_FAULTS]
    lines = [f"{_lines_text(numbers)}: {text}" if numbers[0] else text for text, numbers in named]
    if len(places) > REPORTED_FAULTS:
        lines.append(f"and {len(faults) - sum(len(numbers) for _, numbers in named)} more")
    first = faults[0][1]
    return RequestValidationError(
        f"{source}: {lines[0]}" if len(lines) == 1 else "\n".join([f"{source}:", *lines]),
        field=first.field,
        limit=first.limit,
        value=first.value,
        violations=[fault for _, fault in faults],
        hint=hint,
    )


def _lines_text(numbers: Sequence[int]) -> str:
    """Return the lines of a fault: a wrong name in the header of a table is one of every row."""
    first, *others = numbers
    if not others:
        return f"line {first}"
    more = f" and {len(others) - NAMED_LINES + 1} more" if len(others) >= NAMED_LINES else ""
    return f"lines {', '.join(map(str, numbers[:NAMED_LINES]))}{more}"


def _song(number: int, row: dict[str, Any], loose: bool, folder: Path) -> Song | list[Violation]:
    rest = {name: _as_text(value) for name, value in row.items()}
    name = rest.pop("operation", None) or DEFAULT_OPERATION
    given_id = rest.pop("id", None)
    which = rest.pop("clips", "all")
    given_steps: JSON = rest.pop("steps", None) or []
    family, _, operation_name = str(name).rpartition(".")
    family = family or "sonic"
    known = FAMILIES[family].operations() if family in FAMILIES else {}
    operation = known.get(operation_name)
    if operation is None or not operation.submits:
        quoted = repr(name)[:80]
        wrong = "makes no song" if operation is not None else "is no operation"
        near = nearest(str(name), SUBMITTING)
        text = f"operation {quoted} {wrong}, " + (
            f"did you mean {near!r}?" if near else f"as {DEFAULT_OPERATION!r} is"
        )
        return [RowFault("operation", "one that gives a task", quoted, text)]
    faults: list[Violation] = []
    if which not in ("all", "first"):
        faults.append(Violation("clips", "'all' or 'first'", repr(which)))
    if given_id is not None and not (isinstance(given_id, str) and 0 < len(given_id.strip()) <= ID_LENGTH):
        faults.append(Violation("id", f"text of at most {ID_LENGTH} characters", repr(given_id)[:40]))
    checked, found = _checked_fields(operation, rest, loose, folder=folder)
    faults += found
    if isinstance(given_steps, str):
        given_steps = [*filter(str.strip, given_steps.replace(",", ";").split(";"))]
    steps: list[SongStep] = []
    wanted = given_steps if isinstance(given_steps, list) else [given_steps]
    instrumental = checked.get("make_instrumental") is True
    for one in _expanded(wanted, instrumental):
        step = _step(family, one)
        if not isinstance(step, SongStep):
            faults += step
        elif instrumental and step.operation == NEEDS_SINGING:
            text = f"step {step.name!r} needs singing, and make_instrumental is true in this row"
            faults.append(RowFault("steps", "of a song with singing", step.name, text))
        else:
            steps.append(step)
    names = [step.name for step in steps]
    if len(set(names)) < len(names):
        faults.append(Violation("steps", "each step once", ", ".join(names)))
    if faults:
        return faults
    return Song(
        id=given_id.strip() if given_id else _digest(f"{family}.{operation_name}", rest),
        line=number,
        family=family,
        operation=operation_name,
        fields=checked,
        steps=tuple(steps),
        clips=which,
        is_named=bool(given_id),
    )


def _expanded(steps: Sequence[JSON], instrumental: bool) -> Iterator[JSON]:
    """Yield the steps, with those that `everything` means in its place."""
    for step in steps:
        if isinstance(step, str) and step.strip() == EVERYTHING:
            yield from (name for name in STEPS_OF_EVERYTHING if not (instrumental and name == "lyrics"))
        else:
            yield step


def _checked_fields(
    operation: Operation[..., object],
    given: Mapping[str, object],
    loose: bool,
    source: str = "",
    folder: Path = Path(),
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
        faults.append(RowFault(name, "needed", "nothing", f"{name!r} is missing{listed}"))
    if faults:
        return values, [*faults]
    for name in operation.links:
        path = None if is_link(values.get(name)) else local_file(values.get(name))
        if path is not None:
            values[name], filled[name] = str(folder / path), PLACEHOLDER
    request: Request = operation.request(**{**values, **filled})
    return values, violations(request)


def _as_text(value: object) -> Any:
    """Return the path of a local file as text, and anything else as it is."""
    path = None if isinstance(value, str) else local_file(value)
    return value if path is None else str(path)


def _unknown(name: str, words: Sequence[str], instead: str) -> RowFault:
    near = nearest(name, words)
    if not near and is_folder(name):
        instead = ": all files of a batch are downloaded into one folder, which --out (out=) names"
    text = f"unknown field {name[:80]!r}" + (f", did you mean {near!r}?" if near else instead)
    return RowFault(name, "a known field", "an unknown name", text)


def _loosened(hint: object, value: object) -> object:
    """Return a table's value in the type of its field, or as it is: the checks then say what is wrong."""
    try:
        return msgspec.convert(value, hint, strict=False)
    except msgspec.ValidationError:
        return value


def _step(family: str, given: JSON) -> SongStep | list[Violation]:
    quoted = repr(given)[:40]
    if isinstance(given, str):
        name, values = given.strip(), dict[str, Any]()
    elif len(mapping := mapping_or_empty(given)) == 1:
        ((name, inner),) = mapping.items()
        if inner is not None and not isinstance(inner, dict):
            return [Violation(f"steps.{name}", "an object with the fields of the step", repr(inner)[:40])]
        values = mapping_or_empty(inner)
    else:
        return [Violation("steps", "names, or objects with one name and its fields", quoted)]
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
        return [RowFault("steps", f"one of {', '.join(words)}", repr(name), text)]
    if source in values:
        text = f"step {name!r} takes no {source!r}: it is the clip of the song"
        return [RowFault(f"steps.{name}.{source}", "left out: it is the clip of the song", "", text)]
    checked, faults = _checked_fields(operation, values, loose=False, source=source)
    if faults:
        step = f"steps.{name}"
        return [
            fault.within(step)
            if isinstance(fault, RowFault)
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


def _digest(operation: str, row: Mapping[str, object]) -> str:
    """Return an id that follows from what a song is made of.

    So lines may be moved, and steps added, without the song being paid for again.
    """
    named = row if operation == DEFAULT_OPERATION else {**row, "operation": operation}
    return hashlib.sha256(msgspec.json.encode(named, order="sorted")).hexdigest()[:16]
