"""`musicapi mcp`: the tools of an MCP server, on standard input and output."""

from __future__ import annotations

import contextlib
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from ..extras import require
from ..jobs import STORE_VARIABLE, open_store
from .invocation import Invocation, until_terminated
from .output import print_err
from .parameters import Folder, Positive, StorePlace
from .usage import Command

if TYPE_CHECKING:
    from ..jobs import JobStore

FOLDER: Final = "~/musicapi"
"""The default folder: clients start servers in a folder of theirs, often the root."""


def _prices(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> dict[str, float]:
    """Return the prices by operation, or raise a usage error."""
    from ..arguments import check_credits
    from ..mcp.tools import TOOLS, prices_of

    paid = [name for name, tool in TOOLS.items() if tool.charges]
    found: dict[str, float] = {}
    for text in value:
        name, _, credits = text.partition("=")
        try:
            price = float(credits)
            check_credits("price", price)
        except ValueError:  # a `RequestValidationError` is one, too
            price = None
        if price is None or (tool := name.replace("-", "_")) not in paid:
            form = f"needs the form TOOL=CREDITS, where TOOL is one of {', '.join(paid)}"
            raise click.BadParameter(form, ctx, param)
        found[tool] = price
    return prices_of(found)


@click.command("mcp", cls=Command, form=False)
@click.option(
    "--folder",
    type=Folder(),
    default=FOLDER,
    show_default=True,
    metavar="DIR",
    help="Folder for songs and for the records of paid calls.",
)
@click.option(
    "--store",
    type=StorePlace(may_be_new=True),
    envvar=STORE_VARIABLE,
    metavar="STORE",
    help="Job store: a file, the folder of a batch, or the address of a database (else MUSICAPI_STORE). "
    "Default: in DIR.",
)
@click.option(
    "--budget",
    type=Positive(),
    metavar="CREDITS",
    help="Most credits to spend, for all paid calls in STORE together. The first call of each kind may "
    "exceed it, unless --price sets its price.",
)
@click.option(
    "--price",
    "prices",
    multiple=True,
    callback=_prices,
    metavar="TOOL=CREDITS",
    help="Price of a tool, such as create_song=20, for --budget; repeatable. Without it, the price is "
    "learned from the first call.",
)
@click.pass_obj
async def mcp_command(
    invocation: Invocation,
    /,
    *,
    folder: Path,
    store: JobStore | None,
    budget: float | None,
    prices: dict[str, float],
) -> None:
    """Serve tools to Claude, Cursor and other MCP clients.

    An MCP client starts this command itself, and uses its standard input and output; for the configuration
    see `help(musicapi_async.mcp)`. Paid calls are recorded before they are sent, so the server may be stopped
    or killed at any time.

    There is no option for HTTP, because the command has no authorization: anyone who can call the server
    spends your credits. In a program, add authorization to `music_server(...).streamable_http_app()`.
    """
    from ..workflows.batch_folder import BatchFolder

    require("The MCP server", "mcp")
    from ..mcp.tool_server import music_server, serve

    invocation.json = False
    place = BatchFolder(folder)
    is_own = store is None
    name = shlex.quote(str(place.out)) if is_own else f'"${STORE_VARIABLE}"'
    if store is None:
        place.check_store()
        store = open_store(str(place.store_path))
    client = invocation.client(store=store)
    with contextlib.suppress(OSError):  # the store says it better
        place.home.mkdir(mode=0o700, parents=True, exist_ok=True)
    async with client:
        await client.jobs()  # a store that cannot be used ends the server now, not at the first paid call
        if is_own:
            place.begin(place.name_pattern(None))
        server = music_server(client, folder, store=name, budget=budget, prices=prices)
        if os.isatty(0):
            print_err("An MCP client starts this command and speaks to it; Ctrl-C ends it.")
        with until_terminated():
            await serve(server)
