"""The API as the service offers it, declared once: requests, their paths, and results.

A family (`sonic`, `producer`, `nuro`, `riffusion`, `studio`, `account`) lists its operations; `families`
finds families by their words. An operation (`operation`) names a path, the class of its requests, and what
it gives. Requests are checked by the limits of their fields (`request`, `field_limits`). Results of tasks
are in `results` and `stems`, those of direct calls in `direct_replies`, lyrics of all kinds in `lyrics`.
`task` is the handle of a task. `musicapi_async.plain_data` makes plain data of all of them and reads it back.

Nothing is sent or read in this room: `musicapi_async._wire` fills its shapes, and `MusicAPI` carries out its
operations.
"""

from .account import Account
from .nuro import Nuro
from .producer import Producer
from .riffusion import Riffusion
from .sonic import Sonic, Suno
from .studio import Studio

__all__ = ["Account", "Nuro", "Producer", "Riffusion", "Sonic", "Studio", "Suno"]
