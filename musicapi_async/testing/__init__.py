"""Tests of code that uses this package: a pytest plugin, and an event loop on which waiting takes no time.

The extra `[sandbox]` includes the plugin. Its fixtures are `musicapi_sandbox`, a running sandbox, and
`musicapi_client`, a client with the faster clock of the sandbox. `sandbox.faults` cuts connections, truncates
responses and fails tasks; `sandbox.journal` has every request and charge.

With pytest-asyncio, set `asyncio_mode = "auto"` in your pytest configuration. With anyio's plugin (4.11 or
later), set `anyio_mode = "auto"`, and let a fixture `anyio_backend` return `"asyncio"`, because otherwise
each test also runs on trio if that is installed. `@pytest.mark.musicapi(credits=5, longest=10)` passes
arguments to the sandbox of a test.

```python
from musicapi_async import MusicAPI
from musicapi_async.sandbox import Sandbox


async def test_my_service(musicapi_client: MusicAPI, musicapi_sandbox: Sandbox) -> None:
    task = await musicapi_client.sonic.create_music(mv="sonic-v6", prompt="[Verse]\\nla")
    assert (await task.wait()).status == "succeeded"
    assert len(musicapi_sandbox.journal.creates) == 1
```

See `musicapi_async.testing.plugin` (the fixtures) and `musicapi_async.testing.virtual` (the event loop).
"""

__all__: list[str] = []
