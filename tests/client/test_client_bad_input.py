"""Bad input, at the client: refused here before anything is sent; with the checks off, refused by the service.

The cases follow from the declarations: every limit of every field of every call, one over it, one under it,
and a value of the wrong type.
"""

from __future__ import annotations

import inspect
import math
import os
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from musicapi_async import (
    BadRequestError,
    Clip,
    Clips,
    Clock,
    LaneLimits,
    MemoryLimiter,
    MusicAPI,
    NotFoundError,
    OutcomeUnknownError,
    PostgresStore,
    Rate,
    RequestValidationError,
    Result,
    Stems,
    Voice,
    Webhooks,
)
from musicapi_async.api.families import FAMILIES
from musicapi_async.api.field_limits import SONIC_MODELS
from musicapi_async.api.request import FieldInfo
from musicapi_async.client import ClientOptions, OptionChanges
from musicapi_async.contrib import fastapi
from musicapi_async.contrib.opentelemetry import OpenTelemetryHook
from musicapi_async.jobs import SQLiteStore
from musicapi_async.options import Options
from musicapi_async.polling import LearnedSchedule, PollCost
from musicapi_async.polling.schedule import documented
from musicapi_async.sandbox import Fault, Faults, Journal, Sandbox
from musicapi_async.testing.virtual import VirtualTimeLoop
from musicapi_async.workflows import everything, run_batch

LYRICS = "[Verse]\nRain on the window"
SONG = {"mv": "sonic-v6", "prompt": LYRICS}
WINDOW = {"starts_at": 1.0, "ends_at": 2.0}
PART = {"continue_clip_id": "CLIP"}
ONE = {"clip_id": "CLIP"}

SINGING: dict[str, dict[str, Any]] = {
    "create_music": SONG,
    "extend_music": {**SONG, **PART, "continue_at": 1.0, "custom_mode": True},
    "concat_music": {"continue_clip_id": "PART"},
    "cover_music": {**SONG, **PART},
    "persona_music": {**SONG, "persona_id": "PERSONA"},
    "remaster": {**PART, "mv": "sonic-v5"},
    "add_vocals": {**SONG, **PART},
    "add_instrumental": {**PART, "mv": "sonic-v6"},
    "extend_upload_music": {**SONG, **PART, "continue_at": 1.0, "custom_mode": True},
    "cover_upload_music": {**SONG, **PART},
    "get_music": {"task_id": "TASK"},
}
STUDIO = {"prompt": "rock", "model_type": "studio32-v1.5"}
CALLS: dict[str, dict[str, dict[str, Any]]] = {
    "sonic": {
        **SINGING,
        "create_persona": {"name": "n", **ONE},
        "create_persona_older": {"name": "n", "description": "d", **PART},
        "create_voice": {"audio_url": "LINK"},
        "upload": {"url": "LINK"},
        "upload_extend": {**SONG, "url": "LINK"},
        "upload_cover": {**SONG, "url": "LINK"},
        "sample": {**SONG, "sample_clip_id": "CLIP", "chop_sample_start_s": 0.0, "chop_sample_end_s": 3.0},
        "mashup": {**SONG, "mashup_clip_ids": ["CLIP", "CLIP"]},
        "replace_section": {"mv": "sonic-v5", **ONE, "infill_start_s": 0.0, "infill_end_s": 3.0},
        "stems_basic": ONE,
        "stems_full": ONE,
        "wav": ONE,
        "midi": ONE,
        "bpm": ONE,
        "vox": ONE,
        "aligned_lyrics": ONE,
        "upsample_tags": {"tags": "pop"},
        "lyrics": {"description": "sky"},
        "download": {**ONE, "formats": ["mp3"]},
        "create_batch": {"items": [SONG]},
        "get_batch": {"batch_id": "BATCH"},
    },
    "suno": {
        **SINGING,
        "make_lyrics": {"prompt": "sky"},
        "get_lyrics": {"task_id": "TASK"},
        "get_song": {"share_link": "https://suno.example/song/x"},
    },
    "producer": {
        "create_music": {"sound": "pop"},
        "extend_music": ONE,
        "extend_upload_music": ONE,
        "replace_music": {**ONE, **WINDOW},
        "replace_upload_music": {**ONE, **WINDOW},
        "cover_music": {**ONE, "instruction": "softer"},
        "cover_upload_music": {**ONE, "instruction": "softer"},
        "upload": {"audio_url": "LINK"},
        "download": ONE,
        "get_music": {"task_id": "TASK"},
    },
    "nuro": {
        "create_vocal": {"lyrics": LYRICS},
        "create_bgm": {"description": "calm"},
        "get_music": {"task_id": "TASK"},
    },
    "riffusion": {
        "create": {"lyrics": LYRICS},
        "upload": {"url": "LINK"},
        "get_music": {"task_id": "TASK"},
    },
    "studio": {
        "create": {**STUDIO, "lyrics_type": "user", "lyrics": LYRICS},
        "create_from_description": STUDIO,
        "create_from_lyrics": {**STUDIO, "lyrics": LYRICS},
        "create_instrumental": STUDIO,
        "get_music": {"task_id": "TASK"},
    },
    "account": {"credits": {}},
}
"""A good call of every operation; words in capitals stand for what is made in the sandbox."""


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """Waiting takes no time."""
    return "asyncio", {"loop_factory": VirtualTimeLoop}


OPERATIONS = {word: family.operations() for word, family in FAMILIES.items()}


