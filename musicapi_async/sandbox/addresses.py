"""Under which addresses the sandbox is reached, and who may use it: Host, cross-origin use, TLS.

A sandbox is a server with a well-known key on the machine of a developer. A page in a browser must not reach
it: neither under a name of its own that leads to this machine (the Host check), nor from another origin.
"""

from __future__ import annotations

import ipaddress
import ssl
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal
from urllib.parse import urlsplit

from aiohttp import web

from ..extras import require

if TYPE_CHECKING:
    import trustme

TLS = Literal[True] | tuple[str | Path, str | Path] | None
"""True for a certificate made now, or the PEM files of a certificate (with its chain) and of its key."""

LOCAL_NAMES: Final = ("localhost", "127.0.0.1", "::1")

EVERY_ADDRESS: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 nothing listens here
"""Where a server that listens on every address is reached from this machine."""


class Addresses:
    """The addresses of one sandbox.

    Args:
        host: The address that it listens on.
        public_url: The address in links, where a proxy or a tunnel is before it; else its own.
        tls: How it speaks TLS; None for plain HTTP.
    """

    def __init__(self, host: str, public_url: str | None, tls: TLS) -> None:
        self.public_url: Final = None if public_url is None else _checked(public_url)
        self.host: Final = host
        self._tls: Final = tls
        self._authority: trustme.CA | None = None
        self._file: Path | None = None
        if tls is True:
            require("A certificate made by the sandbox", "tls")

    def listens_on(self, port: int) -> str:
        """Return its own address, without a path."""
        name = EVERY_ADDRESS.get(self.host, self.host)
        host = f"[{name}]" if ":" in name else name
        return f"{'https' if self._tls else 'http'}://{host}:{port}"

    def server_context(self) -> ssl.SSLContext | None:
        """Return the context to listen with; makes a certificate if one is to be made.

        Raises:
            ValueError: if a file cannot be read, or holds no certificate with its key.
        """
        if self._tls is None:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        if self._tls is True:
            names = {*LOCAL_NAMES, self.host, self._public_name or self.host}
            made = self._made().issue_cert(*sorted(names))
            with made.private_key_and_cert_chain_pem.tempfile() as path:
                context.load_cert_chain(path)
        else:
            certificate, key = map(str, self._tls)
            try:
                context.load_cert_chain(certificate, key)
            except OSError as error:
                reason = error.strerror or str(error)
                text = f"the certificate {certificate!r} with the key {key!r} cannot be used: {reason}"
                raise ValueError(text) from error
        return context

    def client_context(self) -> ssl.SSLContext | None:
        """Return a context that trusts the certificate, for a client in this process; None for plain HTTP."""
        if self._tls is None:
            return None
        if self._tls is not True:
            return ssl.create_default_context(cafile=str(self._tls[0]))
        context = ssl.create_default_context()
        context.load_verify_locations(cadata=self._made().cert_pem.bytes().decode())
        return context

    @property
    def ca_file(self) -> Path | None:
        """The PEM file of the authority whose certificate was made here; gone when the sandbox stops."""
        if self._tls is not True:
            return None
        if self._file is None:
            with tempfile.NamedTemporaryFile(prefix="musicapi-sandbox-", suffix=".pem", delete=False) as file:
                file.write(self._made().cert_pem.bytes())
            self._file = Path(file.name)
        return self._file

    def close(self) -> None:
        """Remove the file of the authority."""
        file, self._file = self._file, None
        if file is not None:
            file.unlink(missing_ok=True)

    def _made(self) -> trustme.CA:
        if self._authority is None:
            import trustme

            self._authority = trustme.CA(organization_name="musicapi sandbox")
        return self._authority

    @property
    def _public_name(self) -> str | None:
        return None if self.public_url is None else urlsplit(self.public_url).hostname

    def refusal(self, request: web.BaseRequest, *, media: bool) -> str | None:
        """Return why a request is refused, or None.

        Args:
            request: The request.
            media: True for what other pages may show, as they show the files of the service: by their links.
        """
        host = request.headers.get("Host")
        if host is not None and not self._is_own(host):
            return f"The sandbox is not known as {host[:100]!r}: start it with a public URL of that name."
        origin = request.headers.get("Origin")
        own = {f"{'https' if self._tls else 'http'}://{host or ''}"}
        if self.public_url is not None:
            public = urlsplit(self.public_url)
            own.add(f"{public.scheme}://{public.netloc}")
        if origin is not None and origin not in own:
            return "The sandbox is not for pages of other origins."
        site = request.headers.get("Sec-Fetch-Site", "none")
        if not media and site in ("cross-site", "same-site"):
            return "The sandbox is not for pages of other origins."
        return None

    def _is_own(self, host: str) -> bool:
        """Return True for a number, a name of this machine, and the names that it was given."""
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        if name in ("localhost", self.host, self._public_name) or name.endswith(".localhost"):
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True


def _checked(url: str) -> str:
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        good = False
        parts = urlsplit("")
    if not good or parts.query or parts.fragment or parts.username is not None:
        raise ValueError(f"public_url must be http(s)://host, with a port or a path if need be, got {url!r}")
    return url.rstrip("/")
