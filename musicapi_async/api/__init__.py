"""The API of the service, declared once: requests, their paths, and results.

A family (`sonic`, `producer`, `nuro`, `riffusion`, `studio`, `account`) lists its operations; `families`
finds a family by its word. An operation (`operation`) has a path, the class of its requests, and its result.
Requests are checked by the limits of their fields (`request`, `field_limits`). Results of tasks are in
`results` and `stems`, those of direct calls in `direct_replies`, lyrics of all kinds in `lyrics`. `task` has
the handle of a task. `musicapi_async.plain_data` converts all of them to plain data and back.

This package sends and reads nothing: `MusicAPI` carries out the operations, and `musicapi_async._wire` fills
the results.
"""

from typing import TYPE_CHECKING

from .._lazy_names import lazy_names

if TYPE_CHECKING:
    from .account import Account
    from .nuro import Nuro
    from .producer import Producer
    from .riffusion import Riffusion
    from .sonic import Sonic, Suno
    from .studio import Studio

__all__ = ["Account", "Nuro", "Producer", "Riffusion", "Sonic", "Studio", "Suno"]

_MODULES = {
    ".account": ("Account",),
    ".nuro": ("Nuro",),
    ".producer": ("Producer",),
    ".riffusion": ("Riffusion",),
    ".sonic": ("Sonic", "Suno"),
    ".studio": ("Studio",),
}


if not TYPE_CHECKING:  # type checkers would believe in any name
    __getattr__, __dir__ = lazy_names(__name__, _MODULES)
