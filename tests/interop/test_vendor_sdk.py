"""The vendor's own synchronous SDK, every public method of it, against the sandbox.

Nobody here wrote it, so it is a check of the sandbox that does not share our reading of the contract. It runs
in a thread, unchanged. `SPEC` makes the sandbox choose as the vendor's machine-readable contract does; where
the live service is known to differ from that, the vendor's SDK fails, and README.md beside this file lists
how: those rows are tested too, so that the list stays true.
"""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
import types
from collections.abc import Callable
from functools import cached_property
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

import musicapi as vendor
import pytest

from musicapi_async.sandbox import Choices, Durations, Fault, Sandbox

SPEC = Choices(
    running="hidden",
    duration="number",
    unknown_task="404",
    producer_seed="number",
    studio_code="200",
    studio_tags="text",
)
"""The sandbox as the vendor's contract describes the service."""

AT_ONCE = Durations(midi=0.0, lyrics_task=(0.0, 0.0), alignment=0.0)
"""The vendor's SDK cannot read the 202 of midi and of get-lyrics, so those are ready at once."""

LYRICS = "[Verse]\nRain on the window\n[Chorus]\nStay for the evening"
QUICKLY = vendor.PollOptions(poll_interval_ms=5, timeout_ms=20_000)


@pytest.fixture
def anyio_backend() -> str:
    """Real time: the vendor's SDK sleeps in it, in threads."""
    return "asyncio"


def sandbox(**options: Any) -> Sandbox:
    options.setdefault("choices", SPEC)
    options.setdefault("durations", AT_ONCE)
    options.setdefault("speed", 5000.0)
    return Sandbox(longest=12.0, credits=5000, **options)


async def use(box: Sandbox, work: Callable[[World], Any], **options: Any) -> Any:
    """Run synchronous code with the vendor's client in a thread."""

    def run() -> Any:
        options.setdefault("max_retries", 0)
        with vendor.MusicAPI(options.pop("key", box.api_key), base_url=box.base_url, **options) as client:
            return work(World(client))

    return await asyncio.to_thread(run)


class World:
    """A vendor client, and what its methods need, made through it when it is needed."""

    def __init__(self, client: vendor.MusicAPI) -> None:
        self.client = client
        self.sonic, self.suno, self.producer = client.sonic, client.suno, client.producer
        self.riffusion, self.studio = client.riffusion, client.studio

    @cached_property
    def song(self) -> vendor.SonicSong:
        request = vendor.SonicCreateParams(custom_mode=True, mv="sonic-v5", prompt=LYRICS, title="Rain")
        return self.sonic.generate_and_wait(request, QUICKLY).data[0]

    @property
    def clip(self) -> str:
        return self.song.clip_id

    @property
    def url(self) -> str:
        assert self.song.audio_url
        return self.song.audio_url

    @cached_property
    def track(self) -> str:
        return self.producer.generate_and_wait(sound(), QUICKLY).data[0].clip_id


def described(**fields: Any) -> vendor.SonicCreateParams:
    return vendor.SonicCreateParams(
        custom_mode=False, mv="sonic-v5", gpt_description_prompt="calm rain", **fields
    )


def sound() -> vendor.ProducerCreateParams:
    return vendor.ProducerCreateParams(sound="pop, bright", seed=7, length=30)


def fuzz() -> vendor.RiffusionCreateParams:
    return vendor.RiffusionCreateParams(mv="FUZZ-1.1 Pro", custom_mode=False, prompt="r&b")


def studio() -> vendor.StudioCreateParams:
    return vendor.StudioCreateParams(
        "rock", "generate", 0.5, 0.25, 0.5, 0.75, "studio32-v1.5", {"mode": "regular"}
    )


def blend(world: World) -> vendor.MashupParams:
    return vendor.MashupParams((world.clip, world.clip), False, "sonic-v5", gpt_description_prompt="blend")


def section(world: World) -> vendor.ReplaceSectionParams:
    return vendor.ReplaceSectionParams(world.clip, "sonic-v5", 1, 3, infill_lyrics="New line", prompt=LYRICS)


class Row(NamedTuple):
    """A method, how it is called, and what its documentation promises beyond the types."""

    call: Callable[[World], Any]
    check: Callable[[Any], object]
    speed: float = 5000.0
    """1 for a look that is to find the task unfinished, on however busy a machine."""


def songs(count: int) -> Callable[[Any], object]:
    def check(result: Any) -> bool:
        states = [song.state for song in result.data]
        return (result.code, result.message, states) == (200, "success", ["succeeded"] * count)

    return check


