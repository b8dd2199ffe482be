"""When to look whether a task is done: polling policies behind one protocol.

A task takes one to four minutes, a look costs a poll of everybody's rate limit, and a late look costs the
caller's time. `Learned`, the default, learns how long each kind of task takes and looks when a look first
pays. The fixed policies are for comparison, for tests and for those who want a plain rule. Exponential
backoff, the obvious choice, is the worst of all: its intervals grow just when the task is likely to be
done. It belongs to errors.

All ages and intervals are in seconds since the submit. Policies know no clock and hold no task.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Any, Final, Literal, Protocol

import msgspec

from musicapi_async._wire.retry import Draw, equal_jitter, full_jitter, spread
from musicapi_async.api.families import polled_as
from musicapi_async.api.operation import LONGEST_GAP, Polled
from musicapi_async.api.results import TaskUpdate
from musicapi_async.api.sonic import SONGS
from musicapi_async.polling.hazard import BINS, Hazard
from musicapi_async.polling.price import PRICE

JITTER: Final = 0.1
"""Give or take, so that tasks of one burst do not stay in step; costs nothing measurable."""

MOST_KINDS: Final = 256
"""Kinds of which something is remembered; a kind takes about 1 kB."""

LONGEST_KIND: Final = 200
"""Characters that tell kinds apart; model names come from outside."""

MOST_EVENTS: Final = 1e6
MOST_EXPOSURE: Final = 1e9
"""Bounds of a saved bin, in tasks and in seconds; forgetting keeps both far below."""

OLDEST: Final = 1e6
"""Age beyond which nothing is learned: such a task was resumed, or its clock is wrong."""


def documented(kind: str) -> Polled:
    """Return how a kind such as `"sonic/stems_full sonic-v6"` is polled: as its operation or family, else as
    songs."""
    family, _, rest = kind.partition("/")
    return polled_as(family, rest.partition(" ")[0]) or SONGS


class PollPolicy(Protocol):
    """Decides when to look. `kind` groups tasks that take about equally long: endpoint and model."""

    def first(self, kind: str) -> float:
        """The age of the first look."""
        ...

    def next(self, kind: str, age: float) -> float:
        """The age of the next look, given that the task was unfinished at `age`; always above `age`."""
        ...

    def observed(self, kind: str, finished: bool, last_age: float | None, age: float) -> None:
        """A look at `age` (or a webhook) found the task finished or not; the one before was at `last_age`."""
        ...


TELLING: Final = 0.2
"""Share done from which a progress says when the task will be; earlier ones are mostly rounding."""

MARGIN: Final = 1.02
"""A look a little after the foretold end finds it; one a little before costs another poll."""


def hinted(update: TaskUpdate | None, after: float, age: float) -> float | None:
    """The age at which the service itself expects the task to be done; None if it says nothing.

    It says so with a `Retry-After` of `after` seconds, or by its progress, taken to go on at its rate.
    """
    if update is None:
        return None
    if after > 0:
        return age + after
    progress = update.progress
    return age / progress * MARGIN if progress is not None and progress >= TELLING else None


class _KindState(msgspec.Struct, frozen=True):
    events: Annotated[
        list[Annotated[float, msgspec.Meta(ge=0, le=MOST_EVENTS)]], msgspec.Meta(max_length=BINS)
    ]
    exposure: Annotated[
        list[Annotated[float, msgspec.Meta(ge=0, le=MOST_EXPOSURE)]], msgspec.Meta(max_length=BINS)
    ]


class _LearnedState(msgspec.Struct, frozen=True):
    version: Literal[1]
    kinds: Annotated[
        dict[Annotated[str, msgspec.Meta(max_length=LONGEST_KIND)], _KindState],
        msgspec.Meta(max_length=MOST_KINDS),
    ]


class Learned:
    """Looks when a look first pays, by what was learned about each kind of task; see `tasks/hazard.py`.

    Before anything was learned, songs are looked at about 45, 63, 79, 95 and 111 s after the submit. A look
    takes about 3 µs and a kind about 1 kB. `timing_of` gives the floors and what is known of a kind before;
    `price` is what a poll is worth in seconds of lateness, or a function that tells it for each look: a
    `ShadowPrice` where the polls per second are capped, as a client makes one by itself if its limiter has
    a rate for polls. With `draw`, gaps are jittered by 10 %, never below the floor.

    What was learned outlives the process if it is saved:

    ```python
    policy = Learned(draw=backoff.full_jitter)
    policy.load(json.loads(path.read_text()))  # of an earlier process; ValueError if it is something else
    async with MusicAPI(polling=policy) as client:
        ...
    path.write_text(json.dumps(policy.save()))
    ```
    """

    def __init__(
        self,
        timing_of: Callable[[str], Polled] = documented,
        *,
        price: float | Callable[[], float] = PRICE,
        draw: Draw | None = None,
    ) -> None:
        if not callable(price) and not (price > 0 and math.isfinite(price)):
            raise ValueError(f"price must be positive and finite, got {price!r}")
        self._timing_of: Final = timing_of
        self._price_of: Final = price if callable(price) else None
        self._price: Final = PRICE if callable(price) else price
        self._draw: Final = draw
        self._kinds: dict[str, tuple[Polled, Hazard]] = {}
        self._firsts: Final[dict[str, tuple[int, float, float]]] = {}
        """The latest first look of a kind, with the hazards and the price for which it holds."""

    def first(self, kind: str) -> float:
        """The age of the first look: when it first pays, not before the floor of the kind."""
        timing, hazard = self._kinds.get(kind) or self._kind(kind)
        price = self._price if self._price_of is None else self._price_of()
        generation, known, look = self._firsts.get(kind, (-1, 0.0, 0.0))
        if generation != hazard.generation or known != price:
            look = hazard.next_look(0.0, price, timing.first, LONGEST_GAP)
            self._firsts[kind] = hazard.generation, price, look
        return self._jittered(0.0, look, timing.first)

    def next(self, kind: str, age: float) -> float:
        """The age of the next look, between the kind's interval and a minute after `age`."""
        timing, hazard = self._kinds.get(kind) or self._kind(kind)
        price = self._price if self._price_of is None else self._price_of()
        interval = timing.interval
        return self._jittered(age, hazard.next_look(age, price, interval, LONGEST_GAP), interval)

    def observed(self, kind: str, finished: bool, last_age: float | None, age: float) -> None:
        """Learn from a look, or from a webhook as a look that found the task finished.

        Ages that are negative, not finite or beyond `OLDEST` teach nothing.
        """
        begin = 0.0 if last_age is None else last_age
        if not 0 <= begin <= age <= OLDEST:
            if not 0 <= age <= OLDEST or math.isnan(begin):
                return
            begin = min(max(begin, 0.0), age)
        _, hazard = self._kinds.get(kind) or self._kind(kind)
        if finished:
            hazard.finished(begin, age)
        else:
            hazard.unfinished(begin, age)

    def save(self) -> dict[str, Any]:
        """What was learned, as a dict that `json.dumps` takes."""
        for _, hazard in self._kinds.values():
            hazard.work_out()  # as whoever loads it will, so that both go on alike
        return {
            "version": 1,
            "kinds": {
                kind: {
                    "events": [round(min(value, MOST_EVENTS), 6) for value in hazard.events],
                    "exposure": [round(min(value, MOST_EXPOSURE), 3) for value in hazard.exposure],
                }
                for kind, (_, hazard) in self._kinds.items()
            },
        }

    def load(self, state: object) -> None:
        """Go on from what `save` returned; replaces what was learned so far.

        Raises `ValueError`, and changes nothing, if `state` is anything else; the text says what and where.
        """
        try:
            learned = msgspec.convert(state, _LearnedState)
        except (msgspec.ValidationError, RecursionError) as error:
            raise ValueError(f"not the state of a polling policy: {error}") from error
        kinds: dict[str, tuple[Polled, Hazard]] = {}
        for kind, values in learned.kinds.items():
            if not len(values.events) == len(values.exposure) == BINS:
                raise ValueError(f"not the state of a polling policy: {kind!r} needs {BINS} bins")
            if not all(map(math.isfinite, [*values.events, *values.exposure])):
                raise ValueError(
                    f"not the state of a polling policy: {kind!r} holds a value that is no number"
                )
            timing, hazard = self._new(kind)
            hazard.learn(values.events, values.exposure)
            kinds[kind] = timing, hazard
        self._kinds = kinds
        self._firsts.clear()

    def _kind(self, kind: str) -> tuple[Polled, Hazard]:
        kind = kind[:LONGEST_KIND]
        known = self._kinds.get(kind)
        if known is None:
            if len(self._kinds) >= MOST_KINDS:
                oldest = next(iter(self._kinds))
                del self._kinds[oldest]
                self._firsts.pop(oldest, None)
            known = self._kinds[kind] = self._new(kind)
        return known

    def _new(self, kind: str) -> tuple[Polled, Hazard]:
        timing = self._timing_of(kind)
        return timing, Hazard(timing.quick, timing.slow)

    def _jittered(self, age: float, look: float, floor: float) -> float:
        if self._draw is None:
            return look
        gap = spread(look - age, JITTER, self._draw)
        return age + (gap if gap > floor else floor)


