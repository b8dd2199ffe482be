"""The budget of a folder: every charged send counts, however it was made. The sandbox's journal is the judge."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path
from typing import Any

import pytest
from small_batches import make, rows

from musicapi_async import MusicAPI
from musicapi_async.errors import FolderError, RequestValidationError
from musicapi_async.sandbox import Fault, Sandbox
from musicapi_async.workflows import Manifest, plan_batch
from musicapi_async.workflows.budget import Budget, BudgetExceeded


async def test_price_learned_late_values_earlier_runs(
    sandbox: Sandbox, client: MusicAPI, tmp_path: Path
) -> None:
    """Two songs were made without a budget; the third one teaches what all three have cost."""
    price = sandbox.account.prices["create"]
    await make(client, rows(2), tmp_path)
    result = await make(client, rows(6), tmp_path, budget=2.5 * price)
    assert (result.spent, result.spent_now) == (3 * price, price)
    assert len(sandbox.journal.creates) == 3
    assert f": {3 * price:g} are spent, and create_music costs {price:g}. A run with" in result.halted
    again = await make(client, rows(6), tmp_path, budget=3.5 * price)
    assert (again.spent, again.submitted) == (3 * price, 0)
    plan = await plan_batch(Manifest.of(rows(6)), tmp_path, budget=3.5 * price)
    assert (plan.spent, plan.over_budget) == (sandbox.journal.charges, True)


async def test_cost_of_unpriced_calls_is_unknown(sandbox: Sandbox, client: MusicAPI, tmp_path: Path) -> None:
    """Songs were made without a budget, and a run with one sends nothing: it does not say that they were free."""
    await make(client, rows(2), tmp_path)
    result = await make(client, rows(2), tmp_path, budget=100)
    assert (result.submitted, result.spent_now, result.spent) == (0, 0, None)
    assert result.report is not None
    assert "credits spent" not in result.report.read_text()
    plan = await plan_batch(Manifest.of(rows(2)), tmp_path, prices={"wav": 1})
    assert (plan.cost, plan.unpriced) == (0, {"create_music": 2})


async def test_run_without_a_charge_cost_nothing(
    sandbox: Sandbox, client: MusicAPI, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Every create was refused, and the balance cannot be read: it is asked for once, and the cost is known."""
    sandbox.faults.on("POST", "/sonic/create", Fault.status(400), times=None)
    sandbox.faults.on("GET", "/get-credits", Fault.status(400), times=None)
    result = await make(client, rows(2), tmp_path)
    assert (result.failed, result.spent_now) == (2, 0)
    assert [entry.path for entry in sandbox.journal].count("/get-credits") == 1
    assert "balance" not in "".join(one.message for one in caplog.records if one.levelname == "WARNING")


async def test_call_whose_price_cannot_be_learned_is_charged_and_waited_for(
    sandbox: Sandbox, client: MusicAPI, tmp_path: Path
) -> None:
    """The balance fails after the first song: that one is fetched, the others are not sent."""
    price = sandbox.account.prices["create"]
    sandbox.faults.on("GET", "/get-credits", Fault.status(400), after=1, times=None)
    result = await make(client, rows(3), tmp_path, budget=1)
    assert (result.done, len(result.unfinished), result.submitted) == (1, 2, 1)
    assert result.spent_now is None
    assert result.halted.startswith("the price of create_music is unknown, as the balance")
    assert len(sandbox.journal.creates) == 1
    sandbox.faults.clear()
    again = await make(client, rows(3), tmp_path, budget=1, prices={"create_music": price})
    assert (again.done, again.spent, again.submitted) == (1, price, 0)
    assert len(sandbox.journal.creates) == 1


async def test_budget_holds_for_another_account_on_the_folder(sandbox: Sandbox, tmp_path: Path) -> None:
    """The songs of an account are not those of another one: what it would pay for counts, and is not made."""
    price = sandbox.account.prices["create"]
    async with sandbox.client(rate_limit=None, account="first") as client:
        assert (await make(client, rows(1), tmp_path)).done == 1
    shutil.rmtree(tmp_path / ".musicapi" / "songs")
    async with sandbox.client(rate_limit=None, account="second") as client:
        result = await make(client, rows(1), tmp_path, budget=1.5 * price, prices={"create_music": price})
    assert (result.done, result.submitted, result.spent) == (0, 0, price)
    assert "budget" in result.halted
    assert len(sandbox.journal.creates) == 1


