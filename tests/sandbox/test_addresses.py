"""Under which addresses a sandbox is reached, by whom, and over TLS."""

from __future__ import annotations

import asyncio
import json
import ssl
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import trustme

from musicapi_async.sandbox import Sandbox

SONG = {"custom_mode": False, "mv": "sonic-v6", "gpt_description_prompt": "calm rain"}


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:{port}", 200),
        ("localhost:{port}", 200),
        ("[::1]:{port}", 200),
        ("music.localhost", 200),
        ("192.168.0.7:{port}", 200),
        ("tunnel.example", 200),
        ("TUNNEL.example:443", 200),
        ("rebound.attacker.example", 403),
        ("rebound.attacker.example:{port}", 403),
        ("localhost.attacker.example", 403),
        ("xlocalhost", 403),
        ("a[b", 403),
    ],
)
async def test_only_its_own_names_are_served(start, host, status):
    """A name of someone else that leads to this machine gets nothing: not the API, not a file, not the page."""
    api = await start(public_url="https://tunnel.example/music")
    port = api.sandbox.port
    headers = {"Host": host.format(port=port)}
    root = f"http://127.0.0.1:{port}"
    assert (await api.call("GET", f"{root}/api/v1/get-credits", headers=headers))[0] == status
    assert (await api.call("GET", f"{root}/", headers=headers))[0] == status
    control = f"{root}/_sandbox/openapi.json"
    assert (await api.call("GET", control, headers=headers))[0] == status
    media = await api.call("GET", f"{root}/media/x.mp3", headers=headers)
    assert media[0] == (404 if status == 200 else 403)


@pytest.mark.parametrize(
    ("headers", "api_status", "media_status"),
    [
        ({}, 200, 404),
        ({"Origin": "http://127.0.0.1:{port}"}, 200, 404),
        ({"Sec-Fetch-Site": "same-origin"}, 200, 404),
        ({"Sec-Fetch-Site": "none"}, 200, 404),
        ({"Origin": "https://attacker.example"}, 403, 403),
        ({"Origin": "http://127.0.0.1:1"}, 403, 403),
        ({"Origin": "null"}, 403, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403, 404),
        ({"Sec-Fetch-Site": "same-site"}, 403, 404),
    ],
)
async def test_pages_of_other_origins_get_nothing(start, headers, api_status, media_status):
    """A page elsewhere can show a file by its link, as it can with the service, and do nothing else."""
    api = await start()
    port = api.sandbox.port
    headers = {name: value.format(port=port) for name, value in headers.items()}
    assert (await api.call("POST", "/sonic/create", json=SONG, headers=headers))[0] == api_status
    assert api.sandbox.journal.charges == (20 if api_status == 200 else 0)
    root = f"http://127.0.0.1:{port}"
    assert (await api.call("GET", f"{root}/_sandbox/openapi.json", headers=headers))[0] == api_status
    assert (await api.call("GET", f"{root}/media/x.mp3", headers=headers))[0] == media_status
    assert "Access-Control-Allow-Origin" not in api.headers


async def test_page_has_a_policy(start):
    """Its own script and style, nothing from elsewhere, in no frame; and no token in it."""
    api = await start()
    status, page = await api.call("GET", api.sandbox.page_url.partition("#")[0], key=None)
    assert status == 200
    policy = api.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert api.sandbox.control_token.encode() not in page
    assert b"http://" not in page


async def test_public_url_is_in_links(start):
    """Base URL and links have it, and the sandbox itself still fetches its own files."""
    api = await start(public_url="https://tunnel.example/music/")
    assert api.sandbox.base_url == "https://tunnel.example/music/api/v1"
    api.sandbox.service.origin = "https://tunnel.example/music"
    local = f"http://127.0.0.1:{api.sandbox.port}/api/v1"
    _, reply = await api.call("POST", f"{local}/sonic/create", json=SONG)
    api.sandbox.forward(3600)
    _, body = await api.call("GET", f"{local}/sonic/task/{reply['task_id']}")
    link = body["data"][0]["audio_url"]
    assert link.startswith("https://tunnel.example/music/media/")
    assert (await api.call("POST", f"{local}/sonic/upload", json={"url": link}))[0] == 200


@pytest.mark.parametrize(
    "url",
    ["", "tunnel.example", "ftp://x", "http://", "http://u:p@x", "http://x?y", "http://x:port", "http://["],
)
def test_wrong_public_urls_are_refused(url):
    """What is no address of a server."""
    with pytest.raises(ValueError, match="public_url must be"):
        Sandbox(public_url=url)


