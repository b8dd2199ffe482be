"""Publish the local files of a request: the client's `uploader` makes links of them.

A file is published before its job key is reserved, so a process that dies meanwhile has paid for nothing and
holds no key. The job stores the link that was sent, and beside it the SHA-256 of the file: with the same key
and the same file a later call takes that link, publishes nothing, and so is the same request. Two processes
that publish one file at once under one key send one request: what is compared is the file.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from .._wire.prepare import check
from .._wire.redaction import Redactor
from ..api.local_files import PLACEHOLDER, local_files, with_links
from ..api.request import Request, is_link, picture, refuse, violations
from ..clock import Clock
from ..errors import RequestTimeoutError, RequestValidationError, UploaderError
from ..options import Options, Uploader
from .call_entry import CallRecorder

LEAST_DEADLINE: Final = 0.001
"""Seconds that a call has at least for what follows the upload, so that its deadline stays one."""


class Published(NamedTuple):
    """A request with links alone, its options, and the SHA-256 of each published file by field."""

    request: Request
    options: Options
    files: Mapping[str, str]


class Publisher:
    """Makes links of local files.

    Args:
        uploader: that of the client; None: local files are refused.
        clock: the clock of the deadline.
        redactor: hides secrets in the texts of errors.
    """

    def __init__(self, uploader: Uploader | None, clock: Clock, redactor: Redactor) -> None:
        self._uploader: Final = uploader
        self._clock: Final = clock
        self._redactor: Final = redactor

    async def publish(
        self, request: Request, links: tuple[str, ...], call: str, options: Options, recorder: CallRecorder
    ) -> Published:
        """Return the request with the links of its local files.

        Args:
            request: the arguments of the operation.
            links: the fields that take a link.
            call: method and path, for errors.
            options: those of the client view; its `deadline` covers this, and comes back reduced.
            recorder: knows the links that the job of the key has already.

        Raises:
            RequestValidationError: there is no `uploader` or no such file, or another field is wrong.
            UploaderError: the uploader failed. Nothing was charged.
            RequestTimeoutError: the deadline passed.
            JobStoreError: the job store cannot be read.
        """
        files = local_files(request, links)
        if not files:
            return Published(request, options, {})
        if self._uploader is None:
            if any(not isinstance(getattr(request, name), str) for name in files):
                raise refuse(violations(request), call)  # also with validate="off": no body can hold it
            return Published(request, options, {})
        if options.validate == "error":
            check(with_links(request, dict.fromkeys(files, PLACEHOLDER)), call, options)
        began, deadline = self._clock.now(), options.deadline
        try:
            async with asyncio.timeout(None if deadline is None else self._clock.real(deadline)):
                digests = {name: await digest_of(name, path, call) for name, path in files.items()}
                known: Mapping[str, str] = {}
                if options.job_key is not None:
                    known = await recorder.links(options.job_key, digests)
                made = {
                    name: known[name] if name in known else await self._link(self._uploader, name, path, call)
                    for name, path in files.items()
                }
        except TimeoutError:
            raise RequestTimeoutError(
                f"the deadline of {deadline:g} s passed while a file was published", sent=False, call=call
            ) from None
        if deadline is not None:
            remaining = max(deadline - (self._clock.now() - began), LEAST_DEADLINE)
            options = msgspec.structs.replace(options, deadline=remaining)
        return Published(with_links(request, made), options, digests)

    async def _link(self, uploader: Uploader, field: str, path: Path, call: str) -> str:
        """Publish a file and return its link."""
        try:
            link: Any = await uploader(path)
        except Exception as error:
            reason = self._redactor.line(f"{type(error).__name__}: {error}")
            raise UploaderError(
                f"the uploader failed for {str(path)!r}: {reason}", field=field, path=str(path), call=call
            ) from error
        if not is_link(link):
            raise UploaderError(
                f"the uploader returned {picture(link)} for {str(path)!r}, and not a public link",
                field=field,
                path=str(path),
                call=call,
            )
        return str(link)


async def digest_of(field: str, path: Path, call: str) -> str:
    """Return the SHA-256 of a local file; `RequestValidationError` if it cannot be read."""
    try:
        return await asyncio.to_thread(_sha256, path)
    except FileNotFoundError:
        text = f"there is no file {str(path)!r}"
    except OSError as error:
        text = f"{str(path)!r} cannot be read: {error.strerror or type(error).__name__}"
    raise RequestValidationError(f"{field}: {text}", field=field, value=repr(str(path)), call=call)


def _sha256(path: Path) -> str:
    import hashlib

    if path.exists() and not path.is_file():  # a pipe or a device may have no end
        raise OSError(errno.EINVAL, "it is no regular file")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