class Bench:
    """A sandbox in which everything that calls need is there, and a client of it."""

    def __init__(self, box: Sandbox, client: MusicAPI, made: dict[str, str]) -> None:
        self.box, self.client, self.made = box, client, made

    def good(self, family: str, name: str) -> dict[str, Any]:
        return {key: self._put(value) for key, value in CALLS[family][name].items()}

    def _put(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._put(item) for item in value]
        return self.made.get(value, value) if isinstance(value, str) else value

    async def call(self, family: str, name: str, given: dict[str, Any], **options: Any) -> Any:
        client = self.client.with_options(max_retries=0, **options)
        operation = OPERATIONS[family][name]
        return await operation.public_method(client.sonic.caller)(**given)


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    """Made once for each test."""
    async with Sandbox(seed=4, longest=12.0, credits=1e6) as box, box.client(rate_limit=None) as client:
        clips = await (await client.sonic.create_music(**SONG, make_instrumental=False)).wait()
        clip = clips[0]
        extension = await client.sonic.extend_music(
            continue_clip_id=clip.clip_id, continue_at=3.0, custom_mode=True, mv="sonic-v6", prompt=LYRICS
        )
        persona = await client.sonic.create_persona("Singer", clip.clip_id)
        batch = await client.sonic.create_batch([SONG])
        made = {
            "BATCH": str(batch.batch_id),
            "CLIP": clip.clip_id,
            "PART": (await extension.wait())[0].clip_id,
            "PERSONA": persona.persona_id,
            "LINK": str(clip.final_url),
            "TASK": clips.task_id,
        }
        yield Bench(box, client, made)


def bad_values(field: FieldInfo) -> Iterator[Any]:
    """What a field refuses: beyond each of its limits, and a value of another type."""
    kinds = list(plain(field.type))
    for kind in kinds:
        match kind:
            case msgspec.inspect.StrType():
                if kind.max_length is not None:
                    yield "https://a.example/".ljust(kind.max_length + 1, "x")
                if kind.min_length and field.required:
                    yield ""
            case msgspec.inspect.IntType() | msgspec.inspect.FloatType():
                step = 1 if isinstance(kind, msgspec.inspect.IntType) else 0.01
                yield from () if kind.ge is None else [kind.ge - step]
                yield from () if kind.le is None else [kind.le + step]
                yield from () if step == 1 else [math.nan, math.inf]
            case msgspec.inspect.ListType():
                yield from () if kind.max_length is None else [["x"] * (kind.max_length + 1)]
                yield from () if not kind.min_length else [["x"] * (kind.min_length - 1)]
            case _:
                pass
    names = {type(kind).__name__ for kind in kinds}
    if not names & {"StructType", "AnyType"}:
        yield {"of": "another type"}
    if len(names) == 1:
        yield "text" if names & {"BoolType", "IntType", "FloatType", "ListType"} else 5


def plain(kind: msgspec.inspect.Type) -> Iterator[msgspec.inspect.Type]:
    """The types of a field without None and notes."""
    if isinstance(kind, msgspec.inspect.Metadata):
        yield from plain(kind.type)
    elif isinstance(kind, msgspec.inspect.UnionType):
        for member in kind.types:
            yield from plain(member)
    elif not isinstance(kind, msgspec.inspect.NoneType):
        yield kind


def test_the_table_has_every_operation() -> None:
    """No operation is left out."""
    assert {word: set(calls) for word, calls in CALLS.items()} == {
        word: set(family.operations()) for word, family in FAMILIES.items()
    }


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("family", CALLS)
async def test_every_limit_of_every_call(bench: Bench, family: str) -> None:
    """Locally: the field, its limit, the size given, nothing sent. Checks off: 400, nothing charged."""
    wrong: list[str] = []
    tried = 0
    for name, operation in FAMILIES[family].operations().items():
        good = bench.good(family, name)
        bench.box.journal.clear()
        if operation.method == "POST":
            await bench.call(family, name, good)
        for field in operation.fields:
            for value in bad_values(field):
                tried += 1
                case = f"{family}.{name}({field.name}={str(value)[:30]!r})"
                before = len(bench.box.journal)
                try:
                    await bench.call(family, name, {**good, field.name: value})
                    wrong.append(f"{case}: sent")
                except RequestValidationError as error:
                    if error.field != field.name or not error.limit or len(bench.box.journal) != before:
                        wrong.append(f"{case}: {error!r}")
                    if (
                        isinstance(value, str)
                        and len(value) > 40
                        and f"{len(value)} characters" not in str(error)
                    ):
                        wrong.append(f"{case}: no size in {error}")
                if (
                    field.local
                    or operation.method == "GET"
                    or (isinstance(value, float) and not math.isfinite(value))
                ):
                    continue
                charges = bench.box.journal.charges
                try:
                    await bench.call(family, name, {**good, field.name: value}, validate="off")
                    wrong.append(f"{case}: accepted")
                except BadRequestError as error:
                    if error.status != 400 or bench.box.journal.charges != charges:
                        wrong.append(f"{case}: {error!r}")
                except Exception as error:
                    wrong.append(f"{case}: {type(error).__name__} {error}")
    assert not wrong, "\n".join(wrong)
    assert tried or family == "account"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("family", ["sonic", "suno", "producer", "riffusion", "studio"])