async def test_price_that_cannot_be_saved_takes_no_song_away(sandbox: Sandbox, client: MusicAPI) -> None:
    """The first song teaches its price, and the disk refuses it: what the call gave is there all the same."""

    def full_disk(_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    budget = Budget(1e6, client, {}, full_disk)
    async with budget.pay("create_music", "k"):
        await client.sonic.create_music(mv="sonic-v6", gpt_description_prompt="calm rain")
    assert budget.spent == sandbox.account.prices["create"]


async def test_first_call_of_unknown_outcome_is_the_only_one(
    sandbox: Sandbox, client: MusicAPI, tmp_path: Path
) -> None:
    """No answer names a price, so none of the songs after it is the first of its kind once more."""
    sandbox.faults.on("POST", "/sonic/create", Fault.reset_after, times=None)
    result = await make(client, rows(3), tmp_path, budget=1)
    assert (len(result.unknown), len(result.unfinished)) == (1, 2)
    assert result.halted.startswith("the price of create_music is unknown, as the outcome")
    assert len(sandbox.journal.creates) == 1


@pytest.mark.parametrize("refund", [20.0, 50.0])
async def test_refund_that_hides_the_price_is_no_price_of_nothing(
    sandbox: Sandbox, client: MusicAPI, refund: float
) -> None:
    """A task of another program fails just then: the next song tells the price, and the budget holds."""
    price = sandbox.account.prices["create"]
    budget = Budget(2 * price, client, {}, lambda _prices: None)
    for number in range(2):
        async with budget.pay("create_music", f"{number}"):
            await client.sonic.create_music(mv="sonic-v6", gpt_description_prompt="rain")
            sandbox.account.credits += refund if number == 0 else 0
        assert ("create_music" in budget.prices) == (number == 1)
    assert (budget.prices, budget.spent) == ({"create_music": price}, 2 * price)
    with pytest.raises(BudgetExceeded, match="used up"):
        async with budget.pay("create_music", "c"):
            raise AssertionError("it was let through")


async def test_what_never_moves_the_balance_is_not_paid_for_without_end(
    sandbox: Sandbox, client: MusicAPI
) -> None:
    """A refund with each call, or a balance that stands still: three are let through, and no more."""
    budget = Budget(1000.0, client, {}, lambda _prices: None)
    for number in range(3):
        async with budget.pay("create_music", f"{number}"):
            await client.sonic.create_music(mv="sonic-v6", gpt_description_prompt="rain")
            sandbox.account.credits += 50.0
    with pytest.raises(BudgetExceeded, match="the balance did not fall with the first 3"):
        async with budget.pay("create_music", "d"):
            raise AssertionError("it was let through")
    assert len(sandbox.journal.creates) == 3


@pytest.mark.parametrize("measures", [True, False])
async def test_balance_is_read_without_a_budget_only_where_it_says_what_the_run_costs(
    sandbox: Sandbox, client: MusicAPI, measures: bool
) -> None:
    """Not by workers, whose balance others move, too: a row costs no request more than its song."""
    budget = Budget(None, client, {}, lambda _prices: None, measures=measures)
    for number in range(2):
        async with budget.pay("create_music", f"{number}"):
            await client.sonic.create_music(mv="sonic-v6", gpt_description_prompt="rain")
    spent = await budget.spent_now()
    assert spent == (2 * sandbox.account.prices["create"] if measures else None)
    assert len(sandbox.journal) == (4 if measures else 2)


async def test_budget_of_tenths_is_used_to_its_end(
    sandbox: Sandbox, client: MusicAPI, tmp_path: Path
) -> None:
    """Three songs of 0.1 credits are within 0.3, are 0.3, and leave nothing."""
    options: dict[str, Any] = {"budget": 0.3, "prices": {"create_music": 0.1}}
    plan = await plan_batch(Manifest.of(rows(3)), tmp_path, **options)
    assert (plan.cost, plan.over_budget) == (0.3, False)
    result = await make(client, rows(3), tmp_path, **options)
    assert (result.done, result.halted, result.spent, result.spent_now) == (3, "", 0.3, 0.3)
    result = await make(client, rows(4), tmp_path, **options)
    assert (result.submitted, result.spent) == (0, 0.3)
    assert len(sandbox.journal.creates) == 3


NOT_REFUNDED = '{"type":"failed","error":"moderated","already_refunded":false}'


async def test_every_send_of_song_that_fails_unrefunded_counts(
    sandbox: Sandbox, client: MusicAPI, tmp_path: Path
) -> None:
    """However often it is sent again, in runs of their own, the budget is not passed."""
    price = sandbox.account.prices["create"]
    options: dict[str, Any] = {"budget": 3.5 * price, "prices": {"create_music": price}, "retry_failed": True}
    sandbox.faults.on("GET", "/sonic/task/*", Fault.status(500, body=NOT_REFUNDED), times=None)
    for sent in (1, 2, 3):
        result = await make(client, rows(1), tmp_path, **options)
        assert (result.failed, result.spent_now, result.spent) == (1, price, sent * price)
    for _ in range(2):
        result = await make(client, rows(1), tmp_path, **options)
        assert (result.submitted, result.spent) == (0, 3 * price)
        assert "budget" in result.halted
    assert sandbox.journal.charges == len(sandbox.journal.creates) * price == 3 * price
    plan = await plan_batch(Manifest.of(rows(1)), tmp_path, prices=options["prices"])
    assert plan.spent == 3 * price


async def test_refund_of_last_send_leaves_those_before_it(
    sandbox: Sandbox, client: MusicAPI, tmp_path: Path
) -> None:
    """The first send was not refunded, the second one was: one is spent, and the third one is let through."""
    price = sandbox.account.prices["create"]
    options: dict[str, Any] = {"budget": 2 * price, "prices": {"create_music": price}, "retry_failed": True}
    sandbox.faults.on("GET", "/sonic/task/*", Fault.status(500, body=NOT_REFUNDED))
    assert (await make(client, rows(1), tmp_path, **options)).spent == price
    sandbox.faults.on("POST", "/sonic/create", Fault.fail())
    assert (await make(client, rows(1), tmp_path, **options)).spent == price
    result = await make(client, rows(1), tmp_path, **options)
    assert (result.done, result.spent) == (1, 2 * price)
    assert sandbox.journal.charges == 2 * price


async def test_refund_of_an_earlier_run_is_no_income_of_this_one(
    sandbox: Sandbox, client: MusicAPI, tmp_path: Path
) -> None:
    """A task of the run before fails in this one, which makes another song: it has cost one song, not none."""
    price = sandbox.account.prices["create"]
    options: dict[str, Any] = {"budget": 9 * price, "prices": {"create_music": price}}
    sandbox.faults.on("POST", "/sonic/create", Fault.fail())
    sandbox.faults.on("GET", "/sonic/task/*", Fault.status(503), times=None)
    first = await make(client, rows(1), tmp_path, **options)
    assert (len(first.unfinished), first.spent_now) == (1, price)
    sandbox.faults.clear()
    result = await make(client, rows(2), tmp_path, **options)
    assert (result.failed, result.done) == (1, 1)
    assert (result.spent_now, result.spent) == (price, price)
    again = await make(client, rows(2), tmp_path, **options)
    assert (again.spent_now, again.spent) == (0, price)


async def test_prices_that_cannot_be_read_say_why_in_words(client: MusicAPI, tmp_path: Path) -> None:
    """The number of an error of the system says nothing to its reader."""
    (tmp_path / ".musicapi" / "prices.json").mkdir(parents=True)
    with pytest.raises(FolderError, match=r"prices\.json cannot be read: [A-Za-z]"):
        await plan_batch(Manifest.of(rows(1)), tmp_path, budget=10)


@pytest.mark.parametrize("damaged", ["", "{x", "[1]", '{"create_music":-1e9}', '{"create_music":1e999}'])
async def test_damaged_prices_are_refused(
    sandbox: Sandbox, client: MusicAPI, tmp_path: Path, damaged: str
) -> None:
    """What was spent would count as nothing; without the file it is learned again."""
    price = sandbox.account.prices["create"]
    await make(client, rows(1), tmp_path, budget=10 * price)
    file = tmp_path / ".musicapi" / "prices.json"
    file.write_text(damaged)
    with pytest.raises(FolderError, match=r"prices\.json cannot be read"):
        await make(client, rows(2), tmp_path, budget=10 * price)
    with pytest.raises(FolderError, match=r"prices\.json cannot be read"):
        await plan_batch(Manifest.of(rows(2)), tmp_path, budget=10 * price)
    assert len(sandbox.journal.creates) == 1
    file.unlink()
    result = await make(client, rows(2), tmp_path, budget=10 * price)
    assert (result.done, result.spent) == (2, sandbox.journal.charges)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("budget", value) for value in (float("nan"), float("inf"), -3, "10", True)),
        *(("prices", {"create_music": value}) for value in (float("nan"), float("inf"), -5, "20", None)),
        *(("max_in_flight", value) for value in (0, -1, 1.5, "2", True)),
        ("retry_failed", "no"),
    ],
)
async def test_setting_that_cannot_be_is_refused(
    sandbox: Sandbox, client: MusicAPI, tmp_path: Path, field: str, value: Any
) -> None:
    """By the run and by its plan, before the folder is made."""
    settings: dict[str, Any] = {"budget": 10, field: value}
    with pytest.raises(RequestValidationError, match=f"^{field}: ") as caught:
        await make(client, rows(1), tmp_path / "out", **settings)
    assert caught.value.field == field
    with pytest.raises(RequestValidationError, match=f"^{field}: "):
        await plan_batch(Manifest.of(rows(1)), tmp_path / "out", **settings)
    assert not (tmp_path / "out").exists()
    assert len(sandbox.journal) == 0


async def test_budget_of_nothing_sends_nothing(sandbox: Sandbox, client: MusicAPI, tmp_path: Path) -> None:
    """Zero is a budget; it fetches what was paid for."""
    await make(client, rows(1), tmp_path)
    result = await make(client, rows(2), tmp_path, budget=0)
    assert (result.done, result.submitted, len(sandbox.journal.creates)) == (1, 0, 1)
