"""What the command says to those who mistype: the right word, and where tokens come from."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from command_shell import Shell

from musicapi_async import MusicAPIError, errors
from musicapi_async.api.values import SONIC_MODELS
from musicapi_async.cli.complaint import error_fields, in_commands
from musicapi_async.cli.root import root
from musicapi_async.jobs.job_errors import resolving
from musicapi_async.sandbox import Sandbox

TOKEN = "A token looks like musicapi:sonic:create_music:1760000000:TASK_ID and is printed by"

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
        )
    ),
    (["producer", "create-music", "--style", "folk"], "Did you mean '--sound'?"),
    (["download", "t", "--output", "d"], "Did you mean '--out'?"),
    (["batch", "run", __file__, "--output", "d"], "Did you mean '--out'?"),
    (["--base-ulr", "x", "credits"], "Did you mean '--base-url'?"),
    (["create", "--prompt", "la"], f"Missing option '--mv'. Known: {', '.join(SONIC_MODELS)}."),
    (["create", "--prompt", "la", "--mv", ""], f"known for --mv: {', '.join(SONIC_MODELS)}"),
]


@pytest.mark.parametrize(("args", "told"), TYPOS)
def test_a_typo_names_what_was_meant(args: list[str], told: str) -> None:
    """Commands, words of options, operations and tokens."""
    done = CliRunner().invoke(root, ["--text", *args], terminal_width=500, env={"MUSICAPI_KEY": "k"})
    assert done.exit_code == 2
    assert told in " ".join(done.stderr.split())


def test_usage_errors_break_between_words() -> None:
    """Not in the middle of one, where the terminal ends."""
    done = CliRunner().invoke(
        root, ["--text", "wait", "two words"], env={"MUSICAPI_KEY": "k", "COLUMNS": "60"}
    )
    told = done.stderr.partition("Error: ")[2].splitlines()
    assert len(told) > 2
    assert max(map(len, told)) <= 60
    assert " ".join(told).startswith(f"'two words' is neither a whole token nor a task id. {TOKEN}")


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


@pytest.mark.parametrize(("args", "told"), RULES)
def test_a_refusal_names_options(args: list[str], told: str) -> None:
    """Not the names and values of Python."""
    done = CliRunner().invoke(root, ["--text", *args], env={"MUSICAPI_KEY": "k"})
    assert done.exit_code == 2
    assert told in " ".join(done.stderr.split())


async def test_an_unknown_id_says_what_a_token_looks_like(shell: Shell) -> None:
    """A word that could be an id is asked for, and the answer says where ids come from."""
    done = await shell.run("wait", "garbage", "--text")
    assert done.code == 1
    assert "GET /sonic/task/garbage" in done.err
    assert TOKEN in " ".join(done.err.split())
    assert "A clip has an id of its own" in done.err


async def test_models_are_listed_by_help_and_completion_and_refusals(shell: Shell) -> None:
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
    told = " ".join(refused.err.split())
    assert "'sonic-v66' is not known here (did you mean 'sonic-v6'?)" in told
    assert f"known for mv: {', '.join(SONIC_MODELS)}." in told


@pytest.mark.parametrize(
    "given", ["song.mp3", "./song.mp3", "file:///home/song.mp3", "ftp://a.example/song.mp3"]
)
async def test_a_local_file_is_refused_with_the_way_out(sandbox: Sandbox, shell: Shell, given: str) -> None:
    """The service takes links only; the way out is no Python."""
    done = await shell.run("--text", "sonic", "upload", given)
    assert (done.code, len(sandbox.journal)) == (2, 0)
    told = " ".join(done.err.split())
    assert "put the file where everybody can fetch it, and give its link" in told
    assert "musicapi_async" not in told


NOT_OF_COMMANDS = re.compile(r"without await|\bcheckpoint\b|\.token|uploader=")
"""What is said only to those who call the library: of a result that was not awaited, of a workflow's steps."""
PYTHON = re.compile(r"client\.|await |\w\(\)|=\.\.\.|\w+=\)|musicapi_async|\bbase_url\b|`|\bAwait\b")
"""What a text for users of the command must not hold."""
COMMAND = re.compile(r"`musicapi [^`]*`")
OF_COMMANDS = ("workflows", "options.py", "errors.py", "jobs", "polling", "_transport", "_wire", "cli")
"""Where the texts come from that the command can show."""


def advice() -> Iterator[tuple[str, str]]:
    """Every hint in the source, with an example in the place of what is filled in, and where it stands."""
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
        case ast.Assign(targets=[ast.Name(id=name) | ast.Attribute(attr=name)], value=value):
            if name in ("hint", "told") or name.endswith("_hint"):
                yield from texts_of(value)
        case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
            if name.endswith("_hint") or name in (
                "CONFLICT_HINT",
                "DISK_HINT",
                "RETRY_HINT",
                "WAIT_FIRST",
                "NO_LINK",
            ):
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
    """An example for what is filled in; `!r` puts quotes around it."""
    return "'example'" if isinstance(part, ast.FormattedValue) and part.conversion == ord("r") else ""


def test_no_advice_of_the_command_is_python() -> None:
    """Every hint that the command can show names commands and options."""
    found = {where: in_commands(text) for where, text in advice() if not NOT_OF_COMMANDS.search(text)}
    assert len(found) > 40
    python = {where: told for where, told in found.items() if PYTHON.search(COMMAND.sub("", told))}
    assert python == {}


@pytest.mark.parametrize(
    ("error", "told"),
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
        (errors.TaskTimeoutError("late", task_id="t", family="sonic"), "Wait for it again"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_advice_names_commands(error: MusicAPIError, told: str) -> None:
    """The same advice as in Python, in commands."""
    assert told in error_fields(error, 1)["next"]


@pytest.mark.parametrize("group", ["batch", "jobs", "sonic"])
async def test_a_group_alone_prints_its_help_as_text(group: str, tmp_path: Path) -> None:
    """Also where errors are JSON, because nobody reads help with a program."""
    done = await Shell(folder=tmp_path).run(group)
    assert done.err.startswith("Usage: ") or done.out.startswith("Usage: ")
    assert '"event"' not in done.err + done.out
