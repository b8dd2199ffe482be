"""`musicapi sandbox` runs the API on this machine. No key, no cost."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from ..api.account import credits_text
from ..arguments import is_list
from ..files import expand
from .invocation import Invocation, until_terminated
from .output import print_err
from .parameters import Positive, RateLimit
from .usage import Command

if TYPE_CHECKING:
    from .._transport.rate_window import Rate
    from ..sandbox import Choices, Durations, Faults, Sandbox

DEFAULT_PORT: Final = 8765

TRUSTED: Final = ("SSL_CERT_FILE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS")
"""The variables by which programs trust a certificate: OpenSSL and Python, curl and `requests`, Node."""


@click.command("sandbox", cls=Command)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=DEFAULT_PORT,
    show_default=True,
    help="Port to listen on; 0 is any free port.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--speed",
    type=Positive(),
    default=1.0,
    show_default=True,
    help="Speed of its clock; 1 is that of the service.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the ids, durations and music.")
@click.option(
    "--credits",
    "balance",
    type=click.FloatRange(min=0),
    default=1000,
    show_default=True,
    help="Balance at the start; with --state, at the start of the first run.",
)
@click.option(
    "--create-limit",
    "create_rate",
    type=RateLimit(),
    metavar="COUNT/TIME",
    help="Largest number of creates per time, such as the service's 1/3s. Default: no limit.",
)
@click.option(
    "--like",
    metavar="PRESET",
    help="Choices that known clients expect: vendor-samples or vendor-sdk; --like help describes them.",
)
@click.option(
    "--choice",
    "choices",
    multiple=True,
    metavar="NAME=WORD",
    help="Behaviour that the service's documentation leaves open, such as running=hidden. Repeatable; "
    "--choice help lists all.",
)
@click.option(
    "--duration",
    "durations",
    multiple=True,
    metavar="NAME=SECONDS",
    help="Seconds that something takes, such as song=30. Repeatable; --duration help lists all.",
)
@click.option(
    "--fail",
    "faults",
    multiple=True,
    metavar="FAULT",
    help="Fault to inject, such as 'POST /sonic/create 429*2'. Repeatable; --fail help lists all.",
)
@click.option(
    "--state",
    metavar="FILE",
    help="File to store tasks, clips, personas, balance and journal in; they survive a restart.",
)
@click.option(
    "--public-url",
    metavar="URL",
    help="Address in links, if clients use another one than this machine's: a tunnel, or with --host 0.0.0.0 "
    "the name of this machine.",
)
@click.option("--tls", is_flag=True, help="Serve HTTPS with a new certificate of its own.")
@click.option(
    "--tls-cert",
    nargs=2,
    metavar="CERT KEY",
    help="Serve HTTPS with the PEM files of a certificate and its key.",
)
@click.option(
    "--local-ports",
    is_flag=True,
    help="Send webhooks to other ports of this machine, and fetch uploads from them. Default: skip them.",
)
@click.pass_obj
async def sandbox_command(invocation: Invocation, /, **given: Any) -> None:
    """Run a server with the API of the service on this machine, with real audio and no cost. Ctrl-C ends it.

    Its page displays tasks, balance and every request live; -v prints the requests. Choices, durations,
    faults and balance can also be set while it runs, over HTTP below /_sandbox/, with the token that it
    prints.
    """
    lists = _requested_lists(given)
    if lists:  # help is read with `less` and `grep`: as JSON only on request
        if invocation.json is None:
            invocation.json = False
        invocation.reporter.event("settings", dict(lists), _list_lines(lists))
        return
    sandbox = _sandbox(given)
    try:
        await sandbox.start()
    except ValueError as error:
        raise click.UsageError(f"{error}.") from None
    except OSError as error:
        raise click.UsageError(_why_not(given["host"], given["port"], error)) from error
    logging.getLogger("musicapi_async.sandbox.access").setLevel(logging.INFO)  # printed with -v
    speed = sandbox.clock.speed
    variables = {"MUSICAPI_BASE_URL": sandbox.base_url, "MUSICAPI_KEY": sandbox.api_key}
    if speed != 1:
        variables["MUSICAPI_CLOCK_SPEED"] = f"{speed:g}"
    if sandbox.ca_file is not None:
        variables |= dict.fromkeys(TRUSTED, str(sandbox.ca_file))
    fields: dict[str, object] = {
        "base_url": sandbox.base_url,
        "api_key": sandbox.api_key,
        "speed": speed,
        "control_url": sandbox.control_url,
        "control_token": sandbox.control_token,
        "page_url": sandbox.page_url,
        "ca_file": sandbox.ca_file,
    }
    lines = [
        f"The sandbox listens on {sandbox.base_url}",
        f"Key: {sandbox.api_key}   Credits: {credits_text(sandbox.balance)}   Ctrl-C ends it.",
        f"Page: {sandbox.page_url}",
        f"Control: {sandbox.control_url}   (/openapi.json describes it)",
        f"Token: {sandbox.control_token}",
        "",
        "In another terminal:",
        *(f"  export {name}={value}" for name, value in variables.items()),
    ]
    try:
        with until_terminated():
            invocation.reporter.event("sandbox", fields, lines)
            await sandbox.serve_forever()
    except asyncio.CancelledError:  # Ctrl-C, the usual end
        pass
    print_err("The sandbox has ended.")


def _why_not(host: str, port: int, error: OSError) -> str:
    """Return why it cannot listen, in the option that is to be changed."""
    # From Python 3.13 on asyncio raises an error without a number if no address of a host can be had.
    if isinstance(error, socket.gaierror) or error.errno in (errno.EADDRNOTAVAIL, None):
        return f"--host {host}: this machine has no such address. Try 127.0.0.1, or 0.0.0.0 for all."
    reason = os.strerror(error.errno) if error.errno else str(error)
    return f"--port {port}: cannot listen: {reason}. Try --port 0."


def _sandbox(given: dict[str, Any]) -> Sandbox:
    from ..sandbox import Sandbox

    rate: Rate | None = given["create_rate"]
    if given["tls"] and given["tls_cert"]:
        raise click.UsageError("--tls and --tls-cert exclude each other.")
    choices, durations = _settings(given)
    state = None if given["state"] is None else Path(expand(given["state"]))
    try:
        return Sandbox(
            port=given["port"],
            host=given["host"],
            speed=given["speed"],
            seed=given["seed"],
            credits=given["balance"],
            create_limit=None if rate is None else (rate.count, rate.period),
            choices=choices,
            durations=durations,
            faults=_faults(given["faults"]),
            public_url=given["public_url"],
            tls=True if given["tls"] else given["tls_cert"],
            local_ports=given["local_ports"],
            state=state,
        )
    except ValueError as error:
        raise click.UsageError(f"{error}") from None


def _settings(given: dict[str, Any]) -> tuple[Choices, Durations]:
    """Return the choices and durations: those of the preset, changed as given."""
    from ..sandbox import Choices, Durations
    from ..sandbox.declared_settings import WrongSetting, changed
    from ..sandbox.reply_choices import preset

    option = "--like"
    try:
        choices, durations = preset(given["like"]) if given["like"] else (Choices(), Durations())
        option = "--choice"
        choices = changed(choices, _pairs(given["choices"]), texts=True)
        option = "--duration"
        durations = changed(durations, _pairs(given["durations"]), texts=True)
    except WrongSetting as error:
        raise click.UsageError(f"{option}: {error}. '{option} help' lists all.") from None
    return choices, durations


def _pairs(texts: Sequence[str]) -> dict[str, object]:
    from ..sandbox.declared_settings import WrongSetting

    pairs: dict[str, object] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise WrongSetting(f"name=value is needed, got {text!r}")
        pairs[name.strip().replace("-", "_")] = value.strip()
    return pairs


def _faults(texts: Sequence[str]) -> Faults:
    from ..sandbox import Faults
    from ..sandbox.declared_settings import WrongSetting
    from ..sandbox.fault_texts import add

    faults = Faults()
    for text in texts:
        try:
            add(faults, text)
        except WrongSetting as error:
            raise click.UsageError(f"--fail {text!r}: {error}. '--fail help' lists all.") from None
    return faults


def _requested_lists(given: dict[str, Any]) -> dict[str, dict[str, str]]:
    """Return the settings to list, by option, where an option is `help`."""
    from ..sandbox import Choices, Durations
    from ..sandbox.declared_settings import settings_of
    from ..sandbox.fault_texts import COMMON, fault_words
    from ..sandbox.reply_choices import PRESETS

    lists: dict[str, dict[str, str]] = {}
    if given["like"] == "help":
        lists["presets"] = {name: preset.help for name, preset in PRESETS.items()}
    for option, declared in (("choices", Choices), ("durations", Durations)):
        if "help" in given[option]:
            rows = settings_of(declared).values()
            lists[option] = {
                f"{row.name}={row.allowed()}": f"{row.help} Default: {_as_typed(row.default)}."
                for row in rows
            }
    if "help" in given["faults"]:
        lists["faults"] = {
            " ".join([word.name, *(f"{name}=..." for name in word.options)]): word.help[:1].upper()
            + word.help[1:]
            for word in fault_words().values()
        }
        every = {row.name: row for row in COMMON}
        lists["faults"] |= {f"each: {name}=...": every[name].help for name in ("times", "after", "rate")}
    return lists


def _as_typed(value: object) -> str:
    """Return a default as an option takes it, such as `40,0.3`."""
    if is_list(value):
        return ",".join(map(_as_typed, value))
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.10g}" if isinstance(value, float) else str(value)


_HEADINGS: Final = {
    "presets": "--like PRESET",
    "choices": "--choice NAME=WORD",
    "durations": "--duration NAME=SECONDS, in seconds of the service",
    "faults": "--fail 'METHOD PATH FAULT', such as 'POST /sonic/create 429*2 retry_after=2'; a number is "
    "the status of an HTTP error, *2 means two requests, * all of them; in a path * is any text, as in "
    "/sonic/task/* and /media/*",
}


def _list_lines(lists: dict[str, dict[str, str]]) -> list[str]:
    indent = " " * 4
    lines: list[str] = []
    for kind, rows in lists.items():
        lines += [*([""] if lines else []), *click.wrap_text(_HEADINGS[kind], 80).splitlines()]
        for name, text in rows.items():
            lines += click.wrap_text(name, 80, "", indent + indent).splitlines()
            lines += click.wrap_text(text, 80, indent, indent).splitlines()
    return lines
