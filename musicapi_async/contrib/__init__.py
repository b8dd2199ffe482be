"""Bridges to other libraries. Each module needs its library only when it is imported.

`musicapi_async.contrib.fastapi` (extra `[fastapi]`) and `musicapi_async.contrib.aiohttp_web` have what a back
end needs, with the same arguments: a client that lives as long as the app, a route that streams the updates
of a task as server-sent events, and errors as problem documents without secrets.

With `public=True`, anyone who knows a task's token may watch the task. With `authorize=check`, the bridge
calls `check(request, task)`, a plain or async function, which decides. If this process did not make the task
of a token, it polls the task once before it streams, at most two such tasks per second after a burst of 20,
and remembers those that do not exist. With a store (`lifespan(store=SQLiteStore("jobs.sqlite"))`), tasks of
earlier processes need no such poll.

The same routes receive webhooks, if the server has a public https address: see `musicapi_async.webhooks`.

`musicapi_async.contrib.opentelemetry` (extra `[opentelemetry]`) makes spans and metrics of the calls and
tasks of a client.

`python -m musicapi_async.examples.service` is a back end with a page, to try and to copy (extras
`[fastapi,sandbox]`): describe a song, listen while it is being made, make a persona of its voice, and create
the next song with it. Stop the server in the middle and start it again: the page continues. It listens on
this machine only, and accepts orders only from its own page; `--public-url` sets another address. Without a
key it uses a sandbox of its own, which ends ten minutes after its last request.
"""

__all__: list[str] = []
