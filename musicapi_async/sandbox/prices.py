"""The prices, and the account that pays them: its key, its two balances, its create limit.

Prices live here and nowhere else in the package: the service changed them several times.
"""

from __future__ import annotations

import heapq
import hmac
from collections import deque
from collections.abc import Callable, Mapping
from typing import Final

from ..api.suggestions import check_names
from ..arguments import check_credits
from .journal import Entry
from .replies import NO_CREDITS, NO_SUBSCRIPTION, Refusal, forbidden, unauthorized

PRICES: Final[Mapping[str, float]] = {
    "create": 20,
    "extend": 15,
    "concat": 2,
    "rework": 15,
    "upload": 2,
    "upload_extend": 15,
    "upload_cover": 15,
    "mashup": 15,
    "sample": 15,
    "replace_section": 15,
    "persona": 1,
    "voice": 4,
    "stems_basic": 30,
    "stems_full": 75,
    "wav": 2,
    "midi": 1,
    "bpm": 1,
    "vox": 1,
    "aligned_lyrics": 1,
    "upsample_tags": 1,
    "lyrics": 2,
    "download": 2,
    "producer": 12,
    "producer_file": 2,
    "nuro": 10,
    "riffusion": 12,
    "riffusion_upload": 2,
    "studio": 15,
    "song_metadata": 0,
}
"""Credits by operation, read in October 2026; else an older reading, or that of a sister host."""


MOST_CREDITS: Final = 1e12
"""The largest balance; a policy of this package."""


class CreateLimit:
    """At most `count` creates in any `period` API seconds, with a tolerance for jitter on the way.

    A create that arrives up to `tolerance` early is let through but counted as if it had come on time, so
    the tolerance never adds up to a higher rate.
    """

    def __init__(self, count: int, period: float, tolerance: float) -> None:
        if count < 1 or not period > 0:
            raise ValueError(f"create_limit must be (count >= 1, seconds > 0), got ({count}, {period})")
        self._times: deque[float] = deque(maxlen=count)
        self._period = period
        self._tolerance = tolerance

    def wait(self, now: float) -> float:
        """Count a create that may pass at `now` and return 0, or return the seconds until one may."""
        due = now
        if len(self._times) == self._times.maxlen:
            due = self._times[0] + self._period
        if now < due - self._tolerance:
            return due - now
        self._times.append(max(now, due))
        return 0.0

    def count(self, now: float, more: int) -> None:
        """Count that many more creates, which came with one that may pass at `now`."""
        for _ in range(more):
            full = len(self._times) == self._times.maxlen
            self._times.append(max(now, self._times[0] + self._period) if full else now)

    def reset(self) -> None:
        """Forget the creates that were counted."""
        self._times.clear()


class SandboxAccount:
    """The balance and the rules of one account."""

    def __init__(
        self,
        api_key: str,
        credits: float,
        extra_credits: float,
        prices: Mapping[str, float] | None = None,
    ) -> None:
        for name, value in (("credits", credits), ("extra_credits", extra_credits)):
            if not 0 <= value <= MOST_CREDITS:
                raise ValueError(f"{name} must be a number of 0 to {MOST_CREDITS:,.0f}, got {value!r}")
        prices = {} if prices is None else prices
        check_names("prices", prices, PRICES, f"calls ({', '.join(PRICES)})")
        for name, price in prices.items():
            check_credits("prices", price, name)
        self.api_key: Final = api_key
        self.credits: float = float(credits)
        self.extra_credits: float = float(extra_credits)
        self.prices: dict[str, float] = {**PRICES, **prices}
        self.subscription: bool = True
        """False: everything that costs is refused for want of a subscription."""
        self._first = self.credits, self.extra_credits
        self.on_refund: Callable[[Entry], None] = lambda entry: None
        """Called with the request whose charge was given back."""
        self._refunds: list[tuple[float, int, float, float, Entry]] = []
        self._number = 0

    def reset(self) -> None:
        """Return to the balance of the start, without refunds that are due."""
        self.credits, self.extra_credits = self._first
        self.subscription = True
        self._refunds.clear()

    def check_key(self, header: str | None) -> None:
        """Refuse with the documented texts: no header, not `Bearer <key>`, another key."""
        if not header:
            raise unauthorized("Authorization header is missing.")
        scheme, _, key = header.partition(" ")
        if scheme != "Bearer" or not key or " " in key:
            raise unauthorized("Invalid authorization format.")
        if not hmac.compare_digest(key.encode("utf-8", "surrogateescape"), self.api_key.encode()):
            raise unauthorized("Invalid API key")

    def balance(self, now: float) -> float:
        """Return both balances together at `now`, refunds that are due included."""
        self.settle(now)
        return self.credits + self.extra_credits

    def check(self, operation: str, now: float, form: str) -> float:
        """Return the price of `operation`; refuses if it cannot be paid now, in the form of the choice."""
        price = float(self.prices[operation])
        if price <= 0:
            return 0.0
        if not self.subscription:
            raise forbidden(NO_SUBSCRIPTION)
        if self.balance(now) < price:
            raise _no_credits(form)
        return price

    def charge(self, price: float, entry: Entry) -> tuple[float, float]:
        """Take `price`, extra credits first; returns what came from each balance, for a later refund."""
        extra = min(price, self.extra_credits)
        self.extra_credits -= extra
        self.credits -= price - extra
        entry.charge += price
        return extra, price - extra

    def refund_at(self, at: float, parts: tuple[float, float], entry: Entry) -> None:
        """Give `parts` back at the time `at`."""
        self._number += 1
        heapq.heappush(self._refunds, (at, self._number, *parts, entry))

    def settle(self, now: float) -> None:
        """Give back everything that is due."""
        while self._refunds and self._refunds[0][0] <= now:
            _, _, extra, rest, entry = heapq.heappop(self._refunds)
            self.extra_credits += extra
            self.credits += rest
            if extra + rest < entry.charge:  # of a batch, whose other tasks stay paid for
                entry.charge -= extra + rest
            else:
                entry.refunded = True
            self.on_refund(entry)

    def body(self, now: float) -> dict[str, object]:
        """Return the body of `/get-credits`: whole numbers stay whole."""
        self.settle(now)
        return {"credits": _plain(self.credits), "extra_credits": _plain(self.extra_credits)}


def _plain(number: float) -> int | float:
    return int(number) if number == int(number) else round(number, 4)


def _no_credits(form: str) -> Refusal:
    if form == "402":
        return Refusal(402, {"type": "insufficient_credits", "error": NO_CREDITS})
    if form == "code":
        return Refusal(200, {"code": 403, "message": NO_CREDITS})
    return forbidden(NO_CREDITS)