async def test_made_certificate():
    """A client of the sandbox trusts it, others with its file; without that no connection comes about."""
    async with Sandbox(tls=True, speed=1000) as box, box.client() as client:
        assert box.base_url.startswith("https://127.0.0.1:")
        assert (await client.credits()).total == 1000
        task = await client.sonic.create_music(mv="sonic-v6", gpt_description_prompt="rain", duration=10)
        clips = await task.wait()
        link = clips[0].final_url
        assert link is not None
        assert link.startswith("https://")
        assert await client.sonic.upload(link)
        file = box.ca_file
        assert file is not None

        def read(context: ssl.SSLContext) -> int:
            request = urllib.request.Request(box.base_url + "/get-credits")
            request.add_header("Authorization", f"Bearer {box.api_key}")
            with urllib.request.urlopen(request, context=context) as reply:
                return int(json.load(reply)["credits"])

        assert await asyncio.to_thread(read, ssl.create_default_context(cafile=str(file))) < 1000
        with pytest.raises(urllib.error.URLError, match="CERTIFICATE_VERIFY_FAILED"):
            await asyncio.to_thread(read, ssl.create_default_context())
    assert not file.exists()


async def test_given_certificate(tmp_path: Path):
    """The PEM files of a certificate and its key; a file that is not there, or is another, is an error with its name."""
    authority = trustme.CA()
    made = authority.issue_cert("localhost", "127.0.0.1")
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    chain.write_bytes(b"".join(part.bytes() for part in made.cert_chain_pems))
    key.write_bytes(made.private_key_pem.bytes())
    context = ssl.create_default_context()
    authority.configure_trust(context)
    async with Sandbox(tls=(chain, key)) as box, box.client(ssl=context) as client:
        assert box.ca_file is None
        assert (await client.credits()).total == 1000
    broken = Sandbox(tls=(tmp_path / "none.pem", key))
    with pytest.raises(ValueError, match=r"none\.pem.*cannot be used: No such file"):
        await broken.start()
    swapped = Sandbox(tls=(key, chain))
    with pytest.raises(ValueError, match="cannot be used"):
        await swapped.start()


async def test_other_ports_of_this_machine_only_if_allowed(start, caplog):
    """Where they are not, a create succeeds, an upload says what to do, and the journal has what was skipped.

    One line of the log says it, since who waits for a webhook may not look into the journal.
    """
    arrived: list[object] = []
    server = await asyncio.start_server(lambda *streams: arrived.append(streams), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    api = await start(local_ports=False)
    journal = api.sandbox.journal
    task_id = await api.submit(body={**SONG, "webhook_url": f"http://127.0.0.1:{port}/hook"})
    clips = await api.finished(task_id)
    await asyncio.sleep(1)
    assert [(entry.event, entry.fault, entry.status) for entry in journal.webhooks] == [
        ("song.streaming", "not_allowed", 0),
        ("song.completed", "not_allowed", 0),
    ]
    assert journal.webhooks[1].body["task_id"] == task_id  # type: ignore[index]
    (skipped,) = caplog.messages
    assert skipped.startswith(f"webhooks to http://127.0.0.1:{port} are skipped")
    assert skipped.endswith("--local-ports")
    for url, advice in (
        (f"http://localhost:{port}/a.mp3", "only if it is started with --local-ports."),
        ("https://files.example/a.mp3", "from this machine only."),
    ):
        status, reply = await api.post("/sonic/upload", {"url": url})
        assert (status, reply["type"], reply["error"].endswith(advice)) == (400, "validation_error", True)
        assert (journal[-1].fault, journal[-1].charge) == ("not_allowed", 0)
    assert arrived == []
    server.close()
    own = clips[0]["audio_url"].replace("127.0.0.1", "localhost")
    assert (await api.post("/sonic/upload", {"url": own}))[0] == 200


@pytest.mark.parametrize(("host", "name"), [("0.0.0.0", "127.0.0.1"), ("127.0.0.2", "127.0.0.2")])
async def test_address_to_listen_on(start, host, name):
    """Links of a sandbox that listens everywhere have an address that can be opened; its own files are uploads."""
    api = await start(host=host, local_ports=False)
    assert api.sandbox.base_url.startswith(f"http://{name}:")
    clip = await api.song()
    assert (await api.post("/sonic/upload", {"url": clip["audio_url"]}))[0] == 200


@pytest.mark.parametrize("path", ["/sonic/create", "/robots.txt"])
async def test_path_without_the_root_says_where_the_api_is(start, path):
    """A base URL without its end is the first mistake of a user; the journal has it under "other"."""
    api = await start()
    status, text = await api.call("POST", f"http://127.0.0.1:{api.sandbox.port}{path}")
    assert (status, b"the API is below /api/v1" in text) == (404, True)
    assert api.sandbox.journal[-1].kind == "other"