async def test_nothing_stands_for_the_default(bench: Bench, family: str) -> None:
    """None and empty text, as forms and language models send them, change no body: what is always sent is sent."""
    tried = 0
    for name, operation in FAMILIES[family].operations().items():
        if operation.method == "GET":
            continue
        good = bench.good(family, name)
        await bench.call(family, name, good)
        sent = bench.box.journal.requests(method="POST")[-1].body
        for field in operation.fields:
            if field.required or field.name in good:
                continue
            for nothing in (None, ""):
                await bench.call(family, name, {**good, field.name: nothing})
                assert bench.box.journal.requests(method="POST")[-1].body == sent, (name, field.name)
                tried += field.name in sent
    assert tried


Case = tuple[str, dict[str, Any], str, int]

RULES: list[Case] = [
    ("sonic.create_music", {"gpt_description_prompt": "calm"}, "prompt", 200),
    ("sonic.create_music", {"prompt": None}, "prompt", 400),
    ("sonic.create_music", {"prompt": None, "custom_mode": False}, "gpt_description_prompt", 400),
    ("sonic.create_music", {"custom_mode": False}, "gpt_description_prompt", 400),
    ("sonic.create_music", {"prompt": None, "gpt_description_prompt": "sea", "auto_lyrics": True}, "auto_lyrics", 400),
    ("sonic.create_music", {"mv": "sonic-v4", "prompt": "x" * 3001}, "prompt", 400),
    ("sonic.create_music", {"mv": "sonic-v3-5", "tags": "x" * 201}, "tags", 400),
    ("sonic.create_music", {"webhook_url": "http://a.example/hook"}, "webhook_url", 400),
    ("sonic.extend_music", {"custom_mode": False}, "gpt_description_prompt", 400),
    ("sonic.add_vocals", {"overpainting_start_s": 5.0, "overpainting_end_s": 4.0}, "overpainting_end_s", 400),
    ("sonic.add_instrumental", {"overpainting_end_s": 0.0}, "overpainting_end_s", 400),
    ("sonic.sample", {"url": "https://files.example/a.mp3"}, "url", 400),
    ("sonic.sample", {"sample_clip_id": None}, "url", 400),
    ("sonic.sample", {"chop_sample_start_s": 3.0}, "chop_sample_end_s", 400),
    ("sonic.replace_section", {"infill_start_s": 4.0}, "infill_end_s", 400),
    ("sonic.vox", {"vocal_start_s": 1.0}, "vocal_end_s", 400),
    ("sonic.vox", {"vocal_start_s": 4.0, "vocal_end_s": 1.0}, "vocal_end_s", 400),
    ("sonic.vox", {"vocal_start_s": 0.0, "vocal_end_s": 30.5}, "vocal_end_s", 400),
    ("sonic.vox", {"vocal_start_s": 0.2, "vocal_end_s": 30.201}, "vocal_end_s", 400),
    ("sonic.create_persona", {"vocal_end_s": 5.0}, "vocal_start_s", 200),
    ("producer.create_music", {"sound": None}, "sound", 400),
    ("producer.create_music", {"seed": "seven"}, "seed", 400),
    ("producer.cover_music", {"seed": "7 or so"}, "seed", 400),
    ("producer.replace_music", {"starts_at": 3.0}, "ends_at", 400),
    ("nuro.create_bgm", {"duration": 61}, "duration", 400),
    ("nuro.create_bgm", {"version": "v2.0", "duration": 29}, "duration", 400),
    ("nuro.create_bgm", {"version": "v2.0", "description": "x" * 200}, "description", 400),
    ("nuro.create_bgm", {"version": "v2.0", "segments": [{"name": "verse", "duration": 29}]}, "segments", 400),
    ("nuro.create_bgm", {"version": "v2.0", "segments": [{"name": "verse", "duration": 40}], "duration": 40},
     "duration", 200),
    ("riffusion.create", {"task_type": "replace_music", "continue_clip_id": "CLIP", "replace_start_time": 3.0,
                          "replace_end_time": 1.0}, "replace_end_time", 400),
    ("studio.create", {"lyrics": None}, "lyrics", 400),
    ("studio.create", {"config": {"mode": "continuation"}}, "config", 400),
]  # fmt: skip
"""Rules over several fields: the call, what is changed, the field that is named, and the service's status."""


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_rules_over_several_fields(bench: Bench) -> None:
    """Both of two, neither of them, an end before its start, a limit of one model: as single fields."""
    for call, changes, field, status in RULES:
        family, _, name = call.partition(".")
        given = {
            key: value for key, value in {**bench.good(family, name), **changes}.items() if value is not None
        }
        given = {key: bench.made.get(str(value), value) for key, value in given.items()}
        before = len(bench.box.journal)
        with pytest.raises(RequestValidationError) as caught:
            await bench.call(family, name, given)
        assert (caught.value.field, bool(caught.value.limit)) == (field, True), call
        assert f"{field}: " in str(caught.value)
        assert "nothing was charged" in str(caught.value)
        assert len(bench.box.journal) == before
        if status == 200:  # the contract does not say that the service refuses it
            await bench.call(family, name, given, validate="off")
            continue
        charges = bench.box.journal.charges
        with pytest.raises(BadRequestError) as refused:
            await bench.call(family, name, given, validate="off")
        assert refused.value.status == status, call
        assert bench.box.journal.charges == charges


