"""Facts about the HTTP response that a reply was read from."""

from __future__ import annotations

from typing import Protocol

import msgspec

from ..plain_data import PlainData


class ResponseInfo(PlainData, msgspec.Struct, frozen=True, kw_only=True):
    """The HTTP response that a reply was read from, or a task's submit was accepted with.

    It holds plain data and pickles. Secrets of the client are hidden in it.

    ```python
    balance = await client.credits()
    if balance.response is not None:
        print(balance.response.status, balance.response.request_id, balance.response.elapsed)
    ```

    Args:
        status: the HTTP status, such as 200.
        headers: the headers by their names in lower case, of a repeated one the last.
        request_id: the id for the vendor's support, if a header has one.
        attempts: requests that were sent until this response came, 1 if the first one succeeded.
        waited: seconds, on the client's clock, that the call was held back here: by the rate, after a refusal
            for the rate, by other requests and by tasks in flight.
        elapsed: real seconds from the begin of the last attempt until its response was read; a new connection
            counts, `waited` does not.
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
    """A response whose facts are worked out when a caller wants them: of most replies none does."""

    def info(self) -> ResponseInfo:
        """Return the facts."""
        ...