def submitted(result: Any) -> object:
    return result.message == "success" and result.task_id


def stepped(step: str) -> Callable[[Any], object]:
    return lambda result: (
        result.task_id == result.steps[step]["task_id"] and result.steps["upload"]["clip_id"]
    )


ROWS: dict[str, Row] = {
    "sonic.create": Row(lambda w: w.sonic.create(described()), submitted),
    "sonic.get_task": Row(
        lambda w: w.sonic.get_task(w.sonic.create(described()).task_id),
        lambda result: (result.code, result.data) == (202, []),
        speed=1.0,
    ),
    "sonic.generate_and_wait": Row(lambda w: w.sonic.generate_and_wait(described(), QUICKLY), songs(2)),
    "sonic.lyrics": Row(
        lambda w: w.sonic.lyrics(vendor.SonicLyricsParams("a song about sky")),
        lambda result: [set(one) for one in result.results] == [{"title", "lyrics"}] * 2,
    ),
    "sonic.aligned_lyrics": Row(
        lambda w: w.sonic.aligned_lyrics(vendor.AlignedLyricsParams(w.clip)),
        lambda result: result.data["alignment"][0]["word"],
    ),
    "sonic.bpm": Row(
        lambda w: w.sonic.bpm(vendor.BpmParams(w.clip)),
        lambda result: set(result.data) == {"avg_bpm", "max_bpm", "min_bpm"},
    ),
    "sonic.upsample_tags": Row(
        lambda w: w.sonic.upsample_tags(vendor.UpsampleTagsParams("pop, happy")),
        lambda result: "pop" in result.data["upsampled_tags"],
    ),
    "sonic.create_voice": Row(
        lambda w: w.sonic.create_voice(vendor.CreateVoiceParams(w.url)),
        lambda result: submitted(result) and result.warning,
    ),
    "sonic.create_persona": Row(
        lambda w: w.sonic.create_persona(vendor.CreatePersonaParams("Voice", w.clip, describe="calm")),
        lambda result: result.persona_id,
    ),
    "sonic.vox": Row(
        lambda w: w.sonic.vox(vendor.VoxParams(w.clip, 1.0, 3.0)),
        lambda result: result.data["vox_audio_id"] and result.data["vocal_end_s"] == 3.0,
    ),
    "sonic.midi": Row(
        lambda w: w.sonic.midi(vendor.MidiParams(w.clip)),
        lambda result: result.data["midi_url"] and result.data["instruments"][0]["notes"],
    ),
    "sonic.wav": Row(
        lambda w: w.sonic.wav(vendor.WavParams(w.clip)),
        lambda result: result.data["wav_url"].endswith(".wav"),
    ),
    "sonic.stems_basic": Row(lambda w: w.sonic.stems_basic(vendor.StemsParams(w.clip)), submitted),
    "sonic.stems_full": Row(lambda w: w.sonic.stems_full(vendor.StemsParams(w.clip)), submitted),
    "sonic.stems_basic_and_wait": Row(
        lambda w: w.sonic.stems_basic_and_wait(vendor.StemsParams(w.clip), QUICKLY), songs(2)
    ),
    "sonic.stems_full_and_wait": Row(
        lambda w: w.sonic.stems_full_and_wait(vendor.StemsParams(w.clip), QUICKLY), songs(12)
    ),
    "sonic.mashup": Row(lambda w: w.sonic.mashup(blend(w)), submitted),
    "sonic.mashup_and_wait": Row(lambda w: w.sonic.mashup_and_wait(blend(w), QUICKLY), songs(2)),
    "sonic.replace_section": Row(lambda w: w.sonic.replace_section(section(w)), submitted),
    "sonic.replace_section_and_wait": Row(
        lambda w: w.sonic.replace_section_and_wait(section(w), QUICKLY), songs(2)
    ),
    "sonic.sample": Row(
        lambda w: w.sonic.sample(
            vendor.SampleParams(0, 2, False, "sonic-v5", True, url=w.url, gpt_description_prompt="dance")
        ),
        lambda result: submitted(result) and result.steps["sample"]["success"],
    ),
    "sonic.upload": Row(
        lambda w: w.sonic.upload(vendor.SonicUploadParams(w.url)), lambda result: result.clip_id
    ),
    "sonic.upload_cover": Row(
        lambda w: w.sonic.upload_cover(
            vendor.UploadCoverParams(w.url, True, "sonic-v5", prompt=LYRICS, audio_weight=0.5)
        ),
        stepped("cover"),
    ),
    "sonic.upload_extend": Row(
        lambda w: w.sonic.upload_extend(
            vendor.UploadExtendParams(w.url, True, "sonic-v5", prompt=LYRICS, continue_at=2.0)
        ),
        stepped("extend"),
    ),
    "suno.create": Row(lambda w: w.suno.create(described()), submitted),
    "suno.get_clip": Row(
        lambda w: w.suno.get_clip(w.suno.create(described()).task_id),
        lambda result: result.code == 202,
        speed=1.0,
    ),
    "suno.generate_and_wait": Row(lambda w: w.suno.generate_and_wait(described(), QUICKLY), songs(2)),
    "suno.make_lyrics": Row(
        lambda w: w.suno.make_lyrics(vendor.MakeLyricsParams("a song about sky")),
        lambda result: result.data["task_id"],
    ),
    "suno.get_lyrics": Row(
        lambda w: w.suno.get_lyrics(w.suno.make_lyrics(vendor.MakeLyricsParams("sky")).data["task_id"]),
        lambda result: result.data["status"] == "complete" and result.data["text"],
    ),
    "suno.get_song": Row(
        lambda w: w.suno.get_song(vendor.GetSongParams("https://suno.example/song/x")),
        lambda result: all(dataclasses.astuple(result)),
    ),
    "producer.create": Row(lambda w: w.producer.create(sound()), submitted),
    "producer.get_task": Row(
        lambda w: w.producer.get_task(w.producer.create(sound()).task_id),
        lambda result: (result.code, result.data) == (202, []),
        speed=1.0,
    ),
    "producer.generate_and_wait": Row(
        lambda w: w.producer.generate_and_wait(sound(), QUICKLY),
        lambda result: songs(1)(result) and result.data[0].seed == 7 and result.data[0].duration > 0,
    ),
    "producer.upload": Row(lambda w: w.producer.upload(vendor.ProducerUploadParams(w.url)), submitted),
    "producer.download": Row(
        lambda w: w.producer.download(vendor.ProducerDownloadParams(w.track)), submitted
    ),
    "producer.download_and_wait": Row(
        lambda w: w.producer.download_and_wait(vendor.ProducerDownloadParams(w.track, "wav"), QUICKLY),
        lambda result: result.data[0].wav_url.endswith(".wav"),
    ),
    "riffusion.create": Row(lambda w: w.riffusion.create(fuzz()), submitted),
    "riffusion.get_task": Row(
        lambda w: w.riffusion.get_task(w.riffusion.create(fuzz()).task_id),
        lambda result: result.code == 202,
        speed=1.0,
    ),
    "riffusion.generate_and_wait": Row(lambda w: w.riffusion.generate_and_wait(fuzz(), QUICKLY), songs(2)),
    "riffusion.upload": Row(
        lambda w: w.riffusion.upload(vendor.RiffusionUploadParams(w.url)), lambda result: result.clip_id
    ),
    "studio.create": Row(
        lambda w: w.studio.create(studio()), lambda result: result.code == "200" and result.data
    ),
    "studio.get_task": Row(
        lambda w: w.studio.get_task(w.studio.create(studio()).data),
        lambda result: result.data.status in ("NOT_START", "IN_PROGRESS"),
        speed=1.0,
    ),
    "studio.generate_and_wait": Row(
        lambda w: w.studio.generate_and_wait(studio(), QUICKLY),
        lambda result: result.data.status == "SUCCESS" and len(result.data.songs) == 2,
    ),
    "credits.get": Row(
        lambda w: w.client.credits.get(), lambda result: (result.credits, result.extra_credits) == (5000, 0)
    ),
}
"""Every public method of the vendor's SDK."""


