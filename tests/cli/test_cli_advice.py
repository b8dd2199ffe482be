"""What the command says to those who mistype: the right word, and where tokens come from."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from command_shell import Shell

from musicapi_async.cli.root import root

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


@pytest.mark.parametrize("group", ["batch", "jobs", "sonic"])
async def test_a_group_alone_prints_its_help_as_text(group: str, tmp_path: Path) -> None:
    """Also where errors are JSON, because nobody reads help with a program."""
    done = await Shell(folder=tmp_path).run(group)
    assert done.err.startswith("Usage: ") or done.out.startswith("Usage: ")
    assert '"event"' not in done.err + done.out