async def test_a_vocal_segment_may_last_30_seconds() -> None:
    """Whatever binary fractions make of its bounds: 32.2 - 2.2 is a little more than 30."""
    async with Sandbox(seed=4, longest=90.0) as box, box.client(rate_limit=None) as client:
        clip = (await (await client.sonic.create_music(**SONG, duration=80)).wait())[0]
        for tenths in range(0, 450, 9):
            start, end = tenths / 10, tenths / 10 + 30
            for last in (end, round(end, 1)):
                vox = await client.sonic.vox(clip.clip_id, vocal_start_s=start, vocal_end_s=last)
                assert (vox.vocal_start_s, vox.vocal_end_s) == (start, last)


async def test_only_known_limits_are_checked(bench: Bench) -> None:
    """Of things to avoid in a sample or a mashup none is known, so neither side refuses a long text."""
    long = "x" * 201
    for name in ("sample", "mashup"):
        await bench.call("sonic", name, {**bench.good("sonic", name), "negative_tags": long})
    for name in ("create_music", "replace_section"):
        with pytest.raises(RequestValidationError, match="negative_tags"):
            await bench.call("sonic", name, {**bench.good("sonic", name), "negative_tags": long})


@pytest.mark.parametrize("mv", ["sonic-v4", "sonic-v6"])
async def test_a_section_has_limits_of_its_own(bench: Bench, mv: str) -> None:
    """They do not depend on the model, here as at the service; one over is refused by both."""
    full = {"prompt": "x" * 5000, "tags": "x" * 1000, "infill_lyrics": "x" * 3000}
    given = {**bench.good("sonic", "replace_section"), "mv": mv}
    await bench.call("sonic", "replace_section", {**given, **full})
    for field, text in full.items():
        with pytest.raises(RequestValidationError, match=field):
            await bench.call("sonic", "replace_section", {**given, field: text + "x"})
        with pytest.raises(BadRequestError):
            await bench.call("sonic", "replace_section", {**given, field: text + "x"}, validate="off")


MISUSES: list[tuple[str, tuple[Any, ...], dict[str, Any], str]] = [
    (
        "create_music",
        (),
        {"mv": "x", "titel": "y"},
        "create_music() has no argument 'titel' (did you mean 'title'?)",
    ),
    (
        "create_music",
        (),
        {"mv": "x", "zzz": 1},
        "has no argument 'zzz'; there are mv, prompt, gpt_description_prompt, title",
    ),
    ("create_music", (), {"prompt": "x"}, "create_music() needs mv; known for mv: sonic-v6, sonic-v6-wild, "),
    (
        "create_music",
        (),
        {"style": "folk", "lyrics": "la", "model": "sonic-v6"},
        (
            "has no argument 'style' (did you mean 'tags'?), 'lyrics' (did you mean 'prompt'?), 'model' (did you "
            "mean 'mv'?)"
        ),
    ),
    ("create_music", (), {"mv": "x", "genre": "y"}, "'genre' (did you mean 'tags'?)"),
    ("create_music", (), {"mv": "x", "out": "y"}, "'out' (to save the files: client.download("),
    ("create_music", (), {"mv": "x", "output": "y"}, "'output' (to save the files: client.download("),
    ("create_music", ("sonic-v6",), {}, "takes arguments by name only, such as mv=..."),
    ("create_music", (), {"mv": "x", "job_key": "1"}, "that is an option, client.with_options(job_key=...)"),
    ("create_music", (), {"mv": "x", "timeout": 3}, "client.with_options(...): attempt_timeout (seconds"),
    (
        "create_music",
        (),
        {"mv": "x", "idempotency_key": "1"},
        "that is an option, client.with_options(...): job_key",
    ),
    (
        "create_music",
        (),
        {"mv": "x", "extra_headers": {}},
        "that is an option, client.with_options(...): headers",
    ),
    ("create_persona", ("Ann",), {}, "create_persona() needs clip_id"),
    ("create_persona", ("Ann", "c"), {"name": "Ben"}, "cannot be called so"),
]


@pytest.mark.parametrize(("name", "args", "given", "told"), MISUSES)
async def test_misspelt_arguments_are_named_with_the_right_ones(
    name: str, args: tuple[Any, ...], given: dict[str, Any], told: str
) -> None:
    """A TypeError as of any function, which names the operation and what was meant."""
    async with MusicAPI("key") as client:
        with pytest.raises(TypeError, match=r"^sonic\.") as caught:
            await getattr(client.sonic, name)(*args, **given)
    assert told in str(caught.value)


def test_type_checkers_know_each_option_of_a_view() -> None:
    """`with_options` declares the fields of `Options`, and the store."""
    assert OptionChanges.__optional_keys__ == {*Options.__struct_fields__, "store"}
    assert not OptionChanges.__required_keys__


def test_type_checkers_know_each_option_of_a_client() -> None:
    """`ClientOptions`, which others pass on, declares the options of `MusicAPI` with their types."""
    options = inspect.signature(MusicAPI).parameters
    assert {name: option.annotation for name, option in options.items()} == {
        name: hint.__forward_arg__ for name, hint in ClientOptions.__annotations__.items()
    }
    assert not ClientOptions.__required_keys__