def broken(value: Any, hint: Any, where: str) -> list[str]:
    """Where `value` is not what the annotation `hint` promises."""
    if hint is Any:
        return []
    origin, given = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        found = [broken(value, member, where) for member in given]
        return min(found, key=len)
    if origin is Literal:
        return [] if value in given else [f"{where}: {value!r} is none of {given}"]
    if origin is list and isinstance(value, list):
        return [text for n, item in enumerate(value) for text in broken(item, given[0], f"{where}[{n}]")]
    if origin is dict and isinstance(value, dict):
        return [text for key, item in value.items() for text in broken(item, given[1], f"{where}.{key}")]
    if dataclasses.is_dataclass(hint) and isinstance(value, hint):
        hints = get_type_hints(hint)
        names = [field.name for field in dataclasses.fields(hint)]
        return [
            text for name in names for text in broken(getattr(value, name), hints[name], f"{where}.{name}")
        ]
    kinds = (int, float) if hint is float else (origin or hint,)
    right = isinstance(value, kinds) and not (isinstance(value, bool) and hint in (int, float))
    return [] if right else [f"{where}: {value!r} is no {hint}"]


@pytest.mark.parametrize("name", ROWS)
async def test_each_method_gives_what_its_types_promise(name: str) -> None:
    """The result is of the annotated type down to its leaves, and holds what the documentation names."""
    async with sandbox(speed=ROWS[name].speed) as box:
        result = await use(box, ROWS[name].call)
        assert box.journal.charged_twice() == []
    resource, _, method = name.partition(".")
    kind = type(getattr(vendor.MusicAPI("k"), resource))
    assert broken(result, get_type_hints(getattr(kind, method))["return"], name) == []
    assert ROWS[name].check(result), result


