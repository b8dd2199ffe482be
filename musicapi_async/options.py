"""Settings: from arguments, then from the environment, checked once at construction."""

from __future__ import annotations

import base64
import logging
import os
import re
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import unquote, urlsplit

import msgspec

from .arguments import check_bools, check_seconds, check_text, is_mapping, is_text, refused
from .errors import RequestValidationError
from .hooks import Hook
from .request_headers import check_headers

DEFAULT_BASE_URL: Final = "https://api.musicapi.ai/api/v1"
ACCOUNT_VARIABLE: Final = "MUSICAPI_ACCOUNT"
KEY_VARIABLES: Final = ("MUSICAPI_KEY", "MUSICAPI_API_KEY")
URL_VARIABLE: Final = "MUSICAPI_BASE_URL"
SPEED_VARIABLE: Final = "MUSICAPI_CLOCK_SPEED"
LOG_VARIABLE: Final = "MUSICAPI_LOG"
LOG_LEVELS: Final[Mapping[str, int]] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
}
LOG_FORMAT: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"
LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
"""The usual names of this machine."""
ENCODED_DOT: Final = re.compile(r"%(25)*2e", re.IGNORECASE)
"""`%2e`, also encoded again."""
SEPARATOR: Final = re.compile(r"[/\\]|%(?:25)*(?:2f|5c)", re.IGNORECASE)
"""Separators of a path, for a server or for one behind it: a slash or a backslash, also encoded."""
QUOTES: Final = "\"'`\u2018\u2019\u201c\u201d"

CONNECT_TIMEOUT: Final = 10.0
"""Seconds for DNS, TCP and TLS of one attempt."""
ATTEMPT_TIMEOUT: Final = 60.0
"""Seconds after which an attempt is given up, where its endpoint has no time of its own."""
POLL_TIMEOUT: Final = 30.0
"""The same for polls, which make nothing."""
BODY_LIMIT: Final = 16 * 1024 * 1024
"""Bytes of a reply that are read at most; the reply to a poll of 24 stems is below 50 kB."""

ACCOUNT_LIMIT: Final = 200
"""Characters of an account's name."""
FINGERPRINT_LABEL: Final = b"musicapi_async account"
"""Keeps the fingerprint of an API key from being that of the same key anywhere else."""

Validation = Literal["error", "warn", "off"]

