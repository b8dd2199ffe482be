"""`musicapi sandbox`: what its options set, and what they refuse before anything listens."""

from __future__ import annotations

import json
import signal
import urllib.request
from typing import Any

import anyio
import pytest
from click.testing import CliRunner
from command_shell import Shell

from musicapi_async.cli.commands import musicapi
from musicapi_async.sandbox import Choices, Durations
from musicapi_async.sandbox.declared_settings import settings_of
from musicapi_async.sandbox.fault_texts import fault_words
from musicapi_async.sandbox.reply_choices import PRESETS


def asked(facts: dict[str, Any], path: str) -> Any:
    """A reply of the control."""
    return reply_to(facts["control_url"] + path, facts["control_token"])


def reply_to(url: str, key: str) -> Any:
    request = urllib.request.Request(url)
    request.add_header("Authorization", f"Bearer {key}")
    with urllib.request.urlopen(request) as reply:
        return json.load(reply)


async def test_options_set_the_sandbox(shell: Shell) -> None:
    """A preset, choices above it, durations, faults, balance; -v prints requests, but none of the control."""
    options = (
        "--like", "vendor-sdk", "--choice", "running=visible", "--choice", "webhook-attempts=2", "--duration",
        "song=30", "--fail", "POST /sonic/create 429*2 retry_after=1", "--fail", "GET /media/* truncate*",
        "--credits", "7", "--port", "0",
    )  # fmt: skip
    process = await shell.start("-v", "--json", "sandbox", *options)
    facts = json.loads(await process.stdout.readline())
    choices = asked(facts, "/choices")
    assert (choices["running"], choices["webhook_attempts"], choices["duration"]) == ("visible", 2, "number")
    assert asked(facts, "/durations")["song"] == [30, 0]
    assert [(row["fault"], row["times"]) for row in asked(facts, "/faults")["scripts"]] == [
        ("status", 2),
        ("truncate", None),
    ]
    assert asked(facts, "/account")["credits"] == 7
    assert reply_to(facts["base_url"] + "/get-credits", facts["api_key"])["credits"] == 7
    log = json.loads(await process.stderr.readline())
    assert log["message"].endswith("GET /get-credits 200")
    process.send_signal(signal.SIGINT)
    _, rest = await process.communicate()
    assert rest.decode().splitlines() == ["The sandbox has ended."]


async def test_programs_of_others_trust_its_certificate_until_it_is_terminated(shell: Shell) -> None:
    """The printed variables name the file of the authority, for curl, too; SIGTERM removes it."""
    process = await shell.start("--text", "sandbox", "--port", "0", "--tls")
    variables: dict[str, str] = {}
    while "NODE_EXTRA_CA_CERTS" not in variables:
        words = (await process.stdout.readline()).decode().split()
        if words[:1] == ["export"]:
            variables.update([words[1].split("=", 1)])
    assert variables["SSL_CERT_FILE"] == variables["CURL_CA_BUNDLE"] == variables["NODE_EXTRA_CA_CERTS"]
    file = anyio.Path(variables["CURL_CA_BUNDLE"])
    assert (await file.read_text()).startswith("-----BEGIN CERTIFICATE-----")
    process.send_signal(signal.SIGTERM)
    _, rest = await process.communicate()
    assert (rest.decode().splitlines(), process.returncode) == (["The sandbox has ended."], 0)
    assert not await file.exists()


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--choice", "running=hiden"], "--choice: running must be 'visible' or 'hidden', got 'hiden'."),
        (["--choice", "running"], "--choice: name=value is needed, got 'running'"),
        (["--duration", "song=long"], "--duration: song must be a number of seconds"),
        (["--fail", "POST /sonic/creat 429"], "did you mean '/sonic/create'?"),
        (["--like", "vendor"], "--like: like must be one of vendor-samples, vendor-sdk"),
        (["--public-url", "tunnel"], "public_url must be http(s)://host"),
        (["--tls", "--tls-cert", "a", "b"], "--tls and --tls-cert exclude each other."),
        (["--tls-cert", "none.pem", "none.key"], "the certificate 'none.pem' with the key 'none.key'"),
        (["--credits", "nan"], "credits must be a number of 0 to 1,000,000,000,000, got nan"),
        (["--host", "nosuch.invalid"], "--host nosuch.invalid: this machine has no such address."),
        (["--host", "192.0.2.1"], "--host 192.0.2.1: this machine has no such address."),
        (["--state", "/"], "the state '/' cannot be opened: Is a directory."),
    ],
)
def test_wrong_options_are_refused(args: list[str], said: str) -> None:
    """With the option, what is wrong, and what is allowed; exit code 2."""
    result = CliRunner().invoke(musicapi, ["--text", "sandbox", "--port", "0", *args])
    assert result.exit_code == 2
    assert said in " ".join(result.output.split())


def test_lists_have_every_row() -> None:
    """`help` in the place of a value lists all presets, choices, durations and faults, within 80 columns."""
    options = ("--like", "--choice", "--duration", "--fail")
    args = ["sandbox", *(word for option in options for word in (option, "help"))]  # as text in a pipe, too
    result = CliRunner(env={"COLUMNS": "80"}).invoke(musicapi, args)
    assert result.exit_code == 0
    common = (f"each: {name}=..." for name in ("times", "after", "rate"))
    for name in (*PRESETS, *settings_of(Choices), *settings_of(Durations), *fault_words(), *common):
        assert name in result.output
    assert "Default: visible." in result.output
    assert max(map(len, result.output.splitlines())) <= 80