@pytest.mark.parametrize(
    ("family", "name", "meant"),
    [
        ("sonic", "create", "'create_music'"),
        ("sonic", "get_task", "'get_music'"),
        ("sonic", "stems", "'stems_basic'"),
        ("sonic", "persona", "'create_persona'"),
        ("sonic", "creat_music", "'create_music'"),
        ("producer", "create", "'create_music'"),
    ],
)
def test_operations_of_other_names_are_named_with_the_right_ones(family: str, name: str, meant: str) -> None:
    """Such as those of the vendor's SDK."""
    with pytest.raises(AttributeError) as caught:
        getattr(getattr(MusicAPI("key"), family), name)
    assert str(caught.value) == f"client.{family} has no operation {name!r} (did you mean {meant}?)"


def test_operation_without_its_family_is_answered_with_it() -> None:
    """Python would suggest the nearest attribute, `create_many`; it still does for other words."""
    client: Any = MusicAPI("key")
    with pytest.raises(AttributeError, match=r"did you mean client\.sonic\.create_music\?"):
        print(client.create_music)
    with pytest.raises(AttributeError) as caught:
        print(client.close)
    assert (caught.value.name, caught.value.obj) == ("close", client)


async def test_a_misspelt_option_is_named_with_the_right_one() -> None:
    """The same for `with_options`."""
    async with MusicAPI("key") as client:
        with pytest.raises(TypeError, match=r"did you mean 'max_retries'\?"):
            client.with_options(max_retrys=1)


@pytest.mark.parametrize(
    ("option", "meant"),
    [
        ("api_base", "'base_url'"),
        ("token", "'api_key'"),
        ("http_client", "'session'"),
        ("verify", "'ssl'"),
        ("event_hooks", "'hooks'"),
        ("idempotency_key", "job_key (of client.with_options)"),
        ("extra_headers", "headers (of client.with_options) or default_headers (of MusicAPI)"),
    ],
)
def test_options_of_other_libraries_are_named_with_the_right_ones(option: str, meant: str) -> None:
    """Similarity of spelling would lead from `api_base` to `api_key`, and from `token` to `store`."""
    with pytest.raises(TypeError) as caught:
        MusicAPI("key", **{option: "x"})
    assert f"unknown option {option!r} (did you mean {meant}?)" in str(caught.value)


def test_settings_of_the_client_are_not_suggested_for_a_view() -> None:
    """A view has no `base_url`."""
    with pytest.raises(TypeError) as caught:
        MusicAPI("key").with_options(api_base="x")
    assert "did you mean" not in str(caught.value)


async def test_a_model_that_the_service_refuses_is_answered_with_those_that_are_known(bench: Bench) -> None:
    """Sent all the same, since the service may know more models than this package."""
    with pytest.raises(BadRequestError) as refused:
        await bench.client.sonic.create_music(mv="sonic-v66", prompt=LYRICS)
    told = (
        f"'sonic-v66' is not known here (did you mean 'sonic-v6'?); known for mv: {', '.join(SONIC_MODELS)}."
    )
    assert told in str(refused.value)
    with pytest.raises(BadRequestError) as other:
        await bench.call("sonic", "create_music", {**SONG, "title": "x" * 200}, validate="off")
    assert "known for mv" not in str(other.value)


LINKS: list[tuple[str, str, dict[str, Any]]] = [
    ("sonic", "upload", {"url": ...}),
    ("sonic", "upload_extend", {**SONG, "url": ..., "continue_at": 1.0}),
    ("sonic", "upload_cover", {**SONG, "url": ...}),
    ("sonic", "sample", {**SONG, "url": ..., "chop_sample_start_s": 0.0, "chop_sample_end_s": 9.0}),
    ("sonic", "create_voice", {"audio_url": ...}),
    ("producer", "upload", {"audio_url": ...}),
    ("riffusion", "upload", {"url": ...}),
]


@pytest.mark.filterwarnings("ignore:riffusion is deprecated")
@pytest.mark.parametrize(("family", "name", "given"), LINKS)
async def test_a_local_file_in_the_place_of_a_link_is_refused_with_the_way_out(
    bench: Bench, family: str, name: str, given: dict[str, Any], tmp_path: Path
) -> None:
    """By name, as a path, as a file: URL, or open; nothing is sent."""
    file = tmp_path / "song.mp3"
    file.write_bytes(b"ID3")
    before = len(bench.box.journal)
    with file.open("rb") as opened:
        for value in (
            "song.mp3",
            str(file),
            file,
            file.as_uri(),
            opened,
            b"ID3",
            "//a.example/x",
            "http:///x",
        ):
            fields = {key: value if told is ... else told for key, told in given.items()}
            with pytest.raises(
                RequestValidationError, match=r"a public link, http:// or https://"
            ) as refused:
                await bench.call(family, name, fields)
            assert "put the file at a public address" in refused.value.hint
            assert "uploader=" in refused.value.hint
    assert len(bench.box.journal) == before


async def test_a_local_file_by_position(bench: Bench) -> None:
    """`client.sonic.upload("song.mp3")`."""
    with pytest.raises(RequestValidationError, match=r"got 'song.mp3'"):
        await bench.client.sonic.upload("song.mp3")