Uploader = Callable[[Path], Awaitable[str]]
"""An async function that stores a local file and returns its public link, which must answer HEAD requests."""


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """Options of calls; `client.with_options(...)` changes them for a view of the client.

    Args:
        attempt_timeout: seconds for one attempt; None for the time that each endpoint has by default.
        deadline: seconds for a whole call with its repeats and waits for the rate; None for no limit.
        max_retries: repeats after the first attempt, 0 to 100.
        validate: 'error', 'warn' or 'off' for the local checks of a request.
        job_key: makes a create idempotent: the same key gives the same task.
        extra_body: fields that are added to the JSON body as they are.
        headers: headers that are added to those of the client, by their names in lower case.
        resend_creates_on_5xx: repeat a paid call after a 5xx, which may pay twice.
        check_balance: query the credits before a call that is recorded, and after one whose outcome is
            unknown.
    """

    attempt_timeout: float | None = None
    deadline: float | None = None
    max_retries: int = 3
    validate: Validation = "error"
    job_key: str | None = None
    extra_body: Mapping[str, object] | None = None
    headers: Mapping[str, str] | None = None
    resend_creates_on_5xx: bool = False
    check_balance: bool = False

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Return the fields, of `extra_body` and `headers` only the names: a value may be secret."""
        fields = msgspec.structs.asdict(self)
        for name, mapping in (("extra_body", self.extra_body), ("headers", self.headers)):
            if mapping is not None:
                fields[name] = list(mapping)
        return list(fields.items())

    def __repr__(self) -> str:
        return f"Options({', '.join(f'{name}={value!r}' for name, value in self.__rich_repr__())})"

    def __post_init__(self) -> None:
        for name, value in (("attempt_timeout", self.attempt_timeout), ("deadline", self.deadline)):
            if value is not None:
                check_seconds(name, value)
        if type(self.max_retries) is not int or not 0 <= self.max_retries <= 100:
            raise refused("max_retries", "a whole number from 0 to 100", repr(self.max_retries))
        check_bools(resend_creates_on_5xx=self.resend_creates_on_5xx, check_balance=self.check_balance)
        if self.validate not in ("error", "warn", "off"):
            raise refused("validate", "'error', 'warn' or 'off'", repr(self.validate))
        if self.extra_body is not None and not is_mapping(self.extra_body):
            raise refused("extra_body", "a mapping of fields", type(self.extra_body).__name__)
        if self.headers is not None:
            msgspec.structs.force_setattr(self, "headers", check_headers("headers", self.headers))
        if self.job_key is not None:
            if not is_text(self.job_key) or not self.job_key.strip():
                raise refused("job_key", "text, not empty", repr(self.job_key))
            check_text("job_key", self.job_key)


SONIC_POLL: Final = "/sonic/task/{task_id}"
"""Path at which songs are polled."""


class SonicPaths:
    """The paths of Sonic at a host: sister hosts have another word in them, such as 'suno'.

    The path at which such a host is polled is not documented, so `poll` can be given; by default it is that
    of the alias, `/suno/clip/{task_id}`.
    """

    def __init__(self, word: str = "sonic", poll: str | None = None) -> None:
        if not is_text(word) or not re.fullmatch(r"[\w-]+", word, re.ASCII):
            raise refused("sonic_word", "one word of a path, such as 'suno'", repr(word))
        if poll is not None and not (
            is_text(poll) and re.fullmatch(r"(/[\w.-]+)+/\{task_id\}", poll, re.ASCII)
        ):
            raise refused("sonic_poll", "a path such as '/suno/task/{task_id}'", repr(poll))
        if poll is not None and leaves_folder(poll):
            raise refused("sonic_poll", "a path without '..'", repr(poll))
        self._word: Final = word
        self._poll: Final = poll or (SONIC_POLL if word == "sonic" else f"/{word}/clip/{{task_id}}")

    def of(self, path: str) -> str:
        """Return the path at this host of a declared one."""
        if path == SONIC_POLL:
            return self._poll
        if self._word == "sonic" or not path.startswith("/sonic/"):
            return path
        return f"/{self._word}/{path.removeprefix('/sonic/')}"


def find_hooks(given: Hook | Iterable[Hook]) -> tuple[Hook, ...]:
    """Return the hooks of a client; raises `RequestValidationError` for what cannot be called as one."""
    from inspect import iscoroutinefunction

    limit = "a function that takes an event, or a list of such functions"
    hooks = (given,) if callable(given) else _listed(given)
    if hooks is None:
        raise refused("hooks", limit, type(given).__name__)
    for hook in hooks:
        if not callable(hook) or isinstance(hook, type):
            raise refused("hooks", limit, repr(hook)[:100])
        if iscoroutinefunction(hook) or iscoroutinefunction(type(hook).__call__):
            raise refused("hooks", f"{limit}, not async: hand longer work to a queue", repr(hook)[:100])
    return hooks


def set_up_log() -> None:
    """Lower the level of the log to that of MUSICAPI_LOG, if it is set, and print the log if nothing does.

    The lines go to the handlers of the program if it has any, else to standard error; a second call adds no
    second handler. Raises `RequestValidationError` for another word than those of `LOG_LEVELS`.
    """
    word = os.environ.get(LOG_VARIABLE, "").strip()
    if not word:
        return
    level = LOG_LEVELS.get(word.lower())
    if level is None:
        raise refused(LOG_VARIABLE, f"one of {', '.join(LOG_LEVELS)}", repr(word[:40]))
    log = logging.getLogger("musicapi_async")
    if not log.hasHandlers():
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter(LOG_FORMAT))
        log.addHandler(handler)
    if log.level == logging.NOTSET or log.level > level:  # a program that wants more has more
        log.setLevel(level)


def check_proxy(url: object) -> None:
    """Refuse what is no proxy's address; the text leaves it out, as it may hold a password."""
    try:
        good = isinstance(url, str) and urlsplit(url).scheme in ("http", "https") and urlsplit(url).hostname
    except ValueError:
        good = False
    if url is not None and not good:
        raise refused("proxy", "an http or https address such as 'http://proxy.example:8080'")


