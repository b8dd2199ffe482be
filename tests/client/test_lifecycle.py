"""Lives of a client: loops in a row, no `async with`, forgetting to close, forks, Ctrl-C; each as a user would.

What shows only at the end of a process runs in one of its own, with every warning an error.
"""

from __future__ import annotations

import asyncio
import copy
import os
import pickle
import subprocess
import sys
import textwrap

import pytest
from patience import until

from musicapi_async import Clips, MusicAPI, MusicAPIError, RequestValidationError, Task, TaskError
from musicapi_async.sandbox import Fault, Sandbox
from musicapi_async.testing.plugin import SANDBOX_SPEED
from musicapi_async.testing.virtual import VirtualTimeLoop

PRELUDE = """
import asyncio, gc, os, signal, sys, threading
from musicapi_async import MusicAPI
from musicapi_async.sandbox import Sandbox

async def interrupt_once_sent(sandbox):
    while not sandbox.journal.creates:
        await asyncio.sleep(0.01)
    os.kill(os.getpid(), signal.SIGINT)

class Elsewhere:
    # A sandbox in a loop of its own, as a service in another place would be.
    def __enter__(self):
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.sandbox = Sandbox(speed=200, seed=1)
        asyncio.run_coroutine_threadsafe(self.sandbox.start(), self.loop).result()
        return self.sandbox
    async def stop(self):
        await self.sandbox.stop()
        for _ in range(20):  # so that its transports finish before their loop ends
            await asyncio.sleep(0)
    def __exit__(self, *_):
        asyncio.run_coroutine_threadsafe(self.stop(), self.loop).result()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()
"""


