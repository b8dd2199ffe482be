"""The families of operations that a client has: `client.sonic`, `client.producer` and so on.

A family is a module with its requests, results and operations; an operation is declared once (`operation`).
"""

from .account import Account
from .nuro import Nuro
from .producer import Producer
from .riffusion import Riffusion
from .sonic import Sonic
from .studio import Studio
from .suno import Suno

__all__ = ["Account", "Nuro", "Producer", "Riffusion", "Sonic", "Studio", "Suno"]