def check_ssl(context: object) -> None:
    """Refuse what is no TLS context of a client, and one that takes any certificate."""
    if context is None:
        return
    limit = "an ssl.SSLContext that verifies certificates, such as ssl.create_default_context(cafile=...)"
    if context is False:
        why = "without verification any machine on the way could pass for the host and read the API key"
        raise refused("ssl", f"{limit}; False is refused: {why}")
    if isinstance(context, type) or not callable(getattr(context, "wrap_bio", None)):
        raise refused("ssl", limit, type(context).__name__)
    if not getattr(context, "verify_mode", None):  # ssl.CERT_NONE
        raise refused("ssl", limit, "one with verify_mode CERT_NONE")


def check_private_addresses(forbid: object, *, by_proxy: bool) -> None:
    """Refuse `forbid_private_addresses` with a proxy, which connects where this client cannot check it."""
    check_bools(forbid_private_addresses=forbid)
    if forbid and by_proxy:
        raise refused(
            "forbid_private_addresses",
            "False with proxy or trust_env, as the proxy decides which addresses it connects to",
        )


def find_proxy(url: str) -> str | None:
    """Return the proxy of the environment for an address (`HTTPS_PROXY`, `NO_PROXY`, ...), or None."""
    from urllib.request import getproxies, proxy_bypass

    parts = urlsplit(url)
    proxy = getproxies().get(parts.scheme)
    if not proxy or not parts.hostname or proxy_bypass(parts.hostname):
        return None
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    return proxy if proxy.startswith(("http://", "https://")) else None


def proxy_secrets(proxy: str | None, *, trust_env: bool) -> Iterator[str]:
    """Find the secrets in the addresses of proxies that may be used, in all forms in which they are sent."""
    from urllib.request import getproxies

    for address in (proxy, *(getproxies().values() if trust_env else ())):
        try:
            parts = urlsplit(address or "")
        except ValueError:
            continue
        if parts.password:
            user, password = unquote(parts.username or ""), unquote(parts.password)
            login = f"{user}:{password}"
            yield from (password, login, base64.b64encode(login.encode()).decode())


def is_protected(url: str) -> bool:
    """Return True if calls of an address cannot be read on the way: https, or http to this machine itself."""
    try:
        parts = urlsplit(url)
        return bool(parts.hostname) and (
            parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname))
        )
    except ValueError:
        return False


def is_loopback(host: str | None) -> bool:
    """Return True if a host is this machine: `localhost`, or any loopback address, such as 127.0.0.2."""
    if (host or "").removesuffix(".").lower() == "localhost":
        return True
    from ipaddress import IPv6Address, ip_address  # most clients never need it

    try:
        address = ip_address(host or "")
    except ValueError:
        return False
    inner = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return (inner or address).is_loopback


def leaves_folder(path: str) -> bool:
    """Return True if a part of the path is `.` or `..`, or has an encoded dot, which servers take for one.

    Some servers, and those behind them, split a path at `%2f` as well, and drop what follows a semicolon.
    """
    names = {part.partition(";")[0] for part in SEPARATOR.split(path)}
    return bool({".", ".."} & names) or ENCODED_DOT.search(path) is not None


def check_id(name: str, value: str) -> str:
    """Return an id for a path. It is percent-encoded there, which servers may undo before they route."""
    if leaves_folder(value):
        raise refused(name, "an id without '..' and '%2e', which could lead out of the API", repr(value[:80]))
    return value


def _listed(values: Iterable[Any]) -> tuple[Any, ...] | None:
    try:
        return tuple(values)
    except TypeError:
        return None


