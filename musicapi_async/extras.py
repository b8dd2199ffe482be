"""Extras of the package: the libraries that each installs, and the text that explains a missing one.

This package is on no index, so a hint names a clone, or the libraries themselves, but never the name of the
package: a package with this name on an index would belong to others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from types import MappingProxyType
from typing import Final

LIBRARIES: Final[Mapping[str, Sequence[str]]] = MappingProxyType(
    {
        "cli": ("click", "rich", "jinja2"),
        "sandbox": ("numpy", "soundfile", "mutagen", "mido", "lameenc"),
        "tags": ("mutagen",),
        "tls": ("trustme",),
        "fastapi": ("fastapi", "uvicorn"),
        "mcp": ("mcp", "click", "rich"),
        "opentelemetry": ("opentelemetry-api",),
        "postgres": ("psycopg", "psycopg-binary"),
        "workers": ("procrastinate", "psycopg", "psycopg-binary"),
    }
)
"""What each extra of `pyproject.toml` installs; each library is imported by the name under which it is
installed, but for `opentelemetry-api`, which is `opentelemetry`, and `psycopg-binary`, part of `psycopg`."""


def install_hint(extra: str) -> str:
    """Return commands that install an extra, as they are true from a clone and elsewhere.

    The commands are in backticks, so that a line ends in none of them, and each can be copied. `extra` is a
    key of `LIBRARIES`, or several with commas between them.
    """
    libraries = " ".join(library for name in extra.split(",") for library in LIBRARIES[name])
    return f"`pip install -e '.[{extra}]'` in a clone of musicapi_async, elsewhere `pip install {libraries}`"


class MissingExtra(ModuleNotFoundError):
    """An extra is not installed; the text is for users of the feature."""


def missing_extra(feature: str, extra: str, *libraries: str) -> MissingExtra:
    """Return the error that says what needs an extra, what of it is missing, and how to install it.

    Args:
        feature: The subject of the sentence, such as "The musicapi command".
        extra: A key of `LIBRARIES`, or several with commas between them.
        libraries: The names of the libraries that cannot be imported, at least one.
    """
    verb = "is" if len(libraries) == 1 else "are"
    return MissingExtra(
        f"{feature} needs the extra [{extra}] ({', '.join(libraries)} {verb} not installed): "
        f"{install_hint(extra)}",
        name=libraries[0],
    )


def require(feature: str, extra: str, *libraries: str) -> None:
    """Check that the libraries of an extra are installed, without importing them.

    Args:
        feature: The subject of the sentence, such as "The musicapi command".
        extra: A key of `LIBRARIES`.
        libraries: The libraries that the feature needs; by default all of the extra.

    Raises:
        MissingExtra: if one is not installed.
    """
    absent = [name for name in libraries or LIBRARIES[extra] if find_spec(name) is None]
    if absent:
        raise missing_extra(feature, extra, *absent)
