"""`musicapi sandbox`: the sandbox alone, for programs in any language."""

from __future__ import annotations

from typing import Any

import click

from .commanding import Command, rate_of, run, seconds
from .invocation import Invocation
from .output import tell

DEFAULT_PORT = 8765


def _limit(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, float] | None:
    """'1/3s' as (1, 3.0)."""
    rate_limit = rate_of(ctx, param, value)
    return None if rate_limit is None else (rate_limit.count, rate_limit.period)


@click.command("sandbox", cls=Command)
@click.option(
    "--port", type=click.IntRange(0, 65535), default=DEFAULT_PORT, show_default=True, help="0: any free one."
)
@click.option(
    "--speed",
    type=float,
    default=1.0,
    show_default=True,
    callback=seconds,
    help="Times as fast as the service.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Decides ids, durations and music.")
@click.option(
    "--credits", "balance", type=click.FloatRange(min=0), default=1000, show_default=True, help="The balance."
)
@click.option(
    "--create-limit",
    metavar="COUNT/TIME",
    callback=_limit,
    help="Most creates per time, such as the service's 1/3s. Default: no limit.",
)
def sandbox_command(
    port: int, speed: float, seed: int, balance: float, create_limit: tuple[int, float] | None
) -> None:
    """Run the API on this machine, with real audio and no cost. Ctrl-C ends it."""
    from ..sandbox import Sandbox

    async def work(invocation: Invocation) -> None:
        sandbox = Sandbox(port=port, speed=speed, seed=seed, credits=balance, create_limit=create_limit)
        try:
            await sandbox.start()
        except OSError as error:
            reason = error.strerror or str(error)
            raise click.UsageError(f"--port {port}: cannot listen: {reason}. Try --port 0.") from error
        variables = {"MUSICAPI_BASE_URL": sandbox.base_url, "MUSICAPI_KEY": sandbox.api_key}
        if speed != 1:
            variables["MUSICAPI_CLOCK_SPEED"] = f"{speed:g}"
        fields: dict[str, Any] = {"base_url": sandbox.base_url, "api_key": sandbox.api_key, "speed": speed}
        text = [
            f"The sandbox listens on {sandbox.base_url}",
            f"Key: {sandbox.api_key}   Credits: {balance:g}   Ctrl-C ends it.",
            "",
            "In another terminal:",
            *(f"  export {name}={value}" for name, value in variables.items()),
        ]
        invocation.reporter.event("sandbox", fields, text)
        await sandbox.serve_forever()

    try:
        run(work)
    except KeyboardInterrupt:
        tell("The sandbox has ended.")