class _OtherSession:
    """A session of another library, as httpx and requests have one."""

    async def request(self, method: str, url: str) -> None: ...


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"store": "jobs.sqlite"}, 'store: a store such as SQLiteStore("jobs.sqlite"), got str'),
        ({"store": SQLiteStore}, "got the class SQLiteStore"),
        ({"polling": 15}, "polling: a schedule such as"),
        ({"limiter": 3}, "limiter: a RateLimiter"),
        ({"session": "s"}, "session: an aiohttp.ClientSession"),
        ({"session": _OtherSession()}, "session: an aiohttp.ClientSession, got _OtherSession"),
        ({"webhooks": "https://a.example"}, "webhooks: Webhooks(url="),
        ({"clock": 60}, "clock: a Clock"),
        ({"limiter": MemoryLimiter(), "rate_limit": "20/10s"}, "rate_limit: left out beside limiter="),
        ({"limiter": MemoryLimiter(), "max_in_flight": 3}, "max_in_flight: left out beside limiter="),
        ({"rng": 7}, "rng: a random.Random, got int"),
        ({"rate_limit": 20}, 'rate_limit: a rate such as "20/10s", or None for no limit, got 20'),
        ({"rate_limit": 0}, "rate_limit: a rate such as"),
        ({"rate_limit": "20 per 10s"}, "rate_limit: expected something like"),
        ({"max_in_flight": "3"}, "max_in_flight: a whole number, 1 or more, got '3'"),
        ({"max_in_flight": 0}, "max_in_flight: a whole number, 1 or more, got 0"),
        ({"max_in_flight": 1.5}, "max_in_flight: a whole number"),
        ({"base_url": Path("/api/v1")}, "base_url: text, got PosixPath"),
        ({"proxy": "proxy.example:8080"}, "proxy: an http or https address"),
        ({"max_retries": "2"}, "retries: a whole number from 0 to 100, got '2'"),
        ({"trust_env": "no"}, "trust_env: True or False, got 'no'"),
        ({"close_with_loop": 1}, "close_with_loop: True or False, got 1"),
    ],
)
def test_parts_of_the_wrong_kind_are_refused_at_once(options: dict[str, Any], told: str) -> None:
    """When the client is made, and not by the first call with an error of its insides."""
    with pytest.raises(RequestValidationError) as caught:
        MusicAPI("key", **options)
    assert told in str(caught.value)


@pytest.mark.parametrize("key", [b"secret-key", 12345, ["secret-key"]])
def test_key_of_another_type_is_refused_and_not_repeated(key: Any) -> None:
    """As read in binary mode, or from a table of numbers; the error holds nothing of it."""
    with pytest.raises(RequestValidationError, match="api_key: text, got") as caught:
        MusicAPI(key)
    assert "secret" not in str(caught.value)
    assert "12345" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"job_key": 3}, "job_key"),
        ({"extra_body": [1]}, "extra_body"),
        ({"store": "x"}, "store"),
        ({"max_retries": 1.5}, "max_retries"),
        ({"resend_creates_on_5xx": "no"}, "resend_creates_on_5xx"),
        ({"resend_creates_on_5xx": 0}, "resend_creates_on_5xx"),
        ({"check_balance": "false"}, "check_balance"),
    ],
)
async def test_options_of_the_wrong_kind_are_refused(options: dict[str, Any], field: str) -> None:
    """By name, also where Python would have complained of something else."""
    async with MusicAPI("key") as client:
        with pytest.raises(RequestValidationError) as caught:
            client.with_options(**options)
    assert caught.value.field == field


@pytest.mark.parametrize("word", ["no", "false", "0"])
async def test_a_word_for_no_does_not_repeat_a_paid_call(word: Any) -> None:
    """Every text that is not empty is true, and each repeat after a 5xx may be charged."""
    async with Sandbox() as sandbox, sandbox.client(rate_limit=None) as client:
        sandbox.faults.on("POST", "/sonic/create", Fault.status(500), times=9)
        with pytest.raises(RequestValidationError):
            await client.with_options(resend_creates_on_5xx=word).sonic.create_music(**SONG)
        assert len(sandbox.journal.creates) == 0
        with pytest.raises(OutcomeUnknownError):
            await client.with_options(resend_creates_on_5xx=False).sonic.create_music(**SONG)
        assert len([entry for entry in sandbox.journal if entry.method == "POST"]) == 1


async def test_objects_in_the_place_of_ids_are_answered_with_what_to_pass(bench: Bench) -> None:
    """A clip for its id, a persona for its id, clips for one of them; tasks to wait for are a list of tasks."""
    client = bench.client
    clips = await client.task("sonic", bench.made["TASK"]).wait()
    one: Any = clips[0]
    persona: Any = await client.sonic.create_persona("Ann", bench.made["CLIP"])
    several: Any = clips
    task: Any = client.task("sonic", bench.made["TASK"])
    calls = {
        "got Clip: pass its clip_id": lambda: client.sonic.create_persona("Ann", one),
        "continue_clip_id: text, not empty, got Clip: pass its clip_id": lambda: client.sonic.concat_music(
            continue_clip_id=one
        ),
        "got Persona: pass its persona_id": lambda: client.sonic.persona_music(
            mv="sonic-v6", persona_id=persona, prompt="la"
        ),
        "got Clips: pass the clip_id of one of them": lambda: client.sonic.stems_basic(several),
        "tasks: a list of tasks, got Task": lambda: client.wait_all(task),
        "tasks: a list of tasks, got str": lambda: client.wait_all([task.task_id]),
    }
    for told, call in calls.items():
        with pytest.raises(RequestValidationError) as caught:
            await call()
        assert told in str(caught.value)


