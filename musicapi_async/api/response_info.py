"""Facts about the HTTP response that a reply was read from."""

from __future__ import annotations

from typing import Protocol

import msgspec

from ..plain_data import PlainData


class ResponseInfo(PlainData, msgspec.Struct, frozen=True, kw_only=True):
    """The HTTP response to a direct call, or to the create of a task, as plain data without secrets.

    ```python
    balance = await client.credits()
    if balance.response is not None:
        print(balance.response.status, balance.response.request_id, balance.response.elapsed)
    ```

    Args:
        status: the HTTP status, such as 200.
        headers: the headers, by their names in lower case; the last value of a repeated header.
        request_id: the id for the vendor's support; None if no header has one.
        attempts: the number of requests that were sent, 1 if the first one succeeded.
        waited: the seconds, on the client's clock, for which the client delayed the call: for the rate, after
            a 429, for other requests, and for tasks in flight.
        elapsed: the real seconds from the start of the last attempt until its response was read, including a
            new connection, without `waited`.
    """

    status: int
    headers: dict[str, str]
    request_id: str | None = None
    attempts: int = 1
    waited: float = 0.0
    elapsed: float = 0.0

    def __repr__(self) -> str:
        """Return all but the headers, of which there may be dozens."""
        return (
            f"ResponseInfo(status={self.status}, request_id={self.request_id!r}, attempts={self.attempts}, "
            f"waited={self.waited:.3f}, elapsed={self.elapsed:.3f}, headers=<{len(self.headers)}>)"
        )


class Received(Protocol):
    """A response whose facts are computed when a caller uses them, which is rare."""

    def info(self) -> ResponseInfo:
        """Return the facts."""
        ...