def test_no_method_is_forgotten() -> None:
    """The table holds every public method of every resource."""
    with vendor.MusicAPI("key") as client:
        public = {
            f"{resource}.{method}"
            for resource, holder in vars(client).items()
            if not resource.startswith("_")
            for method, _ in inspect.getmembers(holder, inspect.ismethod)
            if not method.startswith("_")
        }
    assert public == ROWS.keys()


# --- errors ---------------------------------------------------------------------------------------------


async def refused(box: Sandbox, work: Callable[[World], Any], **options: Any) -> vendor.MusicAPIError:
    with pytest.raises(vendor.MusicAPIError) as caught:
        await use(box, work, **options)
    return caught.value


async def test_errors_are_of_the_kind_that_the_vendor_tells_apart() -> None:
    """A wrong key, no credits, no subscription, a limit, a bad field, an unknown task: status, type, id."""
    async with sandbox(create_limit=(1, 1e9)) as box:
        error = await refused(box, lambda w: w.client.credits.get(), key="wrong")
        assert error.is_auth_error
        assert (error.code, str(error)) == ("unauthorized", "Invalid API key")
        assert error.request_id == box.journal[-1].request_id
        error = await refused(box, lambda w: w.sonic.create(vendor.SonicCreateParams(mv="x")))  # type: ignore[arg-type]
        assert (error.status, error.code) == (400, "validation_error")
        error = await refused(box, lambda w: w.sonic.create(described()))
        assert error.is_rate_limited
        error = await refused(box, lambda w: w.sonic.get_task("nonsense"))
        assert (error.status, error.code) == (404, "not_found")
        box.account.credits = 0
        error = await refused(box, lambda w: w.sonic.bpm(vendor.BpmParams("c")))
        assert error.status == 404  # a clip that nobody made is not paid for
        error = await refused(box, lambda w: w.sonic.lyrics(vendor.SonicLyricsParams("sky")))
        assert error.is_credit_error
        box.account.subscription = False
        error = await refused(box, lambda w: w.sonic.lyrics(vendor.SonicLyricsParams("sky")))
        assert error.is_credit_error
        assert box.journal.charges == 0


@pytest.mark.parametrize(
    ("form", "code"),
    [
        ("failed-200", "failed"),
        ("timeout-200", "timeout"),
        ("forbidden-200", "forbidden"),
        ("api-error-200", "api_error"),
    ],
)
async def test_failures_that_the_vendor_documents_end_its_wait(form: str, code: str) -> None:
    """A task that failed raises with the word of its `type`, and its credits come back."""
    async with sandbox() as box:
        box.faults.on("POST", "/sonic/create", Fault.fail(form))
        error = await refused(box, lambda w: w.sonic.generate_and_wait(described(), QUICKLY))
        assert (error.status, error.code) == (200, code)
        assert box.balance == 5000


async def test_retired_task_types_and_families_are_410() -> None:
    """As the vendor's documentation says of Producer's variation and swaps."""
    async with sandbox(choices=dataclasses.replace(SPEC, riffusion="retired")) as box:
        request = vendor.ProducerCreateParams(task_type="swap_music_sound", sound="x")  # type: ignore[arg-type]
        assert (await refused(box, lambda w: w.producer.create(request))).status == 410
        assert (await refused(box, lambda w: w.riffusion.create(fuzz()))).status == 410


async def test_a_limit_is_waited_out_as_retry_after_says() -> None:
    """After a 429 the vendor's SDK sends again, and is charged once."""
    async with sandbox() as box:
        box.faults.on("POST", "/sonic/create", Fault.status(429, retry_after=0))
        assert (await use(box, lambda w: w.sonic.create(described()), max_retries=1)).task_id
        assert [entry.status for entry in box.journal.creates] == [429, 200]
        assert box.journal.charges == 20


