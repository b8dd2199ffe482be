"""The rows of a shared rate: the rate of an account, the tickets of those who wait, the permits of tasks.

Each function is a transaction, or a part of one, under the lock of the account; `postgres_rate` says when it
is used, and waits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from .._transport.rate_limiter import DEFAULT_LANES
from .._transport.rate_window import LaneSnapshot, LaneState, Rate
from .postgres_notices import mark_alive, notify
from .postgres_schema import Connection, row
from .store import Notice

LANE: Final = "submit"
"""The lane whose rate is shared: creates, which are charged and limited."""
PERMITS: Final = "permits"
"""The queue for permits."""
GRACE: Final = 1.0
"""Seconds for which a turn is reserved for the ticket that has it; then the next may take it."""

CLOCK_STEP: Final = 60.0
"""Seconds by which the clock may be set back and is waited for: longer than a departure is counted ahead. A
server that is replaced, or a client whose clock is faster, would else stop all others for hours."""

_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(LaneSnapshot)


class Member(msgspec.Struct, frozen=True):
    """A process that shares the rate of an account: its id, and its clock's speed."""

    account: str
    owner: str
    speed: float


class Leaving(msgspec.Struct, frozen=True):
    """A departure that is requested.

    It has left after `late` real seconds at the latest. `instead` is the departure of the same ticket that
    was counted before, and came too late to be used.
    """

    late: float
    instead: float | None = None


class Start(msgspec.Struct, frozen=True):
    """When a ticket's turn comes: in `wait` real seconds; `at` is the departure, if it was counted now."""

    wait: float
    is_paused: bool
    rate: str
    at: float | None = None


class Usage(msgspec.Struct, frozen=True):
    """The use of an account's rate: the rate as text, and the numbers of waiting creates and held permits."""

    rate: str
    waiting: int
    permits: int


# --- the rate ---------------------------------------------------------------------------------------------


def text_of(rate: Rate | None) -> str:
    """Return a rate as the database has it."""
    return "none" if rate is None else str(rate)


def rate_of(text: str) -> Rate | None:
    """Return the rate of a text in the database."""
    return None if text == "none" else Rate.parse(text)


def read_rate(connection: Connection, account: str, default: Rate | None) -> tuple[str, LaneSnapshot]:
    """Return the rate of an account and the state of its lane; `default` is written if there is none."""
    found = connection.execute(
        "SELECT rate, state FROM musicapi.rates WHERE account = %s AND lane = %s", (account, LANE)
    ).fetchone()
    if found is None:
        write_rate(connection, account, default)
        return text_of(default), LaneSnapshot()
    text, state = found
    return text, LaneSnapshot() if state is None else _decoder.decode(state)


def write_rate(connection: Connection, account: str, rate: Rate | None) -> None:
    """Set the rate of an account, for all processes; what refusals have taught begins again."""
    connection.execute(
        "INSERT INTO musicapi.rates VALUES (%s, %s, %s) ON CONFLICT (account, lane) DO UPDATE "
        "SET rate = excluded.rate",
        (account, LANE, text_of(rate)),
    )


def read_lane(connection: Connection, me: Member, default: Rate | None) -> tuple[str, LaneState]:
    """Return the rate of an account, and its lane in the seconds of the clock; see `read_rate`."""
    text, snapshot = read_rate(connection, me.account, default)
    return text, LaneState.restored(rate_of(text), snapshot, new_clock=clock_step(me))


def change_lane(connection: Connection, *, me: Member, change: Callable[[LaneState, float], None]) -> None:
    """Change the lane of an account; `change` gets it with the time."""
    _, lane = read_lane(connection, me, DEFAULT_LANES[LANE].rate)
    now = time_of(connection, me)
    lane.follow(now, clock_step(me))
    change(lane, now)
    save(connection, me.account, lane.snapshot())


def clock_step(me: Member) -> float:
    """Return `CLOCK_STEP` in seconds of the clock."""
    return CLOCK_STEP * max(1.0, me.speed)


def time_of(connection: Connection, me: Member) -> float:
    """Return the server's time in seconds of the clock; under the lock, so after all that is counted."""
    (seconds,) = row(connection.execute("SELECT extract(epoch FROM clock_timestamp())::float8"))
    return float(seconds) * me.speed


def save(connection: Connection, account: str, state: LaneSnapshot) -> None:
    """Store the state of the lane of an account."""
    connection.execute(
        "UPDATE musicapi.rates SET state = %s, unused_since = NULL WHERE account = %s AND lane = %s",
        (_encoder.encode(state), account, LANE),
    )


def unused(connection: Connection, account: str) -> float:
    """Return the seconds since the first waiter has found that a start is possible, and not its turn."""
    found = connection.execute(
        # A time that is still to come is of a clock that was set back since.
        "UPDATE musicapi.rates SET unused_since = "
        "least(coalesce(unused_since, clock_timestamp()), clock_timestamp()) "
        "WHERE account = %s AND lane = %s "
        "RETURNING extract(epoch FROM clock_timestamp() - unused_since)::float8",
        (account, LANE),
    )
    return float(row(found)[0])


