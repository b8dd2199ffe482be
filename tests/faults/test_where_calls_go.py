"""The key goes to the base URL, protected, and nowhere else; the environment names proxies and no logins."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest
from test_secrets import server, whole

from musicapi_async import ConnectFailedError, MusicAPI, NotFoundError, RequestValidationError
from musicapi_async.sandbox import Sandbox


@pytest.mark.parametrize(
    "url",
    [
        "http://api.musicapi.ai/api/v1",
        "http://localhost.example/api",
        "http://127.0.0.1.example",
        "http://192.168.0.7:8000",
        "http://0.0.0.0:8000",
        "HTTP://api.musicapi.ai",
        "http://128.0.0.1",
        "http://a.localhost.example",
    ],
)
def test_http_beyond_this_machine_is_refused(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the argument and from the environment, before anything is sent."""
    with pytest.raises(RequestValidationError, match="https address, or http to this machine") as caught:
        MusicAPI("k", base_url=url)
    assert caught.value.field == "base_url"
    monkeypatch.setenv("MUSICAPI_BASE_URL", url)
    with pytest.raises(RequestValidationError, match="MUSICAPI_BASE_URL"):
        MusicAPI("k")


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost:1/a",
        "http://localhost.:1/a",
        "http://127.0.0.1:1",
        "http://127.8.9.10:1",
        "http://[::1]:1",
        "http://[::ffff:127.0.0.1]:1",
        "https://a.example",
        "https://a.example/v1..2/a;b",
    ],
)
def test_https_and_this_machine_are_taken(url: str) -> None:
    """As for webhooks."""
    assert MusicAPI("k", base_url=url).base_url == url


@pytest.mark.parametrize("end", ["?", "#", "/?", "?a=b", "#a", "?#"])
def test_a_base_url_that_paths_cannot_be_added_to_is_refused(end: str) -> None:
    """With `?` at its end every call, and the key, would go to the address before it."""
    with pytest.raises(RequestValidationError, match="base_url"):
        MusicAPI("k", base_url=f"https://a.example/v1{end}")


@pytest.mark.parametrize(
    "path",
    [
        "/api/../v1",
        "/..",
        "/./a",
        "/a/%2e%2e/b",
        "/a/.%2E/b",
        "/%252e%252e/a",
        "/a\\..\\b",
        "/a/..%2fb",
        "/a%2F..%2Fb",
        "/..%252f..",
        "/a/..%5cb",
        "/a/..;/b",
        "/a/..;v=1",
    ],
)
async def test_a_path_that_leads_elsewhere_is_refused(path: str) -> None:
    """In base URLs and in raw calls; a dot in a name is no such thing."""
    with pytest.raises(RequestValidationError, match="base_url"):
        MusicAPI("k", base_url="https://a.example" + path)
    async with Sandbox(speed=300) as sandbox, sandbox.client(rate_limit=None) as client:
        for method in ("GET", "POST"):
            with pytest.raises(RequestValidationError, match="path"):
                await client.request(method, path)
        assert len(sandbox.journal) == 0
    with pytest.raises(RequestValidationError, match="sonic_poll"):
        MusicAPI("k", sonic_poll="/a/../b/{task_id}")


@pytest.mark.parametrize(
    "task_id", ["..", ".", "../../get-credits", "a/../b", "%2e%2e", "..%2fa", "..\\a", "..;"]
)
async def test_an_id_that_leads_elsewhere_is_refused(task_id: str) -> None:
    """An id is percent-encoded, which a server in front may undo before it routes."""
    async with Sandbox(speed=300) as sandbox, sandbox.client(rate_limit=None) as client:
        with pytest.raises(RequestValidationError, match="task_id"):
            client.task("sonic", task_id)
        with pytest.raises(RequestValidationError, match="task_id"):
            client.task(f"musicapi:sonic:create_music:0:{quote(task_id, safe='')}")
        for family in (client.sonic, client.suno, client.producer):
            with pytest.raises(RequestValidationError, match="task_id"):
                await family.get_music(task_id)
        assert len(sandbox.journal) == 0
        for odd in ("a/b", "v1..2", "a.b", "a?b#c", "é"):
            with pytest.raises(NotFoundError):
                await client.sonic.get_music(odd)
        assert len(sandbox.journal) == 5


