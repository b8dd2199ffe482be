"""Hosts of files as they are found: signed links, packed bodies, broken ends, refusals, and private addresses."""

from __future__ import annotations

import asyncio
import gzip
import os
import socket
import zlib
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from musicapi_async import Clip, DownloadError, MusicAPI, RequestValidationError
from musicapi_async.sandbox import media_files
from musicapi_async.sandbox.composer import Brief, compose
from musicapi_async.testing.virtual import VirtualTimeLoop

GIB = 1024**3
SOUND = (np.sin(np.arange(5 * 48_000) / 20)[:, None] * [0.5, 0.3]).astype(np.float32)
MP3 = media_files.to_mp3(media_files.encode(SOUND), title="Rain", artist="A", tags="pop", lyrics="la")
SECONDS = len(SOUND) / 48_000
MONDAY, TUESDAY = "Mon, 02 Nov 2026 10:00:00 GMT", "Tue, 03 Nov 2026 10:00:00 GMT"


class Internet(VirtualTimeLoop):
    """Waiting takes no time; names and public addresses are what a test says, and lead to local servers."""

    def __init__(self) -> None:
        super().__init__()
        self.names: dict[str, list[str]] = {}
        self.ports: dict[str, int] = {}
        self.connected: list[str] = []

    async def getaddrinfo(self, host: Any, port: Any, **options: Any) -> Any:
        """A name with several addresses has the next one at each look, the last one for ever."""
        if host not in self.names:
            return await super().getaddrinfo(host, port, **options)
        known = self.names[host]
        address = known.pop(0) if len(known) > 1 else known[0]
        if ":" in address:
            return [(socket.AF_INET6, socket.SOCK_STREAM, 6, "", (address, port, 0, 0))]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    async def sock_connect(self, sock: socket.socket, address: Any) -> None:
        """Public addresses are those of local servers."""
        self.connected.append(address[0])
        if address[0] in self.ports:
            address = ("127.0.0.1", self.ports[address[0]])
        await super().sock_connect(sock, address)


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """Waiting takes no time."""
    return "asyncio", {"loop_factory": Internet}


def internet() -> Internet:
    """The running loop."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, Internet)
    return loop


class Request:
    """The head of a request, as it came."""

    def __init__(self, head: bytes) -> None:
        first, *lines = head.decode("latin-1").split("\r\n")
        self.target = first.split(" ")[1]
        self.path = self.target.partition("?")[0]
        self.headers = {
            name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)
        }

    @property
    def start(self) -> int:
        """The first byte that is wanted."""
        return int(self.headers.get("range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))


def reply(status: int = 200, body: bytes = b"", /, *, length: bool = True, **headers: str) -> bytes:
    """A response; without a length it ends with the connection. `_` in names of headers is `-`."""
    lines = [f"HTTP/1.1 {status} X", "Connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    lines += [f"Content-Length: {len(body)}"] if length else []
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def chunked(body: bytes) -> bytes:
    """A response in chunks, in good order, of whatever its body is a part."""
    return (
        reply(length=False, Transfer_Encoding="chunked")
        + f"{len(body):x}\r\n".encode()
        + body
        + b"\r\n0\r\n\r\n"
    )


class Host:
    """Sends bytes as `answer` gives them for a request, and closes."""

    def __init__(self) -> None:
        self.answer: Callable[[Request], bytes] = lambda _: reply(200, MP3)
        self.asked: list[Request] = []
        self.url = ""
        self.port = 0

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request for each connection."""
        try:
            request = Request(await reader.readuntil(b"\r\n\r\n"))
            self.asked.append(request)
            writer.write(self.answer(request))
            await writer.drain()
            await asyncio.sleep(0.05)  # what came is read before the end is seen
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@pytest.fixture
async def host() -> AsyncIterator[Host]:
    """A running host."""
    host = Host()
    server = await asyncio.start_server(host.talk, "127.0.0.1", 0)
    host.port = server.sockets[0].getsockname()[1]
    host.url = f"http://127.0.0.1:{host.port}"
    yield host
    server.close()


