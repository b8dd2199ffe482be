"""Names of a package that are imported when they are first used (PEP 562).

So a program pays for what it uses. And several threads may import at once: Python holds a lock for each
module that is being imported, and before a module it imports its package, with the lock of the module held.
If that package imported its modules in turn, then of two threads, one importing the package and one importing
a module of it, each could wait for the other; Python notices, and raises an error in one of them. So no
package here imports its own modules, but for two private ones, this and `_version`, which no other program
imports.
"""

from __future__ import annotations

import sys
from importlib import import_module

TYPE_CHECKING = False  # as `typing` has it for type checkers, without its import: 10 ms

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


def lazy_names(
    package: str, names: Mapping[str, Sequence[str]], modules: Sequence[str] = ()
) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """Return the functions `__getattr__` and `__dir__` of a package.

    Args:
        package: its name.
        names: its exported names, by the module that has them, relative to the package.
        modules: those of its modules that resolve without an import of their own.
    """
    homes = {name: module for module, exported in names.items() for name in exported}
    homes.update((module, "") for module in modules)

    def resolve(name: str) -> object:
        home = homes.get(name)
        if home is None:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        if not home:
            return import_module(f".{name}", package)
        value: object = getattr(import_module(home, package), name)
        setattr(sys.modules[package], name, value)
        return value

    def listed() -> list[str]:
        known = vars(sys.modules[package])
        return sorted({*known["__all__"], *modules, *(name for name in known if name.startswith("_"))})

    return resolve, listed