def find_key(given: str | None) -> str:
    """Return the API key: the argument, else MUSICAPI_KEY, else MUSICAPI_API_KEY.

    Raises `RequestValidationError` if there is none, or if it is in quotes, begins with 'Bearer ', or holds
    white space or characters that no header takes. The text never holds the key.
    """
    key = given
    if key is None:
        key = next((os.environ[name] for name in KEY_VARIABLES if os.environ.get(name)), None)
    if not key:
        raise RequestValidationError(
            "no API key: pass api_key=... or set MUSICAPI_KEY",
            field="api_key",
            hint="Without an account, try `musicapi demo`, or export what `musicapi sandbox` prints.",
        )
    if not is_text(key):
        raise refused("api_key", "text", type(key).__name__)
    if key[0] in QUOTES or key[-1] in QUOTES:
        raise refused("api_key", "the key alone, without quotes around it")
    if key.lower().startswith("bearer "):
        raise refused("api_key", "the key alone, without the leading 'Bearer '")
    if any(character.isspace() for character in key) or not key.isascii() or not key.isprintable():
        raise refused("api_key", "printable ASCII without white space")
    return key


def find_account(given: str | None, key: str) -> str:
    """The account: the argument, else MUSICAPI_ACCOUNT, else a fingerprint of the API key, 'key-' and 16 hex
    digits, from which the key cannot be computed.

    Raises `RequestValidationError` for what is no short printable text.
    """
    name = given if given is not None else os.environ.get(ACCOUNT_VARIABLE) or None
    if name is None:
        import hmac  # only here, and it takes 2 ms

        return f"key-{hmac.digest(FINGERPRINT_LABEL, key.encode(), 'sha256').hex()[:16]}"
    if not is_text(name) or not name.strip() or not name.isprintable() or len(name) > ACCOUNT_LIMIT:
        raise refused("account", f"a name of at most {ACCOUNT_LIMIT} printable characters", repr(name)[:100])
    return name


def find_base_url(given: str | None) -> str:
    """Return the base URL: the argument, else MUSICAPI_BASE_URL, else the service's; without a final slash.

    Raises `RequestValidationError` for what is no address, for http beyond this machine, which would carry
    the key in the open, and for a path with `..` or `%2e`.
    """
    if given is not None:
        check_text("base_url", given)
    whole = given or os.environ.get(URL_VARIABLE) or DEFAULT_BASE_URL
    url = whole.rstrip("/")
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        good = good and not ({"?", "#"} & set(url) or parts.username or parts.password)
    except ValueError:
        good = False
    origin = "" if given else f" (from {URL_VARIABLE})"
    if not good or any(character.isspace() for character in url):
        raise refused(
            "base_url", f"an http or https address such as {DEFAULT_BASE_URL}", _picture(whole) + origin
        )
    if not is_protected(url):
        limit = "an https address, or http to this machine alone, because the key goes there"
        raise refused("base_url", limit, repr(url[:100]) + origin)
    if leaves_folder(urlsplit(url).path) or "\\" in url:
        raise refused("base_url", "a path without '..', '%2e' and backslashes", repr(url[:100]) + origin)
    return url


def _picture(url: str) -> str:
    """Return a refused address for the error, with a suggestion where there is one; never a password."""
    if "@" in url or "?" in url or len(url) > 100:
        return "one with a user, a query, or too long"
    bare = url.strip(" \t\r\n'\"").rstrip("/")
    text = repr(url)
    if "://" not in bare and re.fullmatch(r"[\w.-]+(:\d+)?(/[\w./-]*)?", bare):
        scheme = "http" if is_loopback(bare.partition(":")[0].partition("/")[0]) else "https"
        path = "" if "/" in bare else urlsplit(DEFAULT_BASE_URL).path
        return f"{text}; did you mean {scheme}://{bare}{path}?"
    return f"{text}; did you mean {bare}?" if bare != url.rstrip("/") else text


def find_clock_speed(base_url: str) -> float:
    """Return MUSICAPI_CLOCK_SPEED, which a sandbox on this machine prints; 1 for any other host."""
    speed = os.environ.get(SPEED_VARIABLE)
    if not speed or not is_loopback(urlsplit(base_url).hostname):
        return 1.0
    try:
        return check_seconds(SPEED_VARIABLE, float(speed))
    except ValueError:
        raise refused(SPEED_VARIABLE, "a positive number", repr(speed)) from None