@pytest.fixture
async def client(host: Host) -> AsyncIterator[MusicAPI]:
    """A client that fetches from it."""
    async with MusicAPI("key", base_url=host.url) as client:
        yield client


def song(host: Host, duration: float | None = None) -> Clip:
    """A finished clip."""
    return Clip(clip_id="a", state="succeeded", audio_url=f"{host.url}/a.mp3", duration=duration)


def inside(folder: Path) -> list[str]:
    """What is in a folder, which need not be there."""
    return sorted(path.name for path in folder.glob("*"))


async def error_of(client: MusicAPI, files: Any, folder: Path) -> DownloadError:
    """The error of a download, which leaves nothing."""
    with pytest.raises(DownloadError) as caught:
        await client.download(files, folder)
    assert inside(folder) == []
    return caught.value


# --- links -------------------------------------------------------------------------------------------------

SIGNED = [
    "/a.mp3?Signature=a%2Fb%3D&Expires=1&x=%7E%40%3A+%20",
    "/a%27%28b%29%2f%2Fc;v=1,2/x.mp3?q=%e4&=&&a[]='(*)'",
    "/a//b/./../x.mp3?next=http://h/?x",
]


@pytest.mark.parametrize("redirected", [False, True])
@pytest.mark.parametrize("target", SIGNED)
async def test_links_are_sent_byte_for_byte(
    host: Host, client: MusicAPI, tmp_path: Path, target: str, redirected: bool
) -> None:
    """A signature covers every byte, in a link and in what it redirects to."""
    if redirected:
        host.answer = lambda request: (
            reply(302, Location=target) if request.target == "/first" else reply(200, MP3)
        )
        if "/../" in target:  # a relative target is resolved (RFC 3986, 5.2); a whole one is as it came
            host.answer = lambda request: (
                reply(302, Location=host.url + target) if request.target == "/first" else reply(200, MP3)
            )
    await client.download(host.url + ("/first" if redirected else target), tmp_path)
    assert host.asked[-1].target == target
    assert all(request.headers.get("authorization") is None for request in host.asked)


async def test_what_no_request_can_hold_is_encoded(host: Host, client: MusicAPI, tmp_path: Path) -> None:
    """Spaces, letters beyond ASCII and control characters; a redirect's bytes that are no UTF-8, too."""
    await client.download(f"{host.url}/a b/ü\x07%2F.mp3?q=é d", tmp_path)
    assert host.asked[-1].target == "/a%20b/%C3%BC%07%2F.mp3?q=%C3%A9%20d"
    host.answer = lambda request: (
        reply(301, Location="/\xfc.mp3") if request.target == "/first" else reply(200, MP3)
    )
    await client.download(f"{host.url}/first", tmp_path)
    assert host.asked[-1].target == "/%FC.mp3"


MALFORMED = [
    "http://a..b/x.mp3",
    f"http://{'a' * 64}.example/x.mp3",
    "http://h:99999/x.mp3",
    "http://[::1/x.mp3",
    "http:///x.mp3",
    "http://\ud83d.example/x.mp3",
    "http://h/\ud83d.mp3",
    "http://good.example\\@evil.example/x.mp3",
    "ftp://h/x.mp3",
    "file:///etc/passwd",
    "x.mp3",
    "",
]


@pytest.mark.parametrize("link", MALFORMED)
async def test_a_malformed_link_is_a_download_error(client: MusicAPI, tmp_path: Path, link: str) -> None:
    """Never a bare error of a codec, which would stop everything around it."""
    error = await error_of(client, link, tmp_path)
    assert "not a link that can be fetched" in str(error)


@pytest.mark.parametrize("place", ["", "http://a..b", "http://127.0.0.1:1"])
async def test_an_error_text_cannot_steer_a_terminal(
    host: Host, client: MusicAPI, tmp_path: Path, place: str
) -> None:
    """A link comes from a server; its control characters and directions of writing are escaped."""
    host.answer = lambda _: reply(404)
    told = str(await error_of(client, f"{place or host.url}/\x1b]0;a\x07\u202eb.mp3", tmp_path))
    assert told.isprintable()
    assert "/\\x1b]0;a\\x07\\u202eb.mp3" in told