async def test_arguments_that_are_no_text_are_refused() -> None:
    """By their names, where Python would have complained of a missing method."""
    odd: Any = 5
    async with Sandbox() as sandbox, sandbox.client() as client:
        calls = {
            "method": lambda: client.request(odd, "/get-credits"),
            "path": lambda: client.request("GET", odd),
            "params": lambda: client.request("GET", "/get-credits", params=odd),
            "name": lambda: client.download("https://a.example/x.mp3", "out", name=odd),
            "key": lambda: client.job(odd),
        }
        for field, call in calls.items():
            with pytest.raises(RequestValidationError) as caught:
                await call()
            assert caught.value.field == field
        for settle in (client.resubmit(odd), client.resolve(odd, task_id="T")):
            with pytest.raises(RequestValidationError, match="key: text, got int"):
                await settle
        assert len(sandbox.journal) == 0


async def test_task_in_the_place_of_its_result_is_answered_with_await(bench: Bench) -> None:
    """By index, in a loop, and by a name; a task is still no list, and has no other attributes."""
    task: Any = bench.client.task("sonic", bench.made["TASK"])
    for use in (lambda: task[0], lambda: list(task), lambda: "vocals" in task):
        with pytest.raises(TypeError, match=r"await the task for its result: clips = await task"):
            use()
    with pytest.raises(AttributeError, match=r"no attribute 'clips'; await the task") as caught:
        print(task.clips)
    assert (caught.value.name, caught.value.obj) == ("clips", task)
    assert not isinstance(task, Iterable)
    assert not hasattr(task, "result")


async def test_id_of_a_task_is_no_clip(bench: Bench) -> None:
    """They have the same form, so the error of the service is explained."""
    with pytest.raises(NotFoundError, match="that of a task is no clip's"):
        await bench.client.sonic.wav(bench.made["TASK"])


NAMELESS: list[tuple[tuple[Any, ...], dict[str, Any], str]] = [
    (("sonic", 5), {}, "task_id"),
    (("sonic", b"T"), {}, "task_id"),
    (("sonic", ""), {}, "task_id"),
    (("sonic", "\ud800"), {}, "task_id"),
    ((5, "T"), {}, "family"),
    (("", "T"), {}, "family"),
    (("sonic", "T"), {"kind": 1}, "kind"),
    (("sonic", "T"), {"kind": "\ud800"}, "kind"),
    *(
        (("sonic", "T"), {"submitted_at": at}, "submitted_at")
        for at in (math.nan, math.inf, -1.0, 1e300, 99_999_999_999.9, 1_700_000_000_000, "0", None, True)
    ),
    ((5,), {}, "token"),
    (("musicapi:sonic:create_music:nan:T",), {}, "token"),
    (("musicapi:sonic:create_music:0:\ud800",), {}, "task_id"),
]


@pytest.mark.parametrize(("given", "more", "field"), NAMELESS)
async def test_task_that_its_token_could_not_name_again_is_refused(
    given: tuple[Any, ...], more: dict[str, Any], field: str
) -> None:
    """At once, by the name of the argument, and nothing is polled."""
    async with Sandbox() as sandbox, sandbox.client() as client:
        with pytest.raises(RequestValidationError) as caught:
            client.task(*given, **more)
        assert caught.value.field == field
        assert len(sandbox.journal) == 0


async def test_result_of_a_task_is_checked_by_its_kind() -> None:
    """The class for type checkers is the one that the operation gives, or a base of it; nothing is sent."""
    async with MusicAPI("key") as client:
        for kind, right, wrong in (
            ("stems_full", (Stems, Clips, Result), (Voice,)),
            ("create_voice", (Voice, Result), (Clips, Stems)),
            ("create_music", (Clips, Result), (Stems, Voice)),
            ("of another version", (Clips, Result), (Stems, Voice)),
        ):
            token = client.task("sonic", "T", kind=kind).token
            for result in right:
                assert client.task(token, result=result).token == token
                assert client.task("sonic", "T", kind=kind, result=result).token == token
            for result in wrong:
                with pytest.raises(RequestValidationError, match=f"the result of {kind}.*{result.__name__}"):
                    client.task(token, result=result)
        with pytest.raises(
            RequestValidationError, match="Clips, unless kind= names another operation, got Stems"
        ):
            client.task("sonic", "T", kind="", result=Stems)


@pytest.mark.parametrize("submitted_at", [0, 0.0, 1_760_000_000, 1_760_000_000.4])
async def test_token_names_the_same_task_again(submitted_at: float) -> None:
    """Whatever its id holds."""
    async with MusicAPI("key") as client:
        for task_id in ("T", "a:b", "ü%2f", "a\nb", " x ", "x" * 3000):
            task = client.task("sonic", task_id, kind="k:1", submitted_at=submitted_at)
            same = client.task(task.token)
            assert (same.family, same.task_id, same.kind) == ("sonic", task_id, "k:1")
            assert same.token == task.token


async def test_job_is_not_resolved_with_what_names_no_task() -> None:
    """Else the store would hold a task that no one can wait for."""
    wrong: Any
    async with Sandbox() as sandbox, sandbox.client(rate_limit=None) as client:
        sandbox.faults.on("POST", "/sonic/create", Fault.status(500))
        with pytest.raises(OutcomeUnknownError):
            await client.with_options(job_key="k").sonic.create_music(**SONG)
        for wrong in (5, "", b"T", "\ud800", None):
            with pytest.raises(RequestValidationError, match="task_id: text"):
                await client.resolve("k", task_id=wrong)
        job = await client.job("k")
        assert job is not None
        assert job.state == "ambiguous"
        assert (await client.resolve("k", task_id="T")).token.endswith(":T")


