"""Settings: from arguments, then from the environment, checked once at construction."""

from __future__ import annotations

import base64
import hmac
import math
import os
import re
from collections.abc import Iterator, Mapping
from ipaddress import IPv6Address, ip_address
from typing import Any, Final, Literal
from urllib.parse import unquote, urlsplit

import msgspec

from .errors import RequestValidationError

DEFAULT_BASE_URL: Final = "https://api.musicapi.ai/api/v1"
ACCOUNT_VARIABLE: Final = "MUSICAPI_ACCOUNT"
KEY_VARIABLES: Final = ("MUSICAPI_KEY", "MUSICAPI_API_KEY")
URL_VARIABLE: Final = "MUSICAPI_BASE_URL"
SPEED_VARIABLE: Final = "MUSICAPI_CLOCK_SPEED"
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


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """Options of calls; `client.with_options(...)` changes them for a view of the client.

    Args:
        attempt_timeout: seconds for one attempt; None for the time that each endpoint has by default.
        deadline: seconds for a whole call with its repeats and waits for the rate; None for no limit.
        max_retries: repeats after the first attempt, 0 to 100.
        validate: 'error', 'warn' or 'off' for the local checks of a request.
        job_key: makes a create idempotent: the same key gives the same task.
        extra_body: fields that are added to the JSON body as they are.
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
    resend_creates_on_5xx: bool = False
    check_balance: bool = False

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Return the fields, of `extra_body` only the names: a value in it may be secret."""
        fields = msgspec.structs.asdict(self)
        if self.extra_body is not None:
            fields["extra_body"] = list(self.extra_body)
        return list(fields.items())

    def __repr__(self) -> str:
        return f"Options({', '.join(f'{name}={value!r}' for name, value in self.__rich_repr__())})"

    def __post_init__(self) -> None:
        for name, value in (("attempt_timeout", self.attempt_timeout), ("deadline", self.deadline)):
            if value is not None:
                check_seconds(name, value)
        if type(self.max_retries) is not int or not 0 <= self.max_retries <= 100:
            raise _bad("max_retries", "a whole number from 0 to 100", repr(self.max_retries))
        if self.validate not in ("error", "warn", "off"):
            raise _bad("validate", "'error', 'warn' or 'off'", repr(self.validate))
        if self.extra_body is not None and not _is_mapping(self.extra_body):
            raise _bad("extra_body", "a mapping of fields", type(self.extra_body).__name__)
        if self.job_key is not None:
            if not _is_text(self.job_key) or not self.job_key.strip():
                raise _bad("job_key", "text, not empty", repr(self.job_key))
            check_text("job_key", self.job_key)


SONIC_POLL: Final = "/sonic/task/{task_id}"
"""Path at which songs are polled."""


class SonicPaths:
    """The paths of Sonic at a host: sister hosts have another word in them, such as 'suno'.

    The path at which such a host is polled is not documented, so `poll` can be given; by default it is that
    of the alias, `/suno/clip/{task_id}`.
    """

    def __init__(self, word: str = "sonic", poll: str | None = None) -> None:
        if not _is_text(word) or not re.fullmatch(r"[\w-]+", word, re.ASCII):
            raise _bad("sonic_word", "one word of a path, such as 'suno'", repr(word))
        if poll is not None and not (
            _is_text(poll) and re.fullmatch(r"(/[\w.-]+)+/\{task_id\}", poll, re.ASCII)
        ):
            raise _bad("sonic_poll", "a path such as '/suno/task/{task_id}'", repr(poll))
        if poll is not None and leaves_folder(poll):
            raise _bad("sonic_poll", "a path without '..'", repr(poll))
        self._word: Final = word
        self._poll: Final = poll or (SONIC_POLL if word == "sonic" else f"/{word}/clip/{{task_id}}")

    def of(self, path: str) -> str:
        """Return the path at this host of a declared one."""
        if path == SONIC_POLL:
            return self._poll
        if self._word == "sonic" or not path.startswith("/sonic/"):
            return path
        return f"/{self._word}/{path.removeprefix('/sonic/')}"


PARTS: Final[Mapping[str, tuple[str, str]]] = {
    "store": ("change", 'a store such as SQLiteStore("jobs.sqlite")'),
    "polling": ("observed", "a schedule such as musicapi_async.polling.LearnedSchedule"),
    "limiter": ("slot", "a RateLimiter"),
    "session": ("request", "an aiohttp.ClientSession"),
    "webhooks": ("order", 'Webhooks(url="https://...", secret="...")'),
    "clock": ("sleep", "a Clock"),
}
"""Parts that a client can be given: a method by which they are known, and what to give."""


def check_parts(**given: object) -> None:
    """Refuse what cannot be the part of its name, such as a path instead of a store."""
    for name, value in given.items():
        method, limit = PARTS[name]
        if value is not None and (isinstance(value, type) or not callable(getattr(value, method, None))):
            given_as = f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__
            raise _bad(name, limit, given_as)


def check_proxy(url: object) -> None:
    """Refuse what is no proxy's address; the text leaves it out, as it may hold a password."""
    try:
        good = isinstance(url, str) and urlsplit(url).scheme in ("http", "https") and urlsplit(url).hostname
    except ValueError:
        good = False
    if url is not None and not good:
        raise _bad("proxy", "an http or https address such as 'http://proxy.example:8080'", "")


