"""The rows of a manifest's text: JSON Lines, or a table with commas, semicolons or tabs."""

from __future__ import annotations

import codecs
import csv
import io
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final, Literal

import msgspec

from ..api.json_values import JSON, mapping_or_empty
from ..errors import Violation

ManifestForm = Literal["json", "table"]

SEPARATORS: Final = (",", ";", "\t")
"""Of columns. Spreadsheets write semicolons where the comma is the decimal sign."""
OTHER_ENCODINGS: Final = (
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)
"""Byte order marks; spreadsheets call UTF-16 'Unicode text'."""
SPREADSHEET: Final = b"PK\x03\x04"
"""The first bytes of a ZIP file, which .xlsx and .ods files are."""


class RowFault(Violation):
    """A rule that a row breaks, with a text of its own."""

    __slots__ = ("text",)

    def __init__(self, field: str, limit: str, value: str, text: str) -> None:
        super().__init__(field, limit, value)
        self.text: str = text

    def __str__(self) -> str:
        return self.text

    def within(self, step: str) -> RowFault:
        """Return the same fault in a step."""
        return RowFault(f"{step}.{self.field}", self.limit, self.value, f"{step}: {self.text}")


Row = tuple[int, dict[str, Any] | Violation]
"""The number of a line and the fields in it, or what is wrong with it."""


def text_of(data: bytes) -> str | tuple[int, RowFault]:
    """Return the text of a manifest, or the first line that is no UTF-8 with the fault."""
    for mark, encoding in OTHER_ENCODINGS:
        if data.startswith(mark):
            return 1, _not_utf_8(f"{encoding} text", encoding)
    if data.startswith(SPREADSHEET):
        return 0, RowFault("file", "text", "a ZIP file", "a spreadsheet, not a text. Save it as CSV in UTF-8")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - data.rfind(b"\n", 0, error.start)
        place = f"byte 0x{data[error.start]:02x} in column {column}"
        return line, _not_utf_8(f"not UTF-8 text ({place})", place)


def _not_utf_8(text: str, value: str) -> RowFault:
    return RowFault("file", "UTF-8 text", value, f"{text}. Save the file as UTF-8")


def form_of(text: str) -> ManifestForm:
    """Return how the rows of a text are written: JSON begins with a brace or a bracket."""
    return "json" if text.lstrip()[:1] in ("{", "[") else "table"


def json_rows(text: str) -> Iterator[Row]:
    """Yield the rows of JSON Lines."""
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row: JSON = msgspec.json.decode(line)
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            reason = str(error).removeprefix("JSON is malformed: ")[:80]
            yield number, RowFault("line", "one JSON object", reason, f"not JSON ({reason})")
            continue
        fields = mapping_or_empty(row)
        if fields or row == {}:
            yield number, fields
        else:
            value = repr(row)[:40]
            yield (
                number,
                RowFault("line", "one JSON object", value, f"not a JSON object {{...}}, but {value}"),
            )


def table_rows(text: str, separator: str = "") -> Iterator[Row]:
    """Yield the rows of a table below its header.

    Args:
        text: The table.
        separator: Of the columns; by default the one that the header has most of.
    """
    separator = separator or _separator(text)
    reader = csv.DictReader(io.StringIO(text), delimiter=separator, strict=True)
    try:
        names = Counter(name.strip() for name in reader.fieldnames or ())
        for name in (name for name, count in names.items() if count > 1):
            fault = f"the column {name[:80]!r} is in the header more than once"
            yield reader.line_num, RowFault(name, "once in the header", "more than once", fault)
        for row in reader:
            if None in row or None in row.values():
                fault = "not as many columns as the header"
                yield reader.line_num, RowFault("line", "as many columns as the header", "", fault)
            elif any(row.values()):
                yield reader.line_num, {name.strip(): value for name, value in row.items() if value}
    except csv.Error as error:
        reason = str(error)[:80]
        yield reader.line_num, RowFault("line", "well-formed CSV", reason, f"not CSV ({reason})")


def _separator(text: str) -> str:
    header = text.lstrip("\r\n").partition("\n")[0]
    return max(SEPARATORS, key=header.count)  # the comma, where there are as many of another or none
