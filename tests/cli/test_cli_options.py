"""Options are read off the declarations, and everything that is declared can be called."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from musicapi_async.api.families import FAMILIES
from musicapi_async.api.operation import Operation
from musicapi_async.cli.commands import musicapi
from musicapi_async.cli.operation_commands import OperationCommand
from musicapi_async.cli.parameters import argument_fields, fields_given, parameters_of

OPERATIONS = [operation for family in FAMILIES.values() for operation in family.operations().values()]


def operation_of(family: str, name: str) -> Operation[..., Any]:
    return FAMILIES[family].operations()[name]


def groups_of(group: click.Group, *names: str) -> Iterator[tuple[tuple[str, ...], click.Group]]:
    """The group and all groups in it, each with its words."""
    yield names, group
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from groups_of(command, *names, name)


def parsed(operation: Operation[..., Any], *args: str, given: str = "") -> dict[str, Any]:
    """The keyword arguments that the method would get."""
    got: dict[str, Any] = {}

    def note(**values: Any) -> None:
        got.update(fields_given(operation, values))

    command = click.Command("it", callback=note, params=parameters_of(operation))
    result = CliRunner().invoke(command, args, input=given, standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return got


@pytest.mark.parametrize("operation", OPERATIONS, ids=repr)
def test_every_operation_has_command_with_help(operation: Operation[..., Any]) -> None:
    """Every declared operation appears, with its path, its price and every field's name."""
    args = [operation.family.word, operation.name.replace("_", "-"), "--help"]
    result = CliRunner().invoke(musicapi, args, terminal_width=80)
    assert result.exit_code == 0, result.output
    assert operation.path in result.output
    assert ("Charges credits." if operation.charges else "Free.") in result.output
    for field in operation.fields:
        shown = field.name.replace("_", "-")
        assert f"--{shown}" in result.output or field.name.upper() in result.output
    assert max(map(len, result.output.splitlines())) <= 80


def test_help_breaks_no_command() -> None:
    """A command in a sentence can be copied from each help text."""
    for args in ([*group, name] for group, one in groups_of(musicapi) for name in one.commands):
        result = CliRunner().invoke(musicapi, [*args, "--help"], terminal_width=80)
        assert not [line for line in result.output.splitlines() if line.count("`") % 2], args


@pytest.mark.parametrize("args", [["create"], ["batch", "run"]], ids=" ".join)
def test_help_breaks_no_option(args: list[str]) -> None:
    """An option in a sentence can be copied: no line of 80 columns ends inside one."""
    result = CliRunner().invoke(musicapi, [*args, "--help"], terminal_width=80)
    assert not [line for line in result.output.splitlines() if line.endswith("-")]


def test_help_cuts_no_sentence() -> None:
    """Lists of commands have whole sentences, in the order in which a new user needs them."""
    for args in ([], ["sonic"], ["batch"]):
        assert "..." not in CliRunner().invoke(musicapi, [*args, "--help"]).output.partition("Commands:")[2]
    names = re.findall(r"^  (\w+)  ", CliRunner().invoke(musicapi, ["--help"]).output, re.MULTILINE)
    assert names[:4] == ["demo", "sandbox", "create", "persona"]


@pytest.mark.parametrize("operation", OPERATIONS, ids=repr)
def test_no_two_options_of_command_share_name(operation: Operation[..., Any]) -> None:
    """A field of the request never hides an option of the command."""
    command = OperationCommand(operation)
    params = command.get_params(click.Context(command))
    spelt = [text for param in params for text in (*param.opts, *param.secondary_opts) if text[0] == "-"]
    assert len(spelt) == len(set(spelt))


def test_types_follow_declaration() -> None:
    """Numbers, flags and text arrive as what they are; absent ones are left out."""
    operation = operation_of("sonic", "create_music")
    got = parsed(
        operation,
        *("--mv", "sonic-v6", "--duration", "60", "--style-weight", "0.5"),
        *("--make-instrumental", "--no-custom-mode", "--title", "T"),
    )
    assert got == {
        "mv": "sonic-v6",
        "duration": 60,
        "style_weight": 0.5,
        "make_instrumental": True,
        "custom_mode": False,
        "title": "T",
    }


def test_lists_repeat_their_option() -> None:
    """A list is given one by one."""
    got = parsed(operation_of("sonic", "download"), "c1", "--formats", "mp3", "--formats", "wav")
    assert got == {"clip_id": "c1", "formats": ["mp3", "wav"]}