def check_private_addresses(forbid: object, *, by_proxy: bool) -> None:
    """Refuse `forbid_private_addresses` with a proxy, which connects where this client cannot check it."""
    if not isinstance(forbid, bool):
        raise _bad("forbid_private_addresses", "True or False", type(forbid).__name__)
    if forbid and by_proxy:
        raise _bad(
            "forbid_private_addresses",
            "False with proxy or trust_env, as the proxy decides which addresses it connects to",
            "",
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


def check_text(name: str, value: str) -> None:
    """Refuse text that cannot be sent or written, such as a lone surrogate from a broken file."""
    try:
        value.encode()
    except UnicodeEncodeError:
        raise _bad(name, "text that is valid Unicode", ascii(value[:40])) from None


def check_seconds(name: str, value: float) -> float:
    """Return `value` if it is a positive finite number of seconds, else raise `RequestValidationError`."""
    if not _is_positive(value):
        raise _bad(name, "a positive number of seconds", repr(value))
    return float(value)


def _is_mapping(value: object) -> bool:
    return isinstance(value, Mapping)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_positive(value: object) -> bool:
    return (
        isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value > 0
    )


def find_key(given: str | None, environment: Mapping[str, str] = os.environ) -> str:
    """Return the API key: the argument, else MUSICAPI_KEY, else MUSICAPI_API_KEY.

    Raises `RequestValidationError` if there is none, or if it is in quotes, begins with 'Bearer ', or holds
    white space or characters that no header takes. The text never holds the key.
    """
    key = given
    if key is None:
        key = next((environment[name] for name in KEY_VARIABLES if environment.get(name)), None)
    if not key:
        raise RequestValidationError(
            "no API key: pass api_key=... or set MUSICAPI_KEY",
            field="api_key",
            hint="Without an account, try `musicapi demo` or musicapi_async.sandbox.Sandbox.",
        )
    if key[0] in QUOTES or key[-1] in QUOTES:
        raise _bad("api_key", "the key alone, without quotes around it", "")
    if key.lower().startswith("bearer "):
        raise _bad("api_key", "the key alone, without the leading 'Bearer '", "")
    if any(character.isspace() for character in key) or not key.isascii() or not key.isprintable():
        raise _bad("api_key", "printable ASCII without white space", "")
    return key


def find_account(given: str | None, key: str, environment: Mapping[str, str] = os.environ) -> str:
    """The account: the argument, else MUSICAPI_ACCOUNT, else a fingerprint of the API key, 'key-' and 16 hex
    digits, from which the key cannot be computed.

    Raises `RequestValidationError` for what is no short printable text.
    """
    name = given if given is not None else environment.get(ACCOUNT_VARIABLE) or None
    if name is None:
        return f"key-{hmac.digest(FINGERPRINT_LABEL, key.encode(), 'sha256').hex()[:16]}"
    if not _is_text(name) or not name.strip() or not name.isprintable() or len(name) > ACCOUNT_LIMIT:
        raise _bad("account", f"a name of at most {ACCOUNT_LIMIT} printable characters", repr(name)[:100])
    return name


def find_base_url(given: str | None, environment: Mapping[str, str] = os.environ) -> str:
    """Return the base URL: the argument, else MUSICAPI_BASE_URL, else the service's; without a final slash.

    Raises `RequestValidationError` for what is no address, for http beyond this machine, which would carry
    the key in the open, and for a path with `..` or `%2e`.
    """
    whole = given or environment.get(URL_VARIABLE) or DEFAULT_BASE_URL
    url = whole.rstrip("/")
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        good = good and not ({"?", "#"} & set(url) or parts.username or parts.password)
    except ValueError:
        good = False
    origin = "" if given else f" (from {URL_VARIABLE})"
    if not good or any(character.isspace() for character in url):
        raise _bad(
            "base_url", f"an http or https address such as {DEFAULT_BASE_URL}", _picture(whole) + origin
        )
    if not is_protected(url):
        limit = "an https address, or http to this machine alone, because the key goes there"
        raise _bad("base_url", limit, repr(url[:100]) + origin)
    if leaves_folder(urlsplit(url).path) or "\\" in url:
        raise _bad("base_url", "a path without '..', '%2e' and backslashes", repr(url[:100]) + origin)
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


def find_clock_speed(base_url: str, environment: Mapping[str, str] = os.environ) -> float:
    """Return MUSICAPI_CLOCK_SPEED, which a sandbox on this machine prints; 1 for any other host."""
    speed = environment.get(SPEED_VARIABLE)
    if not speed or not is_loopback(urlsplit(base_url).hostname):
        return 1.0
    try:
        return check_seconds(SPEED_VARIABLE, float(speed))
    except ValueError:
        raise _bad(SPEED_VARIABLE, "a positive number", repr(speed)) from None


def _bad(field: str, limit: str, value: str) -> RequestValidationError:
    text = f"{field}: {limit}" + (f", got {value}" if value else "")
    return RequestValidationError(text, field=field, limit=limit, value=value)
