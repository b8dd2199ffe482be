"""Values that survive pickling, for errors that are raised in another process than the one that shows them.

A value that does not pickle would hang a process pool for ever. A body of a peer may be nested deeper than
pickle allows, and errors of other libraries may hold live objects.
"""

from __future__ import annotations

import pickle
from typing import Final, cast

DEEPEST: Final = 100
"""Levels of a body that are pickled where all of them are too many: pickle has a limit of some hundreds."""
MARGIN: Final = 50
"""Levels to spare, as the error itself may be inside of something."""


def _pickles(value: object) -> bool:
    """Return True if `value` survives pickling, also a little deeper inside another object."""
    wrapped: object = value
    for _ in range(MARGIN):
        wrapped = [wrapped]
    try:
        pickle.loads(pickle.dumps(wrapped))  # noqa: S301 - what was dumped just now
    except Exception:
        return False
    return True


def portable(value: object) -> object:
    """Return the value if it pickles, else a part that does: of a body that is nested too deeply its top."""
    if value is None or isinstance(value, str | int | float) or _pickles(value):
        return value
    cut = _cut(value, DEEPEST)
    if _pickles(cut):
        return cut
    return () if isinstance(value, tuple) else f"<{type(value).__name__}>"


def _cut(value: object, depth: int) -> object:
    if isinstance(value, dict):
        fields = cast("dict[object, object]", value)
        return {name: _cut(one, depth - 1) for name, one in fields.items()} if depth else "..."
    if isinstance(value, list):
        items = cast("list[object]", value)
        return [_cut(one, depth - 1) for one in items] if depth else "..."
    return value


def portable_cause(cause: BaseException | None) -> BaseException | None:
    """Return the cause if it pickles, else its name and text: errors of libraries may hold live objects."""
    if cause is None or _pickles(cause):
        return cause
    name = f"{type(cause).__module__}.{type(cause).__qualname__}"
    try:
        return Exception(f"{name}: {cause}")
    except Exception:  # its text cannot be made either
        return Exception(name)
