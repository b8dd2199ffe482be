"""A manifest is checked whole before anything is sent."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musicapi_async import MusicAPI
from musicapi_async.errors import RequestValidationError
from musicapi_async.workflows import Manifest, run_batch

SONG: dict[str, Any] = {"mv": "sonic-v6", "gpt_description_prompt": "calm rain"}


def write(tmp_path: Path, text: str, name: str = "songs.jsonl") -> Path:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def test_lines_become_songs_with_steps(tmp_path: Path) -> None:
    """A line is an operation with its fields, and the steps that follow from its clips."""
    path = write(
        tmp_path,
        '\ufeff{"mv": "sonic-v6", "gpt_description_prompt": "rain"}\n\n'
        '{"id": "b", "operation": "sonic.cover_music", "mv": "sonic-v6", "continue_clip_id": "c", "prompt": "la", '
        '"clips": "first", "steps": ["stems", {"persona": {"name": "V"}}, "wav", "midi", "lyrics", '
        '{"extend": {"continue_at": 30, "custom_mode": true, "prompt": "more", "mv": "sonic-v6"}}]}\n',
    )
    first, second = Manifest.read(path).songs
    assert (first.line, first.operation, first.steps) == (1, "create_music", ())
    assert (second.line, second.id, second.key, second.clips) == (3, "b", "b/cover_music", "first")
    assert [step.operation for step in second.steps] == [
        "stems_basic",
        "create_persona",
        "wav",
        "midi",
        "aligned_lyrics",
        "extend_music",
    ]


def test_csv_is_simple_case(tmp_path: Path) -> None:
    """A header with the names of the fields; numbers and truth values are read as such."""
    path = write(
        tmp_path,
        "id,mv,prompt,make_instrumental,duration,steps\n"
        'a,sonic-v6,"[Verse]\nTwo lines",,60,stems_basic; wav\n'
        "b,sonic-v6,,true,,\n",
        "songs.csv",
    )
    first, second = Manifest.read(path).songs
    assert first.fields == {"mv": "sonic-v6", "prompt": "[Verse]\nTwo lines", "duration": 60}
    assert [step.name for step in first.steps] == ["stems_basic", "wav"]
    assert second.fields == {"mv": "sonic-v6", "make_instrumental": True}


def test_id_follows_from_what_is_asked_for() -> None:
    """Moving lines changes no id; equal lines are different songs."""
    other = {**SONG, "title": "Other"}
    there = Manifest.of([SONG, other, SONG]).songs
    back = Manifest.of([other, SONG, SONG]).songs
    assert len({song.id for song in there}) == 3
    assert {song.id for song in there} == {song.id for song in back}


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ({"gpt_description_prompt": "x"}, "'mv' is missing"),
        ({**SONG, "titel": "x"}, "unknown field 'titel', did you mean 'title'?"),
        ({**SONG, "title": "x" * 81}, "title: text of at most 80 characters"),
        ({**SONG, "operation": "sonic.get_music"}, "operation 'sonic.get_music' makes no song, did you mean"),
        (
            {**SONG, "operation": "nothing.at_all"},
            "operation 'nothing.at_all' is no operation, as 'sonic.create_music' is",
        ),
        ({**SONG, "operation": 7}, "operation 7 is no operation"),
        ({**SONG, "steps": ["dance"]}, "unknown step 'dance', not one of add_instrumental, "),
        ({**SONG, "steps": ["get_music"]}, "unknown step 'get_music', "),
        ({**SONG, "steps": [{"persona": {}}]}, "steps.persona: 'name' is missing"),
        ({**SONG, "steps": [{"persona": "x"}]}, "steps.persona: an object"),
        ({**SONG, "steps": [{"wav": {"clip_id": "x"}}]}, "step 'wav' takes no 'clip_id'"),
        ({**SONG, "steps": ["wav", "wav"]}, "steps: each step once"),
        ({**SONG, "steps": [3]}, "steps: names, or objects"),
        ({**SONG, "clips": "last"}, "clips: 'all' or 'first'"),
        ({**SONG, "id": 5}, "id: text"),
        ({**SONG, "duration": 5}, "duration: a whole number from 10 to 360"),
    ],
)
def test_each_fault_is_named_with_its_line(row: dict[str, Any], text: str) -> None:
    """The error names line, field and limit."""
    with pytest.raises(RequestValidationError) as caught:
        Manifest.of([SONG, row], "songs.jsonl")
    assert f"line 2: {text}" in str(caught.value)
    assert "Nothing was sent" in str(caught.value)


def test_songs_in_the_place_of_a_file_are_refused_with_what_takes_them() -> None:
    """The commonest way to have songs in a program is a list."""
    songs: Any = [SONG]
    with pytest.raises(RequestValidationError, match=r"a file, or Manifest\.of\(songs\) .*, got a list"):
        Manifest.read(songs)


def test_all_faults_are_reported_at_once() -> None:
    """Many faults: the first twenty, and how many more."""
    with pytest.raises(RequestValidationError, match="and 10 more") as caught:
        Manifest.of([{**SONG, "title": "x" * (90 + number)} for number in range(30)])
    assert len(caught.value.violations) == 30


@pytest.mark.parametrize(
    ("rows", "places"),
    [(1, "line 2"), (2, "lines 2, 3"), (3, "lines 2, 3, 4"), (30, "lines 2, 3, 4 and 27 more")],
)
def test_fault_of_many_lines_is_reported_once(rows: int, places: str) -> None:
    """A misspelt column is a fault of each row; the others are not pushed out of the text by it."""
    table = "mv,gpt_description_prompt,titel\n" + "sonic-v6,calm,x\n" * rows
    with pytest.raises(RequestValidationError) as caught:
        Manifest.parse(table.encode(), "songs.csv")
    assert caught.value.message == f"songs.csv: {places}: unknown field 'titel', did you mean 'title'?"
    assert len(caught.value.violations) == rows
    with pytest.raises(RequestValidationError) as caught:
        Manifest.parse((table + "sonic-v6,,\n").encode(), "songs.csv")
    assert [line.partition(":")[0] for line in caught.value.message.splitlines()[1:]] == [
        places,
        f"line {rows + 2}",
    ]


def test_id_that_comes_twice_is_refused() -> None:
    """Ids of the user's own are different."""
    with pytest.raises(RequestValidationError, match="line 2: the id 'a' is that of an earlier line"):
        Manifest.of([{**SONG, "id": "a"}, {**SONG, "id": "a", "title": "b"}])