async def test_dots_that_lead_nowhere_are_taken() -> None:
    """A file's name, a version, a query."""
    seen: list[bytes] = []

    def reply(head: bytes) -> bytes:
        seen.append(head.split()[1])
        return whole("200 OK", b"{}")

    async with server(reply) as url, MusicAPI("k", base_url=f"{url}/v1..2/a.b", rate_limit=None) as client:
        await client.request("GET", "/..a/b..c/d.json?next=../x")
    assert seen == [b"/v1..2/a.b/..a/b..c/d.json?next=../x"]


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    """A `.netrc` with a login for every host, and variables."""
    (tmp_path / ".netrc").write_text("default login somebody password sesame\n", encoding="utf-8")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    for name in ("http_proxy", "https_proxy", "no_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)

    def set_variables(**variables: str) -> None:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return set_variables


@pytest.mark.parametrize("trust_env", [True, False])
async def test_a_netrc_is_never_read(
    trust_env: bool, environment: Callable[..., None], tmp_path: Path
) -> None:
    """Calls keep their own key, and hosts of files get no login."""
    heads: list[bytes] = []

    def reply(head: bytes) -> bytes:
        heads.append(head)
        if head.startswith(b"GET /a.mid"):
            return whole("200 OK", b"MThd\0\0\0\x06\0\0\0\x01\0\x60MTrk\0\0\0\x04\0\xff\x2f\0")
        return whole("200 OK", json.dumps({"message": "success", "task_id": "t"}).encode())

    async with (
        server(reply) as url,
        MusicAPI("k", base_url=url, rate_limit=None, trust_env=trust_env) as client,
    ):
        await client.sonic.create_music(mv="sonic-v6", prompt="la")
        (file,) = await client.download(f"{url}/a.mid", tmp_path / "out")
    assert file.suffix == ".mid"
    create, media = heads
    assert b"Authorization: Bearer k\r\n" in create
    assert b"authorization" not in media.lower()


async def test_proxy_of_the_environment_that_is_not_used_is_named(environment: Callable[..., None]) -> None:
    """Other clients use it by default, and the host is often out of reach without it."""
    environment(https_proxy="http://user:sesame@127.0.0.1:9")
    url = "https://api.music.invalid/api/v1"
    for options, text in (
        ({}, "The environment names a proxy, which is used only with MusicAPI(trust_env=True)."),
        ({"trust_env": True}, "the proxy 127.0.0.1:9: Connection refused. Check the proxy."),
        ({"proxy": "http://127.0.0.1:9"}, "the proxy 127.0.0.1:9: Connection refused. Check the proxy."),
    ):
        async with MusicAPI("k", base_url=url, max_retries=0, **options) as client:
            with pytest.raises(ConnectFailedError) as caught:
                await client.credits()
            assert text in str(caught.value)
            assert "sesame" not in str(caught.value)
    environment(no_proxy="*")
    async with MusicAPI("k", base_url=url, max_retries=0) as client:
        with pytest.raises(ConnectFailedError) as caught:
            await client.credits()
        assert "proxy" not in str(caught.value)


async def test_proxies_come_from_the_environment_with_their_logins(environment: Callable[..., None]) -> None:
    """For each address its own, and none where `no_proxy` says so; none at all without `trust_env`."""
    heads: list[bytes] = []

    def reply(head: bytes) -> bytes:
        heads.append(head)
        return whole("200 OK", b'{"data": {"credits": 1}}')

    async with server(reply) as proxy, server(reply) as url:
        environment(http_proxy=proxy.replace("//", "//user:pass%2Fword@"))
        for options, through in (({"trust_env": True}, True), ({}, False)):
            async with MusicAPI("k", base_url=url, max_retries=0, **options) as client:
                await client.request("GET", "/get-credits")
            first = heads.pop()
            assert (f"GET {url}/get-credits " in first.decode()) is through
            login = base64.b64encode(b"user:pass/word")
            assert (b"Proxy-Authorization: Basic " + login in first) is through
            assert b"Authorization: Bearer k\r\n" in first
        environment(no_proxy="127.0.0.1")
        async with MusicAPI("k", base_url=url, max_retries=0, trust_env=True) as client:
            await client.request("GET", "/get-credits")
        assert b"GET /get-credits " in heads.pop()
        environment(no_proxy="", http_proxy=proxy.removeprefix("http://"))
        async with MusicAPI("k", base_url=url, max_retries=0, trust_env=True) as client:
            await client.request("GET", "/get-credits")
        assert f"GET {url}/get-credits " in heads.pop().decode()