async def test_a_malformed_link_stops_no_other_file(host: Host, client: MusicAPI, tmp_path: Path) -> None:
    """The other files of a call are in place when the error comes."""
    with pytest.raises(DownloadError):
        await client.download(["http://a..b/x.mp3", f"{host.url}/a.mp3"], tmp_path)
    assert os.listdir(tmp_path) == ["a.mp3"]


@pytest.mark.parametrize("target", ["http://a..b/x", "ftp://h/x", "http://[::1/", "file:///etc/passwd"])
async def test_a_redirect_to_what_is_no_link_is_a_download_error(
    host: Host, client: MusicAPI, tmp_path: Path, target: str
) -> None:
    """At once, as it will not change."""
    host.answer = lambda _: reply(302, Location=f"{target}?Signature=secret")
    error = await error_of(client, f"{host.url}/a.mp3", tmp_path)
    assert "redirected to a link that cannot be fetched" in str(error)
    assert "secret" not in str(error)
    assert len(host.asked) == 1


async def test_redirects_in_a_circle_end(host: Host, client: MusicAPI, tmp_path: Path) -> None:
    """After five."""
    host.answer = lambda _: reply(307, Location="/a.mp3")
    assert "more than 5 redirects" in str(await error_of(client, f"{host.url}/a.mp3", tmp_path))
    assert len(host.asked) == 6


# --- packed bodies -----------------------------------------------------------------------------------------


def bare_deflate(data: bytes) -> bytes:
    """Deflate without the zlib header, as some hosts send it."""
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


PACKERS: Mapping[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", gzip.compress),
    "gzip in two members and padding": (
        "x-gzip",
        lambda data: gzip.compress(data[:9000]) + gzip.compress(data[9000:]) + b"\0\0",
    ),
    "zlib": ("deflate", zlib.compress),
    "bare deflate": ("identity, deflate", bare_deflate),
}


@pytest.mark.parametrize("length", [True, False])
@pytest.mark.parametrize("packer", PACKERS)
async def test_a_packed_body_arrives_whole(
    host: Host, client: MusicAPI, tmp_path: Path, packer: str, length: bool
) -> None:
    """Although the length counts packed bytes; with long runs, which unpack to much more than came."""
    word, pack = PACKERS[packer]
    wav = media_files.to_wav(np.zeros((2_000_000, 2), np.float32))
    for number, body in enumerate((MP3, wav)):
        packed = pack(body)
        host.answer = lambda _, packed=packed: reply(200, packed, length=length, Content_Encoding=word)
        (path,) = await client.download(f"{host.url}/{number}", tmp_path)
        assert path.read_bytes() == body


@pytest.mark.parametrize("length", [True, False])
async def test_a_packed_body_that_is_cut_or_damaged_is_not_saved(
    host: Host, client: MusicAPI, tmp_path: Path, length: bool
) -> None:
    """Its own end, and its checksum, tell."""
    packed = gzip.compress(MP3)
    for body, why in ((packed[:-9000], "cut off"), (packed[:-8] + bytes(8), "damaged")):
        host.answer = lambda _, body=body: reply(
            200, body, length=length, Content_Encoding="gzip", ETag='"one"'
        )
        assert why in str(await error_of(client, f"{host.url}/a.mp3", tmp_path))


@pytest.mark.parametrize("word", ["binary", "utf-8", "aws-chunked", "none", "gzip", "identity, x-gzip"])
async def test_a_label_that_is_no_packing_is_not_believed(
    host: Host, client: MusicAPI, tmp_path: Path, word: str
) -> None:
    """Files are stored with wrong labels, and players take them."""
    host.answer = lambda _: reply(200, MP3, Content_Encoding=word)
    (path,) = await client.download(song(host), tmp_path)
    assert path.read_bytes() == MP3


