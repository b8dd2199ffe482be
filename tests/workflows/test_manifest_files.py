"""Manifests as people save them: separators, encodings, standard input."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from musicapi_async.errors import RequestValidationError
from musicapi_async.workflows import Manifest

HEADER = ("id", "mv", "gpt_description_prompt", "steps")
ROW = ("a", "sonic-v6", "calm rain; wind, too", "stems;wav")


def table(separator: str) -> str:
    """A table with one song, whose text holds every separator but a tab."""
    return "\n".join(separator.join(f'"{cell}"' for cell in row) for row in (HEADER, ROW)) + "\n"


@pytest.mark.parametrize(
    ("name", "separator"), [("songs.csv", ","), ("songs.csv", ";"), ("songs.csv", "\t"), ("songs.tsv", "\t")]
)
def test_separator_is_that_of_header(tmp_path: Path, name: str, separator: str) -> None:
    """Commas, the semicolons of spreadsheets in many countries, and tabs."""
    path = tmp_path / name
    path.write_text(table(separator), encoding="utf-8")
    (song,) = Manifest.read(path).songs
    assert (song.id, song.fields["gpt_description_prompt"]) == ("a", ROW[2])
    assert [step.name for step in song.steps] == ["stems", "wav"]


@pytest.mark.parametrize(
    "text",
    [table(","), table(";"), table("\t"), '{"id": "a", "mv": "sonic-v6", "gpt_description_prompt": "x"}\n'],
)
def test_kind_of_standard_input_is_seen_from_its_text(text: str) -> None:
    """A first line with a brace is JSON Lines, anything else a table."""
    (song,) = Manifest.parse(text.encode(), "standard input").songs
    assert song.id == "a"


@pytest.mark.parametrize("name", ["songs.jsonl", "songs.csv"])
def test_file_in_another_encoding_names_its_line(tmp_path: Path, name: str) -> None:
    """The first line that is not UTF-8, and what to do."""
    path = tmp_path / name
    path.write_bytes(b"mv,title\nsonic-v6,plain\nsonic-v6,caf\xe9\n")
    with pytest.raises(
        RequestValidationError, match=r"line 3: not UTF-8 text \(byte 0xe9 in column 13\)"
    ) as caught:
        Manifest.read(path)
    assert "Save the file as UTF-8" in str(caught.value)


def test_spreadsheet_is_named(tmp_path: Path) -> None:
    """A table that was not exported; it is a ZIP file."""
    with zipfile.ZipFile(tmp_path / "songs.xlsx", "w") as file:
        file.writestr("xl/workbook.xml", "<workbook/>")
    with pytest.raises(RequestValidationError, match=r"songs.xlsx: a spreadsheet, .*Save it as CSV in UTF-8"):
        Manifest.read(tmp_path / "songs.xlsx")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-32"])
def test_utf_16_is_named(tmp_path: Path, encoding: str) -> None:
    """As spreadsheets save what they call Unicode text."""
    path = tmp_path / "songs.tsv"
    path.write_bytes(
        "\ufeff".encode(encoding)[:0]
        + ("\ufeff" if encoding.endswith("be") else "").encode(encoding)
        + table("\t").encode(encoding)
    )
    with pytest.raises(RequestValidationError, match=r"line 1: UTF-(16|32) text.*Save the file as UTF-8"):
        Manifest.read(path)