class _Unlearning:
    """The part of a policy that learns nothing."""

    def observed(self, kind: str, finished: bool, last_age: float | None, age: float) -> None:
        """Learns nothing."""


class FirstThenFixed(_Unlearning):
    """The first look at age `first`, then one every `interval` seconds; with `draw` jittered by 10 %."""

    def __init__(self, first: float, interval: float, *, draw: Draw | None = None) -> None:
        if not (0 < first < math.inf and 0 < interval < math.inf):
            raise ValueError(
                f"first and interval must be positive and finite, got {first!r} and {interval!r}"
            )
        self._first: Final = first
        self._interval: Final = interval
        self._draw: Final = draw

    def first(self, kind: str) -> float:
        """The age of the first look."""
        return self._jittered(self._first)

    def next(self, kind: str, age: float) -> float:
        """One interval later."""
        return age + self._jittered(self._interval)

    def _jittered(self, interval: float) -> float:
        return interval if self._draw is None else spread(interval, JITTER, self._draw)


class Fixed(FirstThenFixed):
    """A look every `interval` seconds; with `draw` jittered by 10 %."""

    def __init__(self, interval: float, *, draw: Draw | None = None) -> None:
        super().__init__(interval, interval, draw=draw)


class Exponential(_Unlearning):
    """Gaps of `base`, 2 `base`, 4 `base`, … up to `cap` seconds; for comparison.

    As a policy sees no count of looks, the gap follows from the age, which is `base` less than the next gap
    when gaps double. `jitter` is that of backoff libraries: `"full"` draws from 0 to the gap, `"equal"`
    from half of it; both need `draw`.
    """

    SHORTEST: Final = 0.1

    def __init__(
        self,
        base: float,
        cap: float,
        jitter: Literal["none", "equal", "full"] = "none",
        *,
        draw: Draw | None = None,
    ) -> None:
        if not 0 < base <= cap < math.inf:
            raise ValueError(f"needs 0 < base <= cap, finite, got {base!r} and {cap!r}")
        if jitter != "none" and draw is None:
            raise ValueError(f"jitter {jitter!r} needs draw")
        self._base: Final = base
        self._cap: Final = cap
        self._jitter: Final = jitter
        self._draw: Final = draw
        self._mean: Final = {"none": 1.0, "equal": 0.75, "full": 0.5}[jitter]

    def first(self, kind: str) -> float:
        """The first gap."""
        return self._gap(self._base)

    def next(self, kind: str, age: float) -> float:
        """The next gap, about as long as the age."""
        return age + self._gap(min(age / self._mean + self._base, self._cap))

    def _gap(self, gap: float) -> float:
        if self._draw is not None and self._jitter != "none":
            gap = (full_jitter if self._jitter == "full" else equal_jitter)(gap, self._draw)
        return max(gap, self.SHORTEST)