# --- the difference list of README.md ----------------------------------------------------------------------


async def test_it_pays_twice_for_a_create_that_was_answered_with_a_5xx() -> None:
    """Difference 1: the vendor's SDK sends a POST again although it may have been carried out."""
    async with sandbox() as box:
        box.faults.on("POST", "/sonic/create", Fault.status(503, retry_after=0, taken=True))
        await use(box, lambda w: w.sonic.create(described()), max_retries=1)
        assert [len(group) for group in box.journal.charged_twice()] == [2]


async def test_it_takes_code_200_for_the_end() -> None:
    """Difference 2: with clips shown while they run, as live, its result is not finished."""
    async with sandbox(choices=dataclasses.replace(SPEC, running="visible"), speed=200.0) as box:
        result = await use(box, lambda w: w.sonic.generate_and_wait(described(), QUICKLY))
        assert {song.state for song in result.data} != {"succeeded"}
        assert box.journal.charges == 20


LIVE: dict[str, tuple[Choices, Callable[[World], Any], str]] = {
    "a submit reply with `code`": (
        dataclasses.replace(SPEC, submit="code"), lambda w: w.sonic.create(described()), "code",
    ),
    "a task id under `data`": (
        dataclasses.replace(SPEC, submit="nested"), lambda w: w.sonic.create(described()), "code|data",
    ),
    "`upsampled_tags` at the top level": (
        dataclasses.replace(SPEC, upsampled="flat"), ROWS["sonic.upsample_tags"].call, "upsampled_tags",
    ),
    "a clip id under `data`": (
        dataclasses.replace(SPEC, upload="nested"), ROWS["sonic.upload"].call, "data",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LIVE)
async def test_replies_with_other_keys_are_beyond_it(name: str) -> None:
    """Difference 3: documented and seen keys that its types do not name are a TypeError there."""
    choices, call, text = LIVE[name]
    async with sandbox(choices=choices) as box:
        with pytest.raises(TypeError, match=text):
            await use(box, call)


async def test_it_cannot_read_what_is_not_ready() -> None:
    """Difference 4: the 202 of midi and of get-lyrics, which its own contract documents."""
    async with sandbox(durations=Durations(midi=1e6, lyrics_task=(1e6, 0.0))) as box:
        for name in ("sonic.midi", "suno.get_lyrics"):
            with pytest.raises(TypeError, match=r"type|error"):
                await use(box, ROWS[name].call)


@pytest.mark.parametrize("kind", ["voice", "pairs", "failed"])
async def test_it_cannot_read_what_is_no_list_of_clips(kind: str) -> None:
    """Difference 5: a voice, pairs of `auto_concat`, and a failed task that is looked at once."""

    def look(world: World) -> None:
        if kind == "voice":
            task_id = world.sonic.create_voice(vendor.CreateVoiceParams(world.url)).task_id
        elif kind == "pairs":
            request = dataclasses.replace(section(world), auto_concat=True)
            task_id = world.sonic.replace_section(request).task_id
        else:
            task_id = world.sonic.create(described(title="fails")).task_id
        for _ in range(2000):
            world.sonic.get_task(task_id)

    errors = {"voice": AttributeError, "pairs": TypeError, "failed": KeyError}
    async with sandbox() as box:
        if kind == "failed":
            box.faults.on("POST", "/sonic/create", Fault.fail("failed-200"))
        with pytest.raises(errors[kind]):
            await use(box, look)


async def test_it_never_sees_that_a_studio_task_failed() -> None:
    """Difference 6: only SUCCESS ends its wait, so a failed task runs into the time limit."""
    async with sandbox() as box:
        box.faults.on("POST", "/studio/create", Fault.fail())
        brief = vendor.PollOptions(poll_interval_ms=5, timeout_ms=100)
        error = await refused(box, lambda w: w.studio.generate_and_wait(studio(), brief))
        assert error.code == "client_timeout"


async def test_newer_models_pass_although_its_types_do_not_know_them() -> None:
    """Difference 7: sonic-v6 is sent and accepted; only a type checker complains there."""
    async with sandbox() as box:
        request = dataclasses.replace(described(), mv="sonic-v6")  # type: ignore[arg-type]
        assert (await use(box, lambda w: w.sonic.generate_and_wait(request, QUICKLY))).data[
            0
        ].mv == "sonic-v6"
