"""Advice of the command for mistyped words and ids, and hints without Python."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from command_shell import Shell

from musicapi_async import MusicAPIError, errors
from musicapi_async.api.field_limits import SONIC_MODELS
from musicapi_async.cli.commands import musicapi
from musicapi_async.cli.error_texts import error_fields
from musicapi_async.jobs.reservation import resolving
from musicapi_async.sandbox import Sandbox
from musicapi_async.workflows.command_texts import in_commands

TOKEN = "A token is such as musicapi:sonic:create_music:1760000000:TASK_ID and is printed by"

TYPOS: list[tuple[list[str], str]] = [
    (["crate"], "No such command 'crate' (did you mean 'create'?)"),
    (["sonic", "create-musik"], "No such command 'create-musik' (did you mean 'create-music'?)"),
    (["batch", "rnu"], "No such command 'rnu' (did you mean 'run'?)"),
    (["jobs", "lst"], "No such command 'lst' (did you mean 'list'?)"),
    (["wait", "t", "--until", "frist"], "'all', 'first', 'stream' (did you mean 'first'?)"),
    (["wait", "t", "--family", "sonik"], "(did you mean 'sonic'?)"),
    (["jobs", "list", ".", "--state", "ambigous"], "(did you mean 'ambiguous'?)"),
    (["completion", "bsh"], "(did you mean 'bash'?)"),
    (["batch", "run", __file__, "--out", "o", "--price", "create-musik=3"], "(did you mean 'create_music'?)"),
    (
        ["batch", "run", __file__, "--out", "o", "--rate-limit", "x"],
        "Invalid value for '--rate-limit': expected something like",
    ),
    (["batch", "songs.jsonl", "--out", "o"], "No such command 'songs.jsonl'. There are "),
    (["download", "t", "--name", "{titel}"], "'--name': a pattern with the fields title, clip_id, "),
    (["wait", "two words"], f"'two words' is neither a whole token nor a task id. {TOKEN}"),
    (["wait", "https://a.example/song"], TOKEN),
    (["download", "musicapi:sonic"], TOKEN),
    (["task", ""], TOKEN),
    (["task", "musicapi:sonix:x:1:abc"], "names no family of tasks (did you mean 'sonic'?)"),
    *(
        (
            ["create", "--mv", "sonic-v6", f"--{given}", "x"],
            f"No such option '--{given}'. Did you mean '--{meant}'?",
        )
        for given, meant in (
            ("style", "tags"),
            ("genre", "tags"),
            ("lyrics", "prompt"),
            ("model", "mv"),
            ("out", "download"),
            ("output", "download"),
            ("tittle", "title"),
            ("name", "title"),
            ("voice", "vocal-gender"),
            ("description", "gpt-description-prompt"),
            ("api-key", "key-file"),
        )
    ),
    (["create", "-o", "d"], "No such option '-o'. Did you mean '--download'?"),
    (["create", "-out", "d"], "No such option '-out'. Did you mean '--download'?"),
    (["download", "t", "-o", "d"], "No such option '-o'. Did you mean '--out'?"),
    (["wait", "t", "--out", "d"], "No such option '--out'. `musicapi download` fetches files."),
    (["persona", "c", "--title", "x"], "No such option '--title'. Did you mean '--name'?"),
    (["--title", "x", "create"], "No such option '--title'. Options of a command follow its name."),
    (
        ["create", "--mv", "sonic-v6", "--prompt", "la", "la", "la"],
        "unexpected extra arguments (la la). Text needs its option before it",
    ),
    (
        ["create", "--mv", "sonic-v6", "calm rain"],
        "(calm rain). Text needs its option before it, such as --gpt-description-prompt, and quotes",
    ),
    (["batch", "x" * 300], "'. There are "),
    (["batch", __file__, "--out", "o"], f"(did you mean `musicapi batch run {__file__}`?)"),
    (
        ["create", "--title", "--make-instrumental", "--mv", "sonic-v6"],
        "'--title' needs a value, and '--make-instrumental' is an option (to mean the text, write --title=",
    ),
    (["producer", "create-music", "--style", "folk"], "Did you mean '--sound'?"),
    (["download", "t", "--output", "d"], "Did you mean '--out'?"),
    (["batch", "run", __file__, "--output", "d"], "Did you mean '--out'?"),
    (["--base-ulr", "x", "credits"], "Did you mean '--base-url'?"),
    (["create", "--prompt", "la"], f"Missing option '--mv'. Known: {', '.join(SONIC_MODELS)}."),
    (["create", "--prompt", "la", "--mv", ""], f"known for --mv: {', '.join(SONIC_MODELS)}"),
]


@pytest.mark.parametrize(("args", "text"), TYPOS)
def test_typo_names_right_word(args: list[str], text: str) -> None:
    """Commands, words of options, operations and tokens."""
    done = CliRunner().invoke(musicapi, ["--text", *args], terminal_width=500, env={"MUSICAPI_KEY": "k"})
    assert done.exit_code == 2
    assert text in " ".join(done.stderr.split())


@pytest.mark.parametrize(
    ("args", "advice"),
    [(["credits", "la"], ""), (["persona", "c", "--name", "My", "Voice"], " Quote text that")],
)
def test_advice_for_extra_words_fits_the_command(args: list[str], advice: str) -> None:
    """No option is named that the command does not have."""
    done = CliRunner().invoke(musicapi, ["--text", *args], terminal_width=500, env={"MUSICAPI_KEY": "k"})
    words = " ".join(done.stderr.split())
    assert f"Got unexpected extra argument ({args[-1]}).{advice}" in words
    assert "--prompt" not in words


def test_usage_errors_break_between_words() -> None:
    """Not in the middle of one, where the terminal ends."""
    done = CliRunner().invoke(
        musicapi, ["--text", "wait", "two words"], env={"MUSICAPI_KEY": "k", "COLUMNS": "60"}
    )
    text = done.stderr.partition("Error: ")[2].splitlines()
    assert len(text) > 2
    assert max(map(len, text)) <= 60
    assert " ".join(text).startswith(f"'two words' is neither a whole token nor a task id. {TOKEN}")


RULES: list[tuple[list[str], str]] = [
    (
        ["create", "--mv", "sonic-v6"],
        "--prompt: needed: lyrics in --prompt, or --gpt-description-prompt instead, or --make-instrumental, got",
    ),
    (
        ["create", "--mv", "sonic-v6", "--gpt-description-prompt", "rain", "--auto-lyrics"],
        "--auto-lyrics: needs --custom-mode and a description in --prompt, got False",
    ),
    (
        ["create", "--mv", "sonic-v6", "--no-custom-mode"],
        "--gpt-description-prompt: needed when --no-custom-mode, got none",
    ),
    (["create", "--mv", "sonic-v6", "--prompt", "la", "--title", "x" * 101], "--title: text of at most"),
    (["producer", "create-music"], "--sound: needed: --sound, or --lyrics, or both, got neither"),
]


@pytest.mark.parametrize(("args", "text"), RULES)
def test_refusal_names_options(args: list[str], text: str) -> None:
    """The text has no names and values of Python."""
    done = CliRunner().invoke(musicapi, ["--text", *args], env={"MUSICAPI_KEY": "k"})
    assert done.exit_code == 2
    assert text in " ".join(done.stderr.split())


async def test_unknown_id_explains_tokens(shell: Shell) -> None:
    """A word that could be an id is polled, and the error explains where ids come from."""
    done = await shell.run("wait", "garbage", "--text")
    assert done.code == 1
    assert "GET /sonic/task/garbage" in done.err
    assert TOKEN in " ".join(done.err.split())
    assert "A clip has an id of its own" in done.err


async def test_models_are_listed(shell: Shell) -> None:
    """A model that the service refuses is answered with those that are known."""
    shown = " ".join((await shell.run("create", "--help")).out.split())
    assert f"Model: {', '.join(SONIC_MODELS)}." in shown
    shell.environment |= {
        "_MUSICAPI_COMPLETE": "bash_complete",
        "COMP_WORDS": "musicapi create --mv sonic-v4",
        "COMP_CWORD": "3",
    }
    offered = (await shell.run()).out.split()
    assert offered == [f"plain,{name}" for name in SONIC_MODELS if name.startswith("sonic-v4")]
    for name in ("_MUSICAPI_COMPLETE", "COMP_WORDS", "COMP_CWORD"):
        del shell.environment[name]
    refused = await shell.run("--text", "create", "--mv", "sonic-v66", "--prompt", "la")
    text = " ".join(refused.err.split())
    assert "'sonic-v66' is not known here (did you mean 'sonic-v6'?)" in text
    assert f"known for mv: {', '.join(SONIC_MODELS)}." in text


@pytest.mark.parametrize(
    "given", ["song.mp3", "./song.mp3", "file:///home/song.mp3", "ftp://a.example/song.mp3"]
)
async def test_local_file_is_refused(sandbox: Sandbox, shell: Shell, given: str) -> None:
    """The service takes links only; the advice is no Python."""
    done = await shell.run("--text", "sonic", "upload", given)
    assert (done.code, len(sandbox.journal)) == (2, 0)
    text = " ".join(done.err.split())
    assert "put the file at a public address, and give its link" in text
    assert "musicapi_async" not in text


NOT_OF_COMMANDS = re.compile(r"without await|\bcheckpoint\b|\.token|uploader=")
"""Hints for callers of the library only: of a result that was not awaited, of the steps of a workflow."""
PYTHON = re.compile(
    r"client\.|await |\w\(\)|=\.\.\.|\w+=\)|musicapi_async|\bbase_url\b|`|\bAwait\b|[A-Z]\w+\(\S"
)
"""Signs of Python, which a text for users of the command must not hold."""
COMMAND = re.compile(r"`(?:musicapi |--)[^`]*`")
OF_COMMANDS = ("workflows", "options.py", "errors.py", "jobs", "polling", "_transport", "_wire", "cli")
"""Sources of the texts that the command can print."""


def advice() -> Iterator[tuple[str, str]]:
    """Yield every hint in the source with its place; an example replaces each value that is filled in."""
    package = Path(errors.__file__).parent
    for name in OF_COMMANDS:
        path = package / name
        assert path.exists(), path
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                for text in hints_of(node):
                    yield f"{file.name}: {text}", text


def hints_of(node: ast.AST) -> Iterator[str]:
    match node:
        case ast.keyword(arg="hint", value=value):
            yield from texts_of(value)
        case ast.Call(func=ast.Name(id=name), args=[value, *_]) if hasattr(errors, name):
            yield from texts_of(value)
        case ast.FunctionDef(name="money"):
            for inner in ast.walk(node):
                if isinstance(inner, ast.Return) and inner.value is not None:
                    yield from texts_of(inner.value)
        case ast.Assign(targets=[ast.Name(id=name) | ast.Attribute(attr=name)], value=value):
            if name in ("hint", "told") or name.lower().endswith("_hint"):
                yield from texts_of(value)
        case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
            if name.lower().endswith("_hint") or name in ("WAIT_FIRST", "NO_LINK", "REFUSED_ITEM"):
                yield from texts_of(value)
        case _:
            pass


def texts_of(value: ast.expr) -> Iterator[str]:
    match value:
        case ast.Constant(value=str(text)):
            yield text
        case ast.JoinedStr(values=parts):
            yield "".join(
                str(part.value) if isinstance(part, ast.Constant) else filled(part) for part in parts
            )
        case ast.IfExp(body=body, orelse=other):
            yield from (*texts_of(body), *texts_of(other))
        case _:
            pass


def filled(part: ast.expr) -> str:
    """Return an example of a value; `!r` puts quotes around it."""
    return "'example'" if isinstance(part, ast.FormattedValue) and part.conversion == ord("r") else ""


def test_no_advice_of_command_is_python() -> None:
    """Every hint that the command can show names commands and options."""
    found = {where: in_commands(text) for where, text in advice() if not NOT_OF_COMMANDS.search(text)}
    assert len(found) > 40
    python = {where: text for where, text in found.items() if PYTHON.search(COMMAND.sub("", text))}
    assert python == {}


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (
            errors.EndpointRetiredError("gone", status=410, replacement="sonic.create_music"),
            "`musicapi sonic create-music`",
        ),
        (
            errors.StepFailedError("no", status=400, clip_id="c9"),
            "c9, with `musicapi sonic extend-upload-music`",
        ),
        (errors.OutcomeUnknownError("lost"), "`musicapi credits`"),
        (
            errors.MusicAPIError("odd", hint=resolving("k 1")),
            "`musicapi jobs resolve FILE 'k 1' --task-id ID`",
        ),
        (
            errors.MusicAPIError("odd", hint=resolving(r"C:\songs\1")),
            r"`musicapi jobs resubmit FILE 'C:\songs\1'`",
        ),
        (
            errors.MusicAPIError("odd", hint=resolving("it's $(id)")),
            """`musicapi jobs resubmit FILE 'it'"'"'s $(id)'`""",
        ),
        (
            errors.MusicAPIError("odd", hint="""it's "a\\b\""""),
            """it's "a\\b\"""",
        ),
        (errors.TaskTimeoutError("late", task_id="t", family="sonic"), "Wait for it again"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_advice_names_commands(error: MusicAPIError, text: str) -> None:
    """The same advice as in Python, in commands."""
    assert text in error_fields(error, 1)["next"]


@pytest.mark.parametrize("group", ["batch", "jobs", "sonic"])
async def test_group_alone_prints_its_help_as_text(group: str, tmp_path: Path) -> None:
    """Help is text even where errors are JSON, because people read it, not programs."""
    done = await Shell(folder=tmp_path).run(group)
    assert done.err.startswith("Usage: ") or done.out.startswith("Usage: ")
    assert '"event"' not in done.err + done.out
