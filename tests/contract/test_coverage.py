"""No endpoint is forgotten anywhere: the coverage table has no empty cell but those with a reason."""

from __future__ import annotations

import aiohttp
from coverage_table import ENDPOINTS, MISSING, ROOT, commands, readme_with_table, rows

from musicapi_async.api.families import FAMILIES
from musicapi_async.sandbox import Sandbox

ROWS = list(rows())


def test_every_cell_is_filled_or_has_a_reason() -> None:
    """41 endpoints; a cell that is empty without a reason fails, and so does a reason without need."""
    empty = {(row.endpoint, name) for row in ROWS for name, value in row._asdict().items() if not value}
    assert len(ROWS) == len(set(ENDPOINTS)) == 41
    assert empty == MISSING.keys()


def test_every_declared_operation_is_an_endpoint_and_a_command() -> None:
    """Nothing is declared that the contract does not know, and each operation can be typed."""
    declared = {
        f"musicapi {word} {name.replace('_', '-')}": operation
        for word, family in FAMILIES.items()
        for name, operation in family.operations().items()
    }
    assert {operation.call_name for operation in declared.values()} <= set(ENDPOINTS)
    assert commands() == declared


async def test_the_sandbox_answers_every_route() -> None:
    """Each asks for the key, which only a route that exists does; the others are 404."""
    async with Sandbox() as box, aiohttp.ClientSession() as http:
        for row in ROWS:
            method, _, path = row.endpoint.partition(" ")
            async with http.request(method, box.base_url + path.format(task_id="x")) as reply:
                assert reply.status == (401 if row.route else 404), row.endpoint


def test_the_readme_shows_the_table_as_it_is() -> None:
    """`python tests/contract/coverage_table.py --write` brings it up to date."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert readme_with_table(text) == text