def usage(connection: Connection, account: str) -> Usage:
    """Return how an account uses its rate now; the rate is '' before its first create."""
    found = connection.execute(
        "SELECT coalesce("
        "(SELECT rate FROM musicapi.rates WHERE account = %(account)s AND lane = %(lane)s), ''), "
        "(SELECT count(*) FROM musicapi.queue WHERE account = %(account)s AND lane = %(lane)s "
        "AND NOT is_passed), "
        "(SELECT count(*) FROM musicapi.permits WHERE account = %(account)s "
        "AND expires_at > clock_timestamp())",
        {"account": account, "lane": LANE},
    )
    return Usage(*row(found))


# --- tickets ----------------------------------------------------------------------------------------------


def start(
    connection: Connection, me: Member, lane: LaneState, ticket: str, leaving: Leaving | float
) -> Start:
    """Return when the turn of a ticket comes; it is queued if it is new.

    Args:
        connection: the connection.
        me: whose ticket it is.
        lane: the lane as it is stored.
        ticket: its id.
        leaving: how it departs, if it may do so now: then no one waits for the ticket, which remains until it
            has left, as it comes once more if that was too late. Or the real seconds by which its owner comes
            before its turn.
    """
    instead = leaving.instead if isinstance(leaving, Leaving) else None
    ahead = place(connection, me, LANE, ticket)
    now = time_of(connection, me)
    followed = lane.follow(now, clock_step(me))
    if instead is not None:
        lane.unclaim(instead)
    grace = None
    if ahead and lane.free_at(now) <= now:  # those ahead do not come although it is their turn
        grace = GRACE - unused(connection, me.account)
        if grace <= 0:
            overtake(connection, me, LANE, ticket)
            ahead, grace = 0, None
    wait, counted = (lane.free_at(now, ahead) - now) / me.speed, None
    if grace is not None:
        wait = min(wait, grace if isinstance(leaving, Leaving) else grace + leaving)
    if isinstance(leaving, Leaving):
        if ahead == 0 and lane.claim(now, leaving.late * me.speed) <= 0:
            counted, wait = now + leaving.late * me.speed, 0.0
            connection.execute("UPDATE musicapi.queue SET is_passed = true WHERE ticket = %s", (ticket,))
        else:
            wait = max(wait, 0.001)
    if followed or counted is not None or instead is not None:
        save(connection, me.account, lane.snapshot())
    return Start(wait, lane.is_paused(now), text_of(lane.limit), counted)


def place(connection: Connection, me: Member, queue: str, ticket: str) -> int:
    """Return how many tickets are ahead of this one, which is queued if it is new.

    One that was overtaken, or departed too late, has its place again.
    """
    mark_alive(connection, me.owner)
    connection.execute(
        "INSERT INTO musicapi.queue (ticket, account, lane, owner) VALUES (%s, %s, %s, %s) "
        "ON CONFLICT (ticket) DO UPDATE SET is_passed = false WHERE queue.is_passed",
        (ticket, me.account, queue, me.owner),
    )
    (ahead,) = row(
        connection.execute(
            "SELECT count(*) FROM musicapi.queue WHERE account = %s AND lane = %s AND NOT is_passed "
            "AND number < (SELECT number FROM musicapi.queue WHERE ticket = %s)",
            (me.account, queue, ticket),
        )
    )
    return int(ahead)


def overtake(connection: Connection, me: Member, queue: str, ticket: str) -> None:
    """Let no one wait any longer for the tickets ahead of this one, unless they come."""
    connection.execute(
        "UPDATE musicapi.queue SET is_passed = true WHERE account = %s AND lane = %s "
        "AND number < (SELECT number FROM musicapi.queue WHERE ticket = %s)",
        (me.account, queue, ticket),
    )


def remove(connection: Connection, ticket: str) -> bool:
    """Remove a ticket; return True if others may have waited for it."""
    removed = connection.execute(
        "DELETE FROM musicapi.queue WHERE ticket = %s RETURNING is_passed", (ticket,)
    )
    return removed.fetchone() == (False,)


def withdraw(connection: Connection, *, me: Member, ticket: str) -> None:
    """Remove a ticket that has departed or is not used, and notify those who wait for it."""
    if remove(connection, ticket):
        notify(connection, Notice("freed", me.owner, me.account))


# --- permits ----------------------------------------------------------------------------------------------


def take_permit(connection: Connection, *, me: Member, permit: str, cap: int) -> bool:
    """Take a permit if fewer than `cap` are taken or waited for before; else it stays queued."""
    ahead = place(connection, me, PERMITS, permit)
    connection.execute("DELETE FROM musicapi.permits WHERE expires_at <= clock_timestamp()")
    (taken,) = row(
        connection.execute("SELECT count(*) FROM musicapi.permits WHERE account = %s", (me.account,))
    )
    if taken + ahead >= cap:
        return False
    remove(connection, permit)
    connection.execute(
        "INSERT INTO musicapi.permits VALUES (%s, %s, %s) ON CONFLICT DO NOTHING",
        (permit, me.account, me.owner),
    )
    return True


def drop_permit(connection: Connection, *, me: Member, permit: str) -> None:
    """Give a permit back, or its place in the queue, and notify those who wait."""
    remove(connection, permit)
    connection.execute("DELETE FROM musicapi.permits WHERE permit = %s", (permit,))
    notify(connection, Notice("freed", me.owner, me.account))


def expire_permit(connection: Connection, *, permit: str, seconds: float) -> None:
    """Have a permit end by itself after real seconds."""
    connection.execute(
        "UPDATE musicapi.permits SET expires_at = clock_timestamp() + make_interval(secs => %s) "
        "WHERE permit = %s",
        (seconds, permit),
    )