@pytest.mark.parametrize("text", ["", "\n\n", "[1, 2]", "{", '"text"', "\x00\x01", '{"mv": 1e999}'])
def test_what_is_no_manifest_is_refused(tmp_path: Path, text: str) -> None:
    """Whatever the file holds, the error is clear."""
    with pytest.raises(RequestValidationError, match="songs"):
        Manifest.read(write(tmp_path, text))


def test_text_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    """Bytes that are no text are reported with their place."""
    (tmp_path / "songs.jsonl").write_bytes(b'{"mv": "\xff"}')
    with pytest.raises(RequestValidationError, match="UTF-8"):
        Manifest.read(tmp_path / "songs.jsonl")


FORMS: tuple[Literal["json", "table"] | None, ...] = (None, "json", "table")


@given(st.text(max_size=200))
def test_no_text_raises_anything_else(text: str) -> None:
    """Every file is either a manifest or one clear error."""
    for form in FORMS:
        try:
            Manifest.parse(text.encode(), "songs", form=form)
        except RequestValidationError as error:
            assert "songs" in str(error)


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ({"titel": "x"}, "unknown field 'titel', did you mean 'title'?"),
        ({"Prompt": "x"}, "unknown field 'Prompt', did you mean 'prompt'?"),
        ({"step": ["wav"]}, "unknown field 'step', did you mean 'steps'?"),
        ({"steps": ["stem"]}, "unknown step 'stem', did you mean 'stems'?"),
        ({"steps": [{"persona": {"nam": "x", "name": "y"}}]}, "steps.persona: unknown field 'nam'"),
        ({"steps": [{"persona": {"nam": "x", "name": "y"}}]}, ", did you mean 'name'?"),
        ({"operation": "sonic.create-musik"}, "did you mean 'sonic.create_music'?"),
        ({"zzz": 1}, "unknown field 'zzz'; create_music has "),
        ({"style": "folk"}, "unknown field 'style', did you mean 'tags'?"),
        ({"genre": "folk"}, "unknown field 'genre', did you mean 'tags'?"),
        ({"lyrics": "la"}, "unknown field 'lyrics', did you mean 'prompt'?"),
        ({"model": "sonic-v6"}, "unknown field 'model', did you mean 'mv'?"),
        (
            {"out": "o"},
            "unknown field 'out': all files of a batch are downloaded into one folder, which --out",
        ),
        ({"output": "o"}, "unknown field 'output': all files of a batch are downloaded"),
        ({"mv": None}, "mv: text, not empty (known for mv: sonic-v6, "),
    ],
)
def test_typo_names_what_was_meant(row: dict[str, Any], text: str) -> None:
    """Fields, steps and operations: the nearest right word, or all words where none is near."""
    with pytest.raises(RequestValidationError) as caught:
        Manifest.of([{"mv": "sonic-v6", "gpt_description_prompt": "rain", **row}])
    assert text in str(caught.value)


def test_column_that_comes_twice_is_refused(tmp_path: Path) -> None:
    """The second would replace the first without a word."""
    path = write(tmp_path, "mv,title,title\nsonic-v6,one,two\n", "songs.csv")
    with pytest.raises(RequestValidationError, match="the column 'title' is in the header more than once"):
        Manifest.read(path)


def test_missing_model_lists_those_that_are_known() -> None:
    """All models, as in the help of the command."""
    with pytest.raises(
        RequestValidationError, match=r"'mv' is missing \(known for mv: sonic-v6, .*sonic-v3-5\)"
    ):
        Manifest.of([{"gpt_description_prompt": "rain"}])


async def test_price_of_no_operation_is_refused(tmp_path: Path) -> None:
    """A misspelt name would leave the budget without its price."""
    async with MusicAPI("key", base_url="http://127.0.0.1:9") as client:
        with pytest.raises(
            RequestValidationError,
            match=r"songs or steps of a batch \(did you mean 'create_music'\?\), got 'create_musik'",
        ):
            await run_batch(client, Manifest.of([SONG]), out=tmp_path / "out", prices={"create_musik": 3})
    assert not (tmp_path / "out").exists()
