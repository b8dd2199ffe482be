"""Keys, balances, prices, the create limit, and the journal that keeps account of all of it."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musicapi_async.sandbox import Choices, Entry, Journal
from musicapi_async.sandbox.prices import CreateLimit

SONG = {"custom_mode": False, "mv": "sonic-v6", "gpt_description_prompt": "calm rain"}


@pytest.mark.parametrize(
    ("header", "text"),
    [
        (None, "Authorization header is missing."),
        ("sandbox-key", "Invalid authorization format."),
        ("Basic sandbox-key", "Invalid authorization format."),
        ("Bearer ", "Invalid authorization format."),
        ("Bearer wrong", "Invalid API key"),
        ("Bearer schlüssel", "Invalid API key"),
    ],
)
async def test_keys(start, header, text):
    """A missing, malformed or wrong key is told apart by the documented texts."""
    api = await start()
    headers = {} if header is None else {"Authorization": header}
    status, body = await api.call("GET", "/get-credits", key=None, headers=headers)
    assert (status, body) == (401, {"type": "unauthorized", "error": text})


async def test_extra_credits_are_used_first(start):
    """Bought credits go before those of the subscription."""
    api = await start(credits=50, extra_credits=30)
    assert await api.get("/get-credits") == (200, {"credits": 50, "extra_credits": 30})
    await api.submit(body=SONG)
    assert await api.get("/get-credits") == (200, {"credits": 50, "extra_credits": 10})
    await api.submit(body=SONG)
    assert await api.get("/get-credits") == (200, {"credits": 40, "extra_credits": 0})
    assert api.sandbox.journal.charges == 40


@pytest.mark.parametrize(("choice", "status"), [("402", 402), ("403", 403), ("code", 200)])
async def test_missing_credits(start, choice, status):
    """Missing credits are refused in each documented form and charge nothing."""
    api = await start(credits=19, choices=Choices(no_credits=choice))
    got, body = await api.post("/sonic/create", SONG)
    assert got == status
    assert "credits are not enough" in (body.get("error") or body["message"])
    assert api.sandbox.balance == 19
    assert len(api.sandbox.service.tasks) == 0


async def test_lapsed_subscription(start):
    """Without a subscription everything that costs is refused."""
    api = await start()
    api.sandbox.account.subscription = False
    status, body = await api.post("/sonic/create", SONG)
    assert status == 403
    assert body["error"].startswith("You do not have an active subscription.")


async def test_prices_can_be_set(start):
    """Single rows of the price table can be overridden."""
    api = await start(prices={"create": 7}, credits=10)
    await api.submit(body=SONG)
    assert api.sandbox.balance == 3


@pytest.mark.parametrize(("hint", "shown"), [("seconds", True), ("date", True), ("none", False)])
async def test_create_limit(start, hint, shown):
    """One create per period: the second is a 429 with or without Retry-After, and charges nothing."""
    api = await start(speed=1.0, create_limit=(1, 3.0), choices=Choices(retry_after=hint))
    await api.submit(body=SONG)
    status, body = await api.post("/sonic/create", SONG)
    assert (status, body) == (429, {"type": "rate_limited", "error": "Too many requests."})
    assert ("Retry-After" in api.headers) is shown
    if hint == "seconds":
        assert 1 <= int(api.headers["Retry-After"]) <= 3
    assert api.sandbox.journal.charges == 20
    assert api.sandbox.journal.peak(3.0) == 2


async def test_direct_calls_and_polls_are_not_paced(start):
    """The create limit is for tasks only."""
    api = await start(speed=1.0, create_limit=(1, 3.0))
    for _ in range(5):
        assert (await api.get("/get-credits"))[0] == 200


@given(st.lists(st.floats(0, 5, allow_nan=False), max_size=60), st.integers(1, 4), st.floats(0, 2))
def test_limit_never_lets_a_higher_rate_through(gaps, count, tolerance):
    """However creates arrive, at most `count` per period pass in the long run; tolerance never adds up."""
    limit, now, passed = CreateLimit(count, 3.0, tolerance), 0.0, []
    for gap in gaps:
        now += gap
        if limit.wait(now) == 0:
            passed.append(now)
    for first in range(len(passed)):
        for last in range(first, len(passed)):
            span = passed[last] - passed[first] + tolerance
            assert last - first + 1 <= count * (span / 3.0 + 1) + 1e-6


async def test_journal_answers_the_questions(start):
    """Requests by path and kind, polls, charges, and what was paid twice."""
    api = await start()
    first = await api.submit(body=SONG)
    await api.submit(body={**SONG, "title": "Another"})
    assert api.sandbox.journal.charged_twice() == []
    await api.submit(body=SONG)
    await api.get(f"/sonic/task/{first}")
    journal = api.sandbox.journal
    assert len(journal.creates) == len(journal.requests("/sonic/create", "post")) == 3
    assert journal.requests("/sonic/task/*")[0].task_id == first
    assert [entry.kind for entry in journal.polls] == ["poll"]
    assert [len(group) for group in journal.charged_twice()] == [2]
    assert journal[0].body == SONG
    assert journal[0].status == 200
    assert journal.charges == 60
    assert journal[0].key_sent


@given(st.lists(st.binary(max_size=40), max_size=60), st.integers(1, 20))
def test_journal_is_bounded(bodies, size):
    """The oldest entries go first; the count of what went is kept."""
    journal = Journal(size)
    for number, raw in enumerate(bodies):
        journal.store_body(journal.add(Entry(float(number), "POST", "/x", "create")), raw)
    assert len(journal) == min(size, len(bodies))
    assert journal.dropped == len(bodies) - len(journal)
    assert [entry.at for entry in journal] == [float(n) for n in range(len(bodies))][-size:]


async def test_balance_is_readable_from_another_thread(start):
    """Synchronous code in a thread can ask the sandbox about its state."""
    api = await start()
    await api.submit(body=SONG)
    assert await asyncio.to_thread(lambda: api.sandbox.balance) == 980