def run(
    script: str, *flags: str, expect: int = 0, prelude: str = PRELUDE
) -> subprocess.CompletedProcess[str]:
    code = prelude + textwrap.dedent(script)
    done = subprocess.run(
        [sys.executable, *flags, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    assert done.returncode == expect, done.stdout + done.stderr
    return done


def test_one_client_in_two_loops_in_a_row_made_outside_any() -> None:
    """The second asyncio.run opens connections of its own; nothing warns, and the rate carries over."""
    done = run(
        """
        with Elsewhere() as sandbox:
            client = MusicAPI(sandbox.api_key, base_url=sandbox.base_url, clock=sandbox.clock)
            async def job():
                task = await client.sonic.create_music(mv="sonic-v6", prompt="la")
                return (await task.wait()).status
            print(asyncio.run(job()))
            print(asyncio.run(job()))
            asyncio.run(client.aclose())
            starts = [entry.at for entry in sandbox.journal.creates]
            assert starts[1] - starts[0] >= 3, starts
        """,
        "-W",
        "error",
    )
    assert done.stdout.split() == ["succeeded", "succeeded"]
    assert done.stderr == ""


def test_async_with_twice_on_one_client() -> None:
    """A closed client opens again with `async with`; a call on a closed one says what to do."""

    async def twice() -> None:
        async with Sandbox() as sandbox:
            client = sandbox.client()
            for _ in range(2):
                async with client:
                    assert (await client.credits()).total == 1000
            with pytest.raises(MusicAPIError, match="async with"):
                await client.credits()

    asyncio.run(twice())


async def test_wait_after_the_close_names_its_task() -> None:
    """A handle that outlives its `async with` says that its task is paid for, and how to resume it."""
    async with Sandbox() as sandbox:
        async with sandbox.client() as client:
            task = await client.sonic.create_music(mv="sonic-v6", prompt="[Verse]\nla")
        for late in (task.wait(), anext(task.updates()), task.refresh()):
            with pytest.raises(TaskError, match="already paid for") as caught:
                await late
            assert (caught.value.task_id, caught.value.family) == (task.task_id, "sonic")
            assert f"client.task({task.token!r})" in str(caught.value)
        assert len(sandbox.journal) == 1


async def test_call_that_is_repeated_after_the_close_opens_nothing() -> None:
    """A free call that waits for its next attempt when the client is closed ends with an error."""
    async with Sandbox() as sandbox:
        sandbox.faults.on("GET", "/get-credits", Fault.status(503))
        async with sandbox.client() as client:
            call = asyncio.ensure_future(client.credits())
            await until(lambda: len(sandbox.journal))
        with pytest.raises(MusicAPIError, match="the client was closed"):
            await call
        assert len(sandbox.journal) == 1


def test_entering_imports_what_the_first_calls_need(musicapi_sandbox: Sandbox) -> None:
    """aiohttp and the rest take a third of a second, and an event loop that serves others must not stop for that.

    A thread of the sandbox's own answers, so the process of the client has no other reason to import anything.
    """
    run(
        f"""
        import asyncio, sys
        from musicapi_async import Clock, MusicAPI

        async def main():
            assert "aiohttp" not in sys.modules
            client = MusicAPI(
                {musicapi_sandbox.api_key!r}, base_url={musicapi_sandbox.base_url!r}, clock=Clock({SANDBOX_SPEED})
            )
            async with client:
                entered = set(sys.modules)
                await client.credits()
                task = await client.sonic.create_music(mv="sonic-v6", gpt_description_prompt="calm")
                assert (await task).succeeded
                later = set(sys.modules) - entered
                assert not later, later

        asyncio.run(main())
        """,
        prelude="",
    )


def test_closing_twice_at_once_closes_once() -> None:
    """Whoever closes second waits until all is closed, too."""

    async def twice() -> None:
        async with Sandbox() as sandbox:
            client = sandbox.client()
            await client.credits()
            await asyncio.gather(client.aclose(), client.aclose())
            await client.aclose()

    asyncio.run(twice())


def test_closing_in_one_thread_leaves_the_loop_of_another_one_its_client() -> None:
    """With the last loop the client is closed, not before."""
    done = run(
        """
        with Elsewhere() as sandbox:
            client = MusicAPI(sandbox.api_key, base_url=sandbox.base_url)
            opened, closed = threading.Event(), threading.Event()
            async def other():
                await client.credits()
                opened.set()
                await asyncio.to_thread(closed.wait)
                print((await client.credits()).total)
                await client.aclose()
            async def main():
                await client.credits()
                await asyncio.to_thread(opened.wait)
                await client.aclose()
                closed.set()
            thread = threading.Thread(target=asyncio.run, args=[other()])
            thread.start()
            asyncio.run(main())
            thread.join()
            try:
                asyncio.run(client.credits())
            except Exception as error:
                print(error)
        """,
        "-W",
        "error",
    )
    assert done.stdout.startswith("1000.0\nthe client is closed")
    assert done.stderr == ""


def test_without_async_with_aclose_is_enough() -> None:
    """A client that is closed by hand leaves no warning."""
    done = run(
        """
        with Elsewhere() as sandbox:
            async def main():
                client = MusicAPI(sandbox.api_key, base_url=sandbox.base_url)
                print((await client.credits()).total)
                await client.aclose()
            asyncio.run(main())
        gc.collect()
        """,
        "-W",
        "error",
    )
    assert (done.stdout.strip(), done.stderr) == ("1000.0", "")


def test_forgetting_to_close_warns_once_and_names_the_line() -> None:
    """One ResourceWarning, at the line that made the client; aiohttp adds none of its own."""
    done = run(
        """
        with Elsewhere() as sandbox:
            async def main():
                client = MusicAPI(sandbox.api_key, base_url=sandbox.base_url)  # the line
                await client.credits()
                await client.with_options(max_retries=1).credits()
            asyncio.run(main())
        gc.collect()
        """,
        "-X",
        "dev",
    )
    warnings = [line for line in done.stderr.splitlines() if "Warning" in line]
    assert len(warnings) == 1, done.stderr
    line = 1 + next(
        number
        for number, text in enumerate((PRELUDE + "\nwith E\n").splitlines())
        if text.startswith("with E")
    )
    assert f"<string>:{line + 2} was never closed" in warnings[0]


def test_a_client_that_was_never_used_need_not_be_closed() -> None:
    """Nothing was opened, so nothing warns."""
    done = run("MusicAPI('key'); gc.collect()", "-W", "error")
    assert done.stderr == ""


def test_what_holds_a_client_is_not_pickled_and_says_why() -> None:
    """A client, a family, the inbox; a pool of processes gives no other hint. Options alone hold none."""
    client = MusicAPI("key")
    for held in (client, client.sonic, client.webhooks):
        for save in (pickle.dumps, copy.deepcopy):
            with pytest.raises(TypeError, match="make one per process"):
                save(held)
    assert pickle.loads(pickle.dumps(client.options)) == client.options


def test_with_instead_of_async_with_is_a_clear_error() -> None:
    """The error says what to write."""
    with pytest.raises(TypeError, match="async with MusicAPI"), MusicAPI("key"):
        pass


def test_ctrl_c_in_the_middle_of_a_create_still_learns_the_task_id() -> None:
    """The answer to a paid call that is under way is awaited for a moment, and the id reaches the log."""
    done = run(
        """
        import logging
        from musicapi_async.sandbox import Fault
        logging.basicConfig(format="%(message)s", level=logging.WARNING)
        with Elsewhere() as sandbox:
            sandbox.faults.on("POST", "/sonic/create", Fault.slow(100))  # half a real second
            async def main():
                async with MusicAPI(sandbox.api_key, base_url=sandbox.base_url, clock=sandbox.clock) as client:
                    interrupting = asyncio.create_task(interrupt_once_sent(sandbox))
                    await client.sonic.create_music(mv="sonic-v6", prompt="la")
            try:
                asyncio.run(main())
            except KeyboardInterrupt:
                print("interrupted")
            print(sandbox.journal.creates[0].task_id)
        """,
        "-W",
        "error",
    )
    interrupted, task_id = done.stdout.split()
    assert interrupted == "interrupted"
    assert task_id in done.stderr
    assert "accepted and continues" in done.stderr


def test_ctrl_c_in_the_middle_of_a_wait_ends_promptly_and_quietly() -> None:
    """Nothing hangs and nothing warns; the task goes on at the service."""
    done = run(
        """
        with Elsewhere() as sandbox:
            async def main():
                async with MusicAPI(sandbox.api_key, base_url=sandbox.base_url) as client:
                    task = await client.sonic.create_music(mv="sonic-v6", prompt="la")
                    asyncio.get_running_loop().call_later(0.1, os.kill, os.getpid(), signal.SIGINT)
                    await task.wait()
            try:
                asyncio.run(main())
            except KeyboardInterrupt:
                print("interrupted")
        """,
        "-W",
        "error",
    )
    assert (done.stdout.strip(), done.stderr) == ("interrupted", "")


def test_a_fork_opens_connections_of_its_own() -> None:
    """The child does not speak on its parent's connections and does not warn about them."""
    done = run(
        """
        with Elsewhere() as sandbox:
            client = MusicAPI(sandbox.api_key, base_url=sandbox.base_url)
            async def look():
                return (await client.credits()).total
            assert asyncio.run(look()) == 1000
            sys.stdout.flush()
            child = os.fork()
            if child == 0:
                assert asyncio.run(look()) == 1000
                asyncio.run(client.aclose())
                os._exit(0)
            _, status = os.waitpid(child, 0)
            assert asyncio.run(look()) == 1000
            asyncio.run(client.aclose())
            print(status)
        """,
        "-W",
        "ignore::DeprecationWarning",  # newer Pythons warn of forks beside threads
    )
    assert done.stdout.strip() == "0"
    assert done.stderr == ""


def test_a_session_of_the_callers_is_used_and_left_open() -> None:
    """Who opens a session closes it."""

    async def main() -> None:
        import aiohttp

        async with Sandbox() as sandbox, aiohttp.ClientSession() as session:
            async with sandbox.client(session=session) as client:
                await client.credits()
            assert not session.closed

    asyncio.run(main())


def test_keys_come_from_the_environment_and_bad_ones_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """MUSICAPI_KEY wins over MUSICAPI_API_KEY; 'Bearer ' and white space are refused without showing the key."""
    monkeypatch.delenv("MUSICAPI_KEY", raising=False)
    monkeypatch.delenv("MUSICAPI_API_KEY", raising=False)
    with pytest.raises(RequestValidationError, match="MUSICAPI_KEY"):
        MusicAPI()
    monkeypatch.setenv("MUSICAPI_API_KEY", "second")
    MusicAPI()
    monkeypatch.setenv("MUSICAPI_KEY", "Bearer first-secret")
    for make in (MusicAPI, lambda: MusicAPI("white space-secret"), lambda: MusicAPI("secret\n")):
        with pytest.raises(RequestValidationError) as caught:
            make()
        assert "secret" not in str(caught.value)


def test_no_trace_of_the_key_in_logs_or_reprs(caplog: pytest.LogCaptureFixture) -> None:
    """The key and the webhook secret appear nowhere, also when the server repeats them."""
    caplog.set_level("DEBUG")

    async def main() -> list[str]:
        from musicapi_async.sandbox import Fault

        said: list[str] = []
        async with Sandbox(api_key="key-that-nobody-may-see") as sandbox, sandbox.client() as client:
            echo = '{"error": "bad key key-that-nobody-may-see, secret hush-hush-hush-hush"}'
            sandbox.faults.on("POST", "/sonic/create", Fault.status(400, body=echo))
            try:
                await client.sonic.create_music(
                    mv="sonic-v6",
                    prompt="la",
                    webhook_url="https://app.example/hook",
                    webhook_secret="hush-hush-hush-hush",
                )
            except MusicAPIError as error:
                said += [str(error), repr(error), repr(vars(error))]
            said += [repr(client), repr(client.with_options(max_retries=1))]
        return said

    text = "\n".join(asyncio.run(main())) + caplog.text
    assert "bad key [hidden]" in text
    assert "key-that-nobody-may-see" not in text
    assert "hush-hush" not in text


def test_closing_the_client_while_a_create_is_under_way_tells_its_caller() -> None:
    """The caller gets an error that says whether money may have moved, not a cancellation."""

    async def main() -> None:
        from musicapi_async import APIConnectionError, OutcomeUnknownError
        from musicapi_async._transport import call
        from musicapi_async.sandbox import Fault

        async with Sandbox(speed=50) as sandbox:
            sandbox.faults.on("POST", "/sonic/create", Fault.slow(400))
            client = sandbox.client(rate_limit="1/1h")
            under_way = asyncio.create_task(client.sonic.create_music(mv="sonic-v6", prompt="la"))
            queued = asyncio.create_task(client.sonic.create_music(mv="sonic-v6", prompt="lo"))
            while not sandbox.journal.creates:  # noqa: ASYNC110 - the sandbox has no event for it
                await asyncio.sleep(0.01)
            await client.aclose()
            assert call.CLOSE_GRACE < 400 / 50
            with pytest.raises(OutcomeUnknownError, match="may have been charged"):
                await under_way
            with pytest.raises(APIConnectionError) as caught:
                await queued
            assert caught.value.sent is False

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(main())


def test_a_create_that_is_cancelled_at_once_sends_nothing_and_warns_of_nothing() -> None:
    """Cancelled before its first step, a create leaves no coroutine behind."""
    done = run(
        """
        with Elsewhere() as sandbox:
            async def main():
                async with MusicAPI(sandbox.api_key, base_url=sandbox.base_url) as client:
                    create = asyncio.create_task(client.sonic.create_music(mv="sonic-v6", prompt="la"))
                    for _ in range(3):
                        await asyncio.sleep(0)
                    create.cancel()
                    await asyncio.gather(create, return_exceptions=True)
            asyncio.run(main())
            print(len(sandbox.journal.creates))
        """,
        "-W",
        "error",
    )
    # The other end may complain of a connection that was dropped in the moment it was accepted.
    assert "never awaited" not in done.stderr
    assert "destroyed" not in done.stderr


async def test_waits_for_many_on_a_closed_client_name_each_task() -> None:
    """As the wait for one does: what has ended is returned, and the rest says how to resume it."""
    async with Sandbox(speed=400) as sandbox:
        async with sandbox.client(rate_limit=None) as client:
            done, *others = [
                await client.sonic.create_music(mv="sonic-v6", prompt="[Verse]\nla") for _ in range(3)
            ]
            clips = await done.wait()
        for ends in (
            await client.wait_all([done, *others], return_exceptions=True),
            [await ended(task) async for task in client.as_completed([done, *others])],
        ):
            assert ends[0] == clips
            for task, error in zip(others, ends[1:], strict=True):
                assert isinstance(error, TaskError)
                assert error.task_id == task.task_id
                assert task.token in str(error)
        with pytest.raises(TaskError, match=others[0].task_id):
            await client.wait_all(others)
        async with client:
            assert len(await client.wait_all([done, *others])) == 3
        assert len(sandbox.journal.creates) == 3


async def ended(task: Task[Clips]) -> Clips | MusicAPIError:
    """How a task ended."""
    try:
        return await task.wait()
    except MusicAPIError as error:
        return error