@pytest.mark.parametrize("bad", ["e\0v", b"songs", None, 5])
async def test_what_is_no_path_is_refused(tmp_path: Path, bad: Any) -> None:
    """Everywhere where a path is given, before anything is sent or written."""
    async with Sandbox() as sandbox, sandbox.client() as client:
        manifest = tmp_path / "songs.jsonl"
        manifest.write_text('{"id": "a", "mv": "sonic-v6", "gpt_description_prompt": "calm"}')
        wrong = f"{tmp_path}/{bad}" if isinstance(bad, str) else bad
        link = f"{sandbox.base_url}/a.mp3"

        async def opened() -> None:
            SQLiteStore(wrong)

        for attempt in (
            opened(),
            client.download(link, wrong),
            everything(client, Clip(clip_id="CLIP", state="succeeded", audio_url=link), wrong),
            run_batch(client, manifest, out=wrong),
            run_batch(client, wrong, out=tmp_path / "out"),
        ):
            with pytest.raises(RequestValidationError, match="path: text without null characters"):
                await attempt
        assert len(sandbox.journal) == 0
        assert os.listdir(tmp_path) == [manifest.name]


async def test_missing_manifest_is_an_error_of_the_system(tmp_path: Path) -> None:
    """As of any file that is read; nothing is sent or written."""
    async with Sandbox() as sandbox, sandbox.client() as client:
        with pytest.raises(FileNotFoundError):
            await run_batch(client, tmp_path / "songs.jsonl", out=tmp_path / "out")
        assert len(sandbox.journal) == 0
        assert os.listdir(tmp_path) == []


SECRET = "a secret of sixteen characters or more"
ARGUMENTS: list[tuple[Callable[..., object], dict[str, Any]]] = [
    (Clock, {"speed": 2.0}),
    (LaneLimits, {"concurrency": 1, "rate": Rate(1, 3.0)}),
    (Rate, {"count": 1, "period": 3.0}),
    (MemoryLimiter, {"lanes": {}, "clock": Clock(), "max_in_flight": 1}),
    (LearnedSchedule, {"times_of": documented, "poll_cost": 2.0, "draw": max}),
    (PollCost, {"queued": bool, "now": float}),
    (
        Webhooks,
        {
            "url": None,
            "secret": SECRET,
            "tolerance": 300.0,
            "limit": 1,
            "scheme": "X-Signature",
            "now": float,
        },
    ),
    (PostgresStore, {"address": "postgresql://127.0.0.1:9/none"}),
    (OpenTelemetryHook, {"tracer_provider": None, "meter_provider": None, "prices": {"create_music": 20}}),
    (
        partial(fastapi.router, public=True),
        {
            "webhook": "/w",
            "events": "/{token}",
            "authorize": bool,
            "on_event": print,
            "limit": 1,
            "body_timeout": 1.0,
            "heartbeat": 1.0,
        },
    ),
    (fastapi.lifespan, {"make": MusicAPI}),
    (Journal, {"size": 1}),
    (Faults, {"seed": 1, "rates": {Fault.refuse: 0.1}}),
    (Fault.status, {"code": 503, "body": "", "retry_after": 1, "taken": True}),
    (Fault.slow, {"seconds": 1.0}),
    (Fault.trickle, {"rate": 1.0}),
    (Faults().at_random, {"fault": Fault.refuse, "rate": 0.1}),
    (
        Faults().on,
        {"method": "POST", "path": "/sonic/create", "fault": Fault.refuse, "times": 1, "after": 0},
    ),
    (
        Sandbox,
        {
            "port": 0,
            "host": "127.0.0.1",
            "speed": 2.0,
            "seed": 1,
            "credits": 5.0,
            "extra_credits": 5.0,
            "api_key": "key",
            "create_limit": (1, 3.0),
            "jitter": 20.0,
            "faults": Faults(),
            "prices": {"create": 1},
            "longest": 60.0,
            "public_url": "https://tunnel.example",
            "tls": None,
            "local_ports": True,
            "state": Path("state.sqlite"),
            "control_token": "token",
        },
    ),
]


@pytest.mark.parametrize(("function", "good"), ARGUMENTS)
def test_argument_of_a_wrong_type_is_named(function: Callable[..., object], good: dict[str, Any]) -> None:
    """Where it is given, and not where it is used: the error says which argument it is, and what it can be."""
    function(**good)
    for name in good:
        for wrong in (object(), b"bytes", {1: object()}):
            with pytest.raises(
                (RequestValidationError, TypeError, ValueError), match=rf"(?i)\b({name}|fault)\b"
            ) as caught:
                function(**{**good, name: wrong})
            assert "supported" not in str(caught.value)
            assert "attribute" not in str(caught.value)


def test_number_and_truth_are_different_things() -> None:
    """True is a number for Python, and no speed, no cap and no count here; a NumPy number is one."""
    for function, name in ((Clock, "speed"), (MemoryLimiter, "max_in_flight"), (Sandbox, "credits")):
        with pytest.raises((RequestValidationError, TypeError), match=name):
            function(**{name: True})
    assert Sandbox(speed=np.float64(60)).clock.speed == 60


@pytest.mark.parametrize("prices", [{"creat": 1}, {1: 1}, {"create": "1"}, {"create": -1}])
def test_prices_of_the_sandbox_are_those_of_its_calls(prices: Any) -> None:
    """A misspelt name left the default price in force."""
    with pytest.raises(RequestValidationError, match="prices"):
        Sandbox(prices=prices)
