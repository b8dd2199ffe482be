"""Bridges to other libraries. Each module imports its library only when it is imported itself.

A back end is a client that lives as long as the app, a route that streams the updates of a task as
server-sent events, and errors as problem documents that leak nothing: `musicapi_async.contrib.fastapi` (the
extra `[fastapi]`) and `musicapi_async.contrib.aiohttp_web`, which take the same arguments.

`public=True` means that to know a task's token is enough to watch it; with `authorize=check` the bridge
calls `check(request, task)` instead, plain or async. Tokens of tasks that this process did not make are
verified with one poll, at most two a second, and those that do not exist are remembered; with a store
(`lifespan(store=SQLiteStore("jobs.sqlite"))`) tasks of earlier processes need no poll.

Webhooks come second, once the server has a public https address: see `musicapi_async.webhooks`. The same
routes receive them.

`musicapi_async.contrib.opentelemetry` (the extra `[opentelemetry]`) makes spans and metrics of what a client
does.

`python -m musicapi_async.examples.service` is a back end with a page to try and to copy: describe a song,
hear it while it is still being made, make a persona of its voice, sing the next song with it. It needs the
extras `[fastapi,sandbox]`. Stop it in the middle and start it again: the page continues. It listens to this
machine alone, and only its own page may order; `--public-url` gives it another name. Without a key it runs
on a sandbox of its own, which ends ten minutes after its last request.
"""

__all__: list[str] = []
