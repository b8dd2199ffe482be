"""Tests of code that uses this package: a pytest plugin, and a loop on which waiting is instant.

The extra `[sandbox]` brings the plugin: the fixtures `musicapi_sandbox` and `musicapi_client` give a running
sandbox and a client on its faster clock. `sandbox.faults` cuts connections, truncates responses and fails
tasks; `sandbox.journal` has every request and charge.

With pytest-asyncio set `asyncio_mode = "auto"` in your pytest configuration. With anyio's plugin (4.11 or
later) set `anyio_mode = "auto"`, and have a fixture `anyio_backend` return `"asyncio"`, since it would run
each test on trio as well where that is installed. `@pytest.mark.musicapi(credits=5, longest=10)` gives
arguments to the sandbox of a test.

```python
from musicapi_async import MusicAPI
from musicapi_async.sandbox import Sandbox


async def test_my_service(musicapi_client: MusicAPI, musicapi_sandbox: Sandbox) -> None:
    task = await musicapi_client.sonic.create_music(mv="sonic-v6", prompt="[Verse]\\nla")
    assert (await task.wait()).status == "succeeded"
    assert len(musicapi_sandbox.journal.creates) == 1
```

Pages: `musicapi_async.testing.plugin`, `musicapi_async.testing.virtual`.
"""

__all__: list[str] = []