def test_number_or_text_is_recognised() -> None:
    """Fields of two types take both."""
    operation = operation_of("producer", "create_music")
    assert parsed(operation, "--seed", "007", "--bpm", "120") == {"seed": "007", "bpm": 120}


def test_objects_are_given_as_json(tmp_path: Path) -> None:
    """An object is a JSON value or a file of it."""
    operation = operation_of("studio", "create")
    file = tmp_path / "config.json"
    file.write_text('{"mode": "precede"}', encoding="utf-8")
    needed = ["--prompt", "p", "--model-type", "m", "--lyrics-type", "user"]
    assert parsed(operation, *needed, "--config", f"@{file}")["config"] == {"mode": "precede"}
    with pytest.raises(click.BadParameter, match="not JSON"):
        parsed(operation, *needed, "--config", "{")


def test_ids_are_arguments_or_options() -> None:
    """`stems-basic CLIP_ID` and `stems-basic --clip-id CLIP_ID` are the same; both at once are refused."""
    operation = operation_of("sonic", "stems_basic")
    assert [field.name for field in argument_fields(operation)] == ["clip_id"]
    assert parsed(operation, "abc") == parsed(operation, "--clip-id", "abc") == {"clip_id": "abc"}
    with pytest.raises(click.UsageError, match="twice"):
        parsed(operation, "abc", "--clip-id", "abc")
    with pytest.raises(click.UsageError, match="Missing argument 'CLIP_ID'"):
        parsed(operation)


def test_single_required_field_is_argument(tmp_path: Path) -> None:
    """`lyrics "rain"`, and the same from a file."""
    operation = operation_of("sonic", "lyrics")
    (tmp_path / "idea").write_text("rain", encoding="utf-8")
    for args in (["rain"], ["--description", "rain"], [f"@{tmp_path}/idea"]):
        assert parsed(operation, *args) == {"description": "rain"}
    with pytest.raises(click.UsageError, match="Missing argument 'DESCRIPTION'"):
        parsed(operation)


@pytest.mark.parametrize(
    ("args", "missing"), [([], "--mv"), (["--mv", "m", "--continue-at", "3"], "--custom-mode")]
)
def test_missing_required_field_is_named(args: list[str], missing: str) -> None:
    """Required fields are asked for by the name of their option, flags too."""
    operation = operation_of("sonic", "extend_music")
    with pytest.raises(click.UsageError) as caught:
        parsed(operation, *args, "--continue-clip-id", "c")
    assert missing in caught.value.format_message()


class TestTextFromFiles:
    """`@file`, `@-` and `@@`."""

    def prompt(self, value: str, given: str = "") -> str:
        operation = operation_of("sonic", "create_music")
        return parsed(operation, "--mv", "m", "--prompt", value, given=given)["prompt"]

    def test_file_is_read(self, tmp_path: Path) -> None:
        """Without its byte order mark and its last line break."""
        file = tmp_path / "lyrics.txt"
        file.write_bytes("\ufeff[Verse]\nGrüße\n".encode())
        assert self.prompt(f"@{file}") == "[Verse]\nGrüße"

    def test_standard_input_is_read(self) -> None:
        """`@-` takes what is piped in."""
        assert self.prompt("@-", given="la la\n") == "la la"

    def test_doubled_at_sign_is_text(self) -> None:
        """Text may begin with '@'."""
        assert self.prompt("@@home") == "@home"

    @pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"x" * (1024 * 1024 + 1)])
    def test_binary_and_huge_files_are_refused(self, tmp_path: Path, content: bytes) -> None:
        """Bytes that are not UTF-8, and files without end, are refused by name."""
        file = tmp_path / "lyrics.bin"
        file.write_bytes(content)
        with pytest.raises(click.BadParameter, match=r"lyrics\.bin"):
            self.prompt(f"@{file}")

    def test_missing_file_is_named(self) -> None:
        """With the way to mean text instead."""
        with pytest.raises(click.BadParameter, match=r"'nowhere'.*@@"):
            self.prompt("@nowhere")

    def test_secret_is_never_argument(self, tmp_path: Path) -> None:
        """Arguments show in the list of processes, so a secret comes from a file."""
        operation = operation_of("sonic", "create_music")
        with pytest.raises(click.BadParameter) as caught:
            parsed(operation, "--mv", "m", "--webhook-secret", "hush")
        assert "hush" not in caught.value.format_message()
        file = tmp_path / "secret"
        file.write_text("hush\n", encoding="utf-8")
        got = parsed(operation, "--mv", "m", "--webhook-secret", f"@{file}")
        assert got["webhook_secret"] == "hush"
