"""`musicapi sandbox`: the sandbox alone, for programs in any language."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any, Final

import click

from .invocation import Command, Invocation
from .output import print_err
from .parameters import Positive, RateLimit

if TYPE_CHECKING:
    from .._transport.rate import Rate

DEFAULT_PORT: Final = 8765


@click.command("sandbox", cls=Command)
@click.option(
    "--port", type=click.IntRange(0, 65535), default=DEFAULT_PORT, show_default=True, help="0: any free one."
)
@click.option(
    "--speed", type=Positive(), default=1.0, show_default=True, help="Times as fast as the service."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the ids, durations and music.")
@click.option(
    "--credits", "balance", type=click.FloatRange(min=0), default=1000, show_default=True, help="The balance."
)
@click.option(
    "--create-limit",
    "create_rate",
    type=RateLimit(),
    metavar="COUNT/TIME",
    help="Most creates per time, such as the service's 1/3s. Default: no limit.",
)
@click.pass_obj
async def sandbox_command(
    invocation: Invocation, *, port: int, speed: float, seed: int, balance: float, create_rate: Rate | None
) -> None:
    """Run the API on this machine, with real audio and no cost. Ctrl-C ends it."""
    from ..sandbox import Sandbox

    limit = None if create_rate is None else (create_rate.count, create_rate.period)
    sandbox = Sandbox(port=port, speed=speed, seed=seed, credits=balance, create_limit=limit)
    try:
        await sandbox.start()
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise click.UsageError(f"--port {port}: cannot listen: {reason}. Try --port 0.") from error
    variables = {"MUSICAPI_BASE_URL": sandbox.base_url, "MUSICAPI_KEY": sandbox.api_key}
    if speed != 1:
        variables["MUSICAPI_CLOCK_SPEED"] = f"{speed:g}"
    fields: dict[str, Any] = {"base_url": sandbox.base_url, "api_key": sandbox.api_key, "speed": speed}
    lines = [
        f"The sandbox listens on {sandbox.base_url}",
        f"Key: {sandbox.api_key}   Credits: {balance:g}   Ctrl-C ends it.",
        "",
        "In another terminal:",
        *(f"  export {name}={value}" for name, value in variables.items()),
    ]
    try:
        invocation.reporter.event("sandbox", fields, lines)
        await sandbox.serve_forever()
    except asyncio.CancelledError:  # Ctrl-C, the usual end
        print_err("The sandbox has ended.")