async def test_a_packing_that_is_unknown_is_named(host: Host, client: MusicAPI, tmp_path: Path) -> None:
    """Nothing packed is saved as if it were the file."""
    host.answer = lambda _: reply(200, b"\x0b" * 500, Content_Encoding="br")
    assert "packed as 'br'" in str(await error_of(client, f"{host.url}/a.mp3", tmp_path))


# --- ends --------------------------------------------------------------------------------------------------


def frames_of(data: bytes) -> list[int]:
    """Where the frames of an MP3 of this encoder begin: all have one length, but for a byte of padding."""
    mark = data.index(b"\xff\xfb")
    found = []
    while mark < len(data) and data[mark : mark + 2] == b"\xff\xfb":
        found.append(mark)
        bits = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)[data[mark + 2] >> 4]
        hertz = (44_100, 48_000, 32_000)[data[mark + 2] >> 2 & 3]
        mark += 144_000 * bits // hertz + (data[mark + 2] >> 1 & 1)
    return found


@pytest.mark.parametrize("send", [chunked, lambda body: reply(200, body, length=False)])
async def test_a_cut_mp3_without_a_length_is_not_saved(
    host: Host, client: MusicAPI, tmp_path: Path, send: Callable[[bytes], bytes]
) -> None:
    """Within a frame, within a header, or between frames, where only the clip's duration tells."""
    frames = frames_of(MP3)
    cuts = {
        "its last frame lacks": len(MP3) - 100,
        "its last frame has no header": frames[-1] + 2,
        "the clip has 5.0 s": frames[len(frames) // 2],
    }
    for why, cut in cuts.items():
        host.asked = []
        host.answer = lambda _, cut=cut: send(MP3[:cut])
        error = await error_of(client, song(host, SECONDS), tmp_path)
        assert "it is cut off" in str(error)
        assert why in str(error)
        assert len(host.asked) == 6
    for number, tail in enumerate((b"", b"TAG" + bytes(125), bytes(500), b"APETAGEX" + b"\xff\xfb" * 99)):
        host.answer = lambda _, tail=tail: send(MP3 + tail)
        (path,) = await client.download(song(host, SECONDS), tmp_path / str(number))
        assert path.read_bytes() == MP3 + tail


async def test_a_cut_file_of_any_format_without_a_length_is_not_saved(
    host: Host, client: MusicAPI, tmp_path: Path
) -> None:
    """WAV, M4A and MIDI say how long they are; the sandbox's own encoders write them."""
    files = {
        "wav": media_files.to_wav(SOUND),
        "m4a": media_files.to_m4a(MP3, len(SOUND)),
        "mid": media_files.to_midi(compose(Brief(seed=1, duration=4))),
    }
    for kind, body in files.items():
        host.answer = lambda _, body=body: reply(200, body[: len(body) * 2 // 3], length=False)
        await error_of(client, f"{host.url}/a.{kind}", tmp_path / kind)
        host.answer = lambda _, body=body: reply(200, body, length=False)
        (path,) = await client.download(f"{host.url}/a.{kind}", tmp_path / kind)
        assert path.read_bytes() == body


# --- what is continued -------------------------------------------------------------------------------------

OTHER = media_files.to_mp3(
    media_files.encode(SOUND[::-1]), title="Rain", artist="A", tags="pop", lyrics="la"
)[: len(MP3)]
OTHER += bytes(len(MP3) - len(OTHER))


def half(**headers: str) -> Callable[[Request], bytes]:
    """The length of a whole file, and half of it."""
    return lambda _: reply(200, MP3, **headers)[: -len(MP3) // 2]


def rest(body: bytes, **headers: str) -> Callable[[Request], bytes]:
    """A host that continues a file wherever it is asked to, without a look at conditions."""

    def answer(request: Request) -> bytes:
        start, size = request.start, len(body)
        said = f"bytes {start}-{size - 1}/{size}"
        return (
            reply(206, body[start:], Content_Range=said, **headers) if start else reply(200, body, **headers)
        )

    return answer


async def started(host: Host, client: MusicAPI, folder: Path, **headers: str) -> None:
    """Half of a file has come."""
    host.answer = half(**headers)
    with pytest.raises(DownloadError):
        await client.download(song(host), folder)
    host.asked = []


VALIDATORS: Mapping[str, tuple[dict[str, str], dict[str, str], bool]] = {
    "the same tag": ({"ETag": '"1"'}, {"ETag": '"1"'}, True),
    "the same tag, other times": (
        {"ETag": '"1"', "Last_Modified": MONDAY},
        {"ETag": '"1"', "Last_Modified": TUESDAY},
        True,
    ),
    "the same time": ({"Last_Modified": MONDAY}, {"Last_Modified": MONDAY}, True),
    "the same weak tag and time": (
        {"ETag": 'W/"1"', "Last_Modified": MONDAY},
        {"ETag": 'W/"1"', "Last_Modified": MONDAY},
        True,
    ),
    "another tag": ({"ETag": '"1"'}, {"ETag": '"2"'}, False),
    "another tag, the same time": (
        {"ETag": '"1"', "Last_Modified": MONDAY},
        {"ETag": '"2"', "Last_Modified": MONDAY},
        False,
    ),
    "another weak tag, the same time": (
        {"ETag": 'W/"1"', "Last_Modified": MONDAY},
        {"ETag": 'W/"2"', "Last_Modified": MONDAY},
        False,
    ),
    "another time": ({"Last_Modified": MONDAY}, {"Last_Modified": TUESDAY}, False),
    "the same weak tag": ({"ETag": 'W/"1"'}, {"ETag": 'W/"1"'}, False),
    "a tag that is not repeated": ({"ETag": '"1"'}, {}, False),
    "no validator": ({}, {}, False),
    "a time that is none": ({"Last_Modified": "today"}, {"Last_Modified": "today"}, False),
    "the second in which it was sent": (
        {"Last_Modified": MONDAY, "Date": MONDAY},
        {"Last_Modified": MONDAY, "Date": TUESDAY},
        False,
    ),
}


@pytest.mark.parametrize("case", VALIDATORS)
async def test_only_a_validator_that_agrees_continues_a_file(
    host: Host, client: MusicAPI, tmp_path: Path, case: str
) -> None:
    """Of a host that continues whatever is asked for: else another file of one length would be spliced in."""
    before, after, continued = VALIDATORS[case]
    await started(host, client, tmp_path, **before)
    host.answer = rest(MP3 if continued else OTHER, **after)
    (path,) = await client.download(song(host), tmp_path)
    assert path.read_bytes() == (MP3 if continued else OTHER)
    assert os.listdir(tmp_path) == [path.name]
    if continued:
        (request,) = host.asked
        wanted = before["ETag"] if before.get("ETag", "W").startswith('"') else MONDAY
        assert request.headers["if-range"] == wanted
    else:
        assert "range" not in host.asked[-1].headers


async def test_what_cannot_be_continued_is_not_kept(host: Host, client: MusicAPI, tmp_path: Path) -> None:
    """A partial file without a validator is of no use to a later call."""
    host.answer = half()
    await error_of(client, song(host), tmp_path)
    await started(host, client, tmp_path, ETag='"1"')
    assert sorted(os.listdir(tmp_path)) == ["a.mp3.part", "a.mp3.source.part"]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 410, 416, 418])
async def test_a_partial_file_that_the_server_refuses_to_continue_is_dropped(
    host: Host, client: MusicAPI, tmp_path: Path, status: int
) -> None:
    """Then the whole file is asked for; today's refusal must not be that of every later call."""
    await started(host, client, tmp_path, ETag='"1"')
    host.answer = lambda request: reply(status) if request.start else reply(200, MP3)
    (path,) = await client.download(song(host), tmp_path)
    assert path.read_bytes() == MP3
    assert [request.start > 0 for request in host.asked] == [True, False]


@pytest.mark.parametrize("said", ["", "bytes 0-9/10", "bytes */10", "lines 1-2/3"])
async def test_another_part_than_asked_for_drops_what_has_come(
    host: Host, client: MusicAPI, tmp_path: Path, said: str
) -> None:
    """The next request is for the whole file."""
    await started(host, client, tmp_path, ETag='"1"')
    host.answer = lambda request: (
        reply(206, MP3, ETag='"1"', Content_Range=said) if request.start else reply(200, MP3)
    )
    (path,) = await client.download(song(host), tmp_path)
    assert path.read_bytes() == MP3
    assert [request.start > 0 for request in host.asked] == [True, False]


async def test_a_server_in_trouble_costs_no_partial_file(
    host: Host, client: MusicAPI, tmp_path: Path
) -> None:
    """What is there is continued once it answers again."""
    await started(host, client, tmp_path, ETag='"1"')
    statuses = [503, 429]
    continues = rest(MP3, ETag='"1"')
    host.answer = lambda request: reply(statuses.pop()) if statuses else continues(request)
    (path,) = await client.download(song(host), tmp_path)
    assert path.read_bytes() == MP3
    assert all(request.start for request in host.asked)


async def test_a_partial_file_over_the_size_limit_is_deleted(
    host: Host, client: MusicAPI, tmp_path: Path
) -> None:
    """One that is there, one that grows over it, and one whose host says that it will."""
    part = tmp_path / "a.mp3.part"
    await started(host, client, tmp_path, ETag='"1"')
    os.truncate(part, GIB + 1)
    host.answer = rest(MP3, ETag='"1"')
    await client.download(song(host), tmp_path)
    assert "range" not in host.asked[0].headers
    folder = tmp_path / "grows"
    await started(host, client, folder, ETag='"1"')
    note = folder / "a.mp3.source.part"
    note.write_bytes(note.read_bytes().replace(str(len(MP3)).encode(), b"null"))
    os.truncate(folder / part.name, GIB - 10)
    host.answer = lambda request: reply(
        206, MP3, length=False, ETag='"1"', Content_Range=f"bytes {request.start}-{GIB + 99}/*"
    )
    assert f"more than {GIB} bytes came" in str(await error_of(client, song(host), folder))
    host.answer = lambda _: reply(200, ETag='"1"', length=False, Content_Length=str(GIB + 1))
    assert f"more than {GIB}" in str(await error_of(client, song(host), folder))


# --- refusals ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [500, 501, 502, 503, 504, 507, 520, 525, 530, 599])
async def test_every_5xx_is_retried(host: Host, client: MusicAPI, tmp_path: Path, status: int) -> None:
    """The codes of CDNs, too."""
    statuses = [status, status]
    host.answer = lambda _: reply(statuses.pop()) if statuses else reply(200, MP3)
    (path,) = await client.download(song(host), tmp_path)
    assert path.read_bytes() == MP3
    assert len(host.asked) == 3


@pytest.mark.parametrize(
    ("status", "retry_after", "least", "most"),
    [
        (429, "20", 20, 21),
        (503, "20", 20, 21),
        (429, "3600", 60, 61),
        (503, "soon", 1.5, 2.5),
        (404, "20", 1.5, 2.5),
    ],
)
async def test_retry_after_is_the_least_pause(
    host: Host, client: MusicAPI, tmp_path: Path, status: int, retry_after: str, least: float, most: float
) -> None:
    """A host that names seconds is obeyed, for at most a minute; a word, or a file that is late, changes nothing."""
    requests: list[float] = []

    def answer(_: Request) -> bytes:
        requests.append(asyncio.get_running_loop().time())
        return reply(status, Retry_After=retry_after) if len(requests) == 1 else reply(200, MP3)

    host.answer = answer
    (path,) = await client.download(song(host), tmp_path)
    assert path.read_bytes() == MP3
    assert least <= requests[1] - requests[0] <= most


XML = b'<?xml version="1.0"?>\n<Error><Code>ExpiredToken</Code><Message>Too late</Message></Error>'
BODIES = [
    (b"Signature expired at noon.\nid 7", "Signature expired at noon."),
    (XML, "ExpiredToken"),
    (b"<!DOCTYPE html><html><style>a{}</style><title>No hotlinks</title>", "No hotlinks"),
    (b"\n\n  a\x1b[31mb\xe2\x80\xaec  \n", "a [31mb c"),
    (b"x" * 100_000, "x" * 199 + "…"),
]


@pytest.mark.parametrize(("body", "line"), BODIES)
@pytest.mark.parametrize("status", [400, 403, 500, 200])
async def test_an_error_shows_the_first_line_of_its_body(
    host: Host, client: MusicAPI, tmp_path: Path, status: int, body: bytes, line: str
) -> None:
    """Readable, short, and of one line; packed bodies and those with an untrue status, too."""
    if status == 200:
        line = line.replace("x…", "x").rstrip("x")
        body = body.replace(b"\x1b", b" ").replace(b"\xe2\x80\xae", b" ")
    for headers, sent in ({}, body), ({"Content_Encoding": "gzip"}, gzip.compress(body)):
        host.answer = lambda _, headers=headers, sent=sent: reply(status, sent, **headers)
        error = await error_of(client, f"{host.url}/a.mp3", tmp_path)
        assert line in str(error)
        assert "\x1b" not in str(error)
        assert "id 7" not in str(error)


@pytest.mark.parametrize(
    ("name", "ending"),
    [
        ("a.php", "bin"),
        ("a.exe", "bin"),
        ("a.html", "bin"),
        ("a", "bin"),
        ("a.png", "png"),
        ("a.webp", "webp"),
    ],
)
async def test_endings_come_from_a_known_list(
    host: Host, client: MusicAPI, tmp_path: Path, name: str, ending: str
) -> None:
    """A host does not choose that a file is a program or a page."""
    data = b"\x00\x01\x02\x03" * 100
    host.answer = lambda _: reply(200, data)
    clip = Clip(clip_id="a", state="succeeded", audio_url=f"{host.url}/{name}")
    for _ in range(2):
        (path,) = await client.download(clip, tmp_path, name="{clip_id}")
        assert (path.name, path.read_bytes()) == (f"a.{ending}", data)
    assert len(host.asked) == 1


async def test_the_home_folder_is_meant_by_a_tilde(
    host: Host, client: MusicAPI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a shell; no folder of that name is made."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    (path,) = await client.download(song(host), "~/songs")
    assert path == tmp_path / "home/songs/a.mp3"
    assert os.listdir(tmp_path) == ["home"]


# --- links on the disk -------------------------------------------------------------------------------------


@pytest.mark.skipif(os.name == "nt", reason="links and pipes are those of POSIX")
@pytest.mark.parametrize("name", ["a.mp3.part", "a.mp3.source.part"])
@pytest.mark.parametrize("kind", ["symbolic", "dangling", "hard", "pipe"])
@pytest.mark.parametrize("continued", [False, True])
async def test_partial_files_and_notes_are_no_way_to_other_files(
    host: Host, client: MusicAPI, tmp_path: Path, name: str, kind: str, continued: bool
) -> None:
    """What is planted in a folder is removed, never opened; the file that it leads to is as it was."""
    folder = tmp_path / "out"
    folder.mkdir()
    if continued:
        await started(host, client, folder, ETag='"1"')
    planted, victim = folder / name, tmp_path / "victim"
    victim.write_bytes(planted.read_bytes() if continued else b"precious")
    before = victim.read_bytes()
    planted.unlink(missing_ok=True)
    match kind:
        case "symbolic":
            planted.symlink_to(victim)
        case "dangling":
            planted.symlink_to(tmp_path / "new")
        case "hard":
            os.link(victim, planted)
        case _:
            os.mkfifo(planted)
    host.answer = rest(MP3, ETag='"1"')
    (path,) = await client.download(song(host), folder)
    assert path.read_bytes() == MP3
    assert not path.is_symlink()
    assert victim.read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == ["out", "victim"]
    assert os.listdir(folder) == ["a.mp3"]


# --- private addresses -------------------------------------------------------------------------------------

PUBLIC = "93.184.215.14"
PRIVATE = [
    "127.0.0.1",
    "127.1",
    "2130706433",
    "0x7f000001",
    "0177.0.0.1",
    "127.0.0.1.",
    "localhost",
    "localhost.",
    "LOCALHOST",
    "0.0.0.0",
    "[::1]",
    "[::]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::127.0.0.1]",
    "[64:ff9b::7f00:1]",
    "[2002:7f00:1::]",
    "[fe80::1]",
    "[fec0::1]",
    "[fd00::1]",
    "[ff02::1]",
    "10.0.0.1",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "224.0.0.1",
    "255.255.255.255",
]


@pytest.fixture
async def guarded(host: Host) -> AsyncIterator[MusicAPI]:
    """The client of a back end; `public.example` and a public address are the host."""
    loop = internet()
    loop.ports = {PUBLIC: host.port}
    loop.names = {
        "public.example": [PUBLIC],
        "inside.example": ["10.0.0.7"],
        "localhost.": ["127.0.0.1"],
        "mapped.example": ["::ffff:10.0.0.7"],
    }
    async with MusicAPI("key", base_url=host.url, forbid_private_addresses=True) as client:
        yield client


@pytest.mark.parametrize("redirected", [False, True])
@pytest.mark.parametrize("name", [*PRIVATE, "inside.example", "mapped.example"])
async def test_no_spelling_of_a_private_address_is_reached(
    host: Host, guarded: MusicAPI, tmp_path: Path, name: str, redirected: bool
) -> None:
    """Nothing is connected to it, by a link or by a redirect from a public host."""
    target = f"http://{name}:{host.port}/secret.mp3"
    host.answer = lambda _: reply(302, Location=target)
    error = await error_of(guarded, "http://public.example/a.mp3" if redirected else target, tmp_path)
    assert any(
        told in str(error) for told in ("private or loopback", "that can be fetched", "redirected to a link")
    )
    assert set(internet().connected) <= ({PUBLIC} if redirected else set())
    assert all(request.path != "/secret.mp3" for request in host.asked)


async def test_a_private_address_is_named_at_once(host: Host, guarded: MusicAPI, tmp_path: Path) -> None:
    """It is no fault that passes, so nothing is tried again, and the text names the option."""
    started = guarded.clock.now()
    error = await error_of(guarded, f"{host.url}/a.mp3", tmp_path)
    assert "'127.0.0.1' is at a private or loopback address" in str(error)
    assert "forbid_private_addresses" in str(error)
    assert guarded.clock.now() - started < 1


async def test_a_name_that_changes_its_address_reaches_nothing_private(
    host: Host, guarded: MusicAPI, tmp_path: Path
) -> None:
    """What counts is the address that is connected to, not one that was looked up before."""
    internet().names["rebound.example"] = [PUBLIC, "127.0.0.1"]
    await guarded.download("http://rebound.example/a.mp3", tmp_path / "public")
    error = await error_of(guarded, f"http://rebound.example:{host.port}/b.mp3", tmp_path / "private")
    assert "private or loopback" in str(error)
    assert set(internet().connected) == {PUBLIC}


@pytest.mark.parametrize("place", ["public.example", "public.example:81", PUBLIC])
async def test_public_hosts_are_reached(host: Host, guarded: MusicAPI, tmp_path: Path, place: str) -> None:
    """The option forbids nothing else."""
    (path,) = await guarded.download(f"http://{place}/a.mp3", tmp_path)
    assert path.read_bytes() == MP3
    assert host.asked[0].path == "/a.mp3"


async def test_the_option_is_not_taken_with_a_proxy() -> None:
    """A proxy connects where it likes, so the promise could not be held."""
    for options in ({"proxy": "http://proxy.example:1"}, {"trust_env": True}):
        with pytest.raises(RequestValidationError, match="forbid_private_addresses"):
            MusicAPI("key", forbid_private_addresses=True, **options)
    wrong: Any = "yes"
    with pytest.raises(RequestValidationError, match="forbid_private_addresses: True or False"):
        MusicAPI("key", forbid_private_addresses=wrong)
