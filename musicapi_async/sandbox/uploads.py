"""Everything that begins with a file from elsewhere."""

from __future__ import annotations

from typing import Final

import anyio.to_thread

from .media_host import audio_of
from .outside import NotAccessible
from .recipes import continued, joined, made, uploaded
from .refusal import NOT_ACCESSIBLE, Refusal, invalid, retired
from .score import Brief
from .service import Call, Reply, submitted
from .song_requests import Song, read_song, variants
from .sonic_creates import cover, extension, whole
from .validation import SHORT_TAGS
from .works import NEVER, Clip, Persona, Work

LONGEST_UPLOAD: Final = 480.0
SHORTEST_VOICE: Final = 10.0
"""Seconds (vendor's pages on uploads and voices)."""

NOT_AUDIO: Final = "Upload request failed (HTTP 400): Invalid audio file"
TOO_LONG: Final = "Upload request failed (HTTP 400): The audio should be at most 8 minutes long"
KNOWN: Final = "Upload request failed (HTTP 400): The audio matches an existing recording"
WARNING: Final = "The voice may be removed by the provider after some time; keep the source audio."
SECOND_STEP: Final = "Example refusal"


async def imported(call: Call, url: str) -> Clip:
    """Fetch a file and make a clip of it; 400 with the documented texts when that cannot be done."""
    try:
        data = await call.service.outside.fetch(url)
    except NotAccessible:
        raise invalid(NOT_ACCESSIBLE) from None
    if "existing-recording" in url:
        raise invalid(KNOWN)
    try:
        duration, seed = await anyio.to_thread.run_sync(audio_of, data)
    except ModuleNotFoundError as error:
        raise Refusal(500, {"type": "internal_error", "error": str(error)}) from None
    except ValueError as error:
        raise invalid(TOO_LONG if "at most" in str(error) else NOT_AUDIO) from None
    await call.service.sleep(call.service.durations.upload)
    call.now = call.service.now()
    brief = Brief(seed=seed, title="Upload", duration=duration)
    own = call.service.whose(url)  # of a song made here it is known what is heard
    clip = Clip(
        call.service.new_id(),
        own.recipe if own else uploaded(brief, duration, call.service.keep_audio(data)),
        mv="sonic-v6",
        title="Upload",
        uploaded=True,
        created=call.now,
        ends=call.now,
        file_at=call.now,
    )
    return call.service.clips.put(clip.clip_id, clip)


async def _bought(call: Call, kind: str, url: str) -> Clip:
    """A file as a clip, paid for once it is there."""
    call.afford(kind)
    clip = await imported(call, url)
    call.pay(kind)
    return clip


async def upload(call: Call) -> Reply:
    """`POST /sonic/upload`: direct, or a task when `callback_url` is given."""
    service, form = call.service, call.form
    url, callback = form.source_url(), form.callback()
    clip = await _bought(call, "upload", url)
    if callback is not None:
        work = call.order("sonic", "upload", (service.durations.upload, 0.0), [clip], shape="upload")
        work.webhook = (callback, "")
        service.on_work(work)
        return submitted(call, work)
    body: dict[str, object] = {"code": 200, "message": "success"}
    if service.choices.upload == "nested":
        body["data"] = {"clip_id": clip.clip_id}
    else:
        body["clip_id"] = clip.clip_id
    return Reply(body)


async def riffusion_upload(call: Call) -> Reply:
    """`POST /riffusion/upload`: direct."""
    if call.service.choices.riffusion == "retired":
        raise retired()
    url = call.form.source_url()
    clip = await _bought(call, "riffusion_upload", url)
    return Reply({"code": 200, "clip_id": clip.clip_id, "message": "success"})


async def producer_upload(call: Call) -> Reply:
    """`POST /producer/upload`: a task whose result is the clip id."""
    form, service = call.form, call.service
    url, webhook = form.source_url("audio_url"), form.webhook()
    clip = await _bought(call, "producer_file", url)
    spread = service.durations.producer_file
    return submitted(call, call.order("producer", "upload", spread, [clip], shape="upload", webhook=webhook))


async def create_voice(call: Call) -> Reply:
    """`POST /sonic/create-voice`: a task whose result can sing like a persona."""
    form, service = call.form, call.service
    url, webhook = form.source_url("audio_url"), form.webhook()
    call.afford("voice", form="402")
    source = await imported(call, url)
    if source.recipe.duration <= SHORTEST_VOICE:
        raise invalid("The audio should be longer than 10 seconds.")
    call.pay("voice", form="402")
    work = call.order("sonic", "create-voice", service.durations.voice, shape="voice", webhook=webhook)
    persona_id = service.new_id()
    work.result = {"persona_id": persona_id, **({"name": "Voice"} if service.choices.voice_name else {})}
    ready = NEVER if work.failed_at < NEVER else work.ends
    life = service.choices.voice_life
    service.personas.put(
        persona_id,
        Persona(persona_id, "Voice", "", source.recipe.brief.seed, ready_at=ready, expires=ready + life),
    )
    return submitted(call, work, **({"warning": WARNING} if service.choices.voice_warning else {}))


async def upload_extend(call: Call) -> Reply:
    """`POST /sonic/upload-extend`: import, extend and perhaps join, in one call."""
    form = call.form
    song = read_song(call, lengthy=True)
    at, auto, webhook = form.number("continue_at"), form.flag("auto_concat"), form.webhook()
    source = await _both_steps(call, "upload_extend", "extend", form.source_url())
    if isinstance(source, Reply):
        return source
    parts = extension(call, song, source, at)
    spread = call.service.durations.song
    if auto:
        pairs = [(part, whole(call, part)) for part in parts]
        work = call.order("sonic", "upload-extend", spread, pairs=pairs, webhook=webhook)
    else:
        work = call.order("sonic", "upload-extend", spread, parts, webhook=webhook)
    return _stepped(call, work, source, "extend")


async def upload_cover(call: Call) -> Reply:
    """`POST /sonic/upload-cover`: import and cover in one call."""
    form = call.form
    song = read_song(call, lengthy=True)
    form.flag("auto_concat")
    url, webhook = form.source_url(), form.webhook()
    source = await _both_steps(call, "upload_cover", "cover", url)
    if isinstance(source, Reply):
        return source
    clips = cover(call, song, source)
    work = call.order("sonic", "upload-cover", call.service.durations.song, clips, webhook=webhook)
    return _stepped(call, work, source, "cover")


async def sample(call: Call) -> Reply:
    """`POST /sonic/sample`: a new song built on a segment of a clip or of a file."""
    form, service = call.form, call.service
    song = read_song(call, also=("sonic-v4-5-all",), tags=SHORT_TAGS)
    form.flag("make_instrumental", needed=True)
    url, clip_id = form.text("url"), form.text("sample_clip_id")
    if (url is None) == (clip_id is None):
        raise invalid("Exactly one of the 'url' and 'sample_clip_id' fields is required.")
    start = form.number("chop_sample_start_s", needed=True) or 0.0
    end = form.number("chop_sample_end_s", needed=True) or 0.0
    if end <= start:
        raise invalid("The 'chop_sample_end_s' field should be greater than 'chop_sample_start_s'.")
    webhook = form.webhook()
    given = form.source_url() if clip_id is None else service.clip(clip_id, call.now)
    source = await _both_steps(call, "sample", "sample", given)
    if isinstance(source, Reply):
        return source
    clips = _sampled(call, song, source, start, end)
    work = call.order("sonic", "sample", service.durations.song, clips, webhook=webhook)
    return _stepped(call, work, source, "sample") if url is not None else submitted(call, work)


def _sampled(call: Call, song: Song, source: Clip, start: float, end: float) -> list[Clip]:
    chop = made("cut", source.recipe.brief, source.recipe, start=start, end=end)
    longest = call.service.longest
    return variants(
        call,
        song,
        lambda brief: joined(
            chop, chop.duration, continued(chop, chop.duration, brief, longest=longest, seconds=song.seconds)
        ),
        inherits=source,
    )


async def _both_steps(call: Call, kind: str, step: str, given: Clip | str) -> Clip | Reply:
    """The clip that was given, or made of a link, once both steps are sure; else which one failed."""
    call.form.moderate()
    call.afford(kind)
    source = await _first_step(call, given) if isinstance(given, str) else given
    if isinstance(source, Reply):
        return source
    failed = _second_step(call, source, step)
    if failed is None:
        call.pay(kind)
    return source if failed is None else failed


async def _first_step(call: Call, url: str) -> Clip | Reply:
    """The uploaded clip, or the reply with which the upload failed."""
    try:
        return await imported(call, url)
    except Refusal as refusal:
        if refusal.status != 400:
            raise
        step: dict[str, object] = {"success": False, "error": refusal.body.get("error")}
        return _failed(call, "upload", {"upload": step})


def _second_step(call: Call, source: Clip, step: str) -> Reply | None:
    """The answer when the second step is scripted to fail; the uploaded clip stays usable."""
    fault = call.service.faults.pick("step", call.entry.method, call.entry.path)
    if fault is None:
        return None
    call.entry.fault = call.entry.fault or fault.name
    first: dict[str, object] = {"success": True, "clip_id": source.clip_id}
    return _failed(call, step, {"upload": first, step: {"success": False, "error": SECOND_STEP}})


def _failed(call: Call, step: str, steps: dict[str, object]) -> Reply:
    body = {"code": 400, "message": f"{step.capitalize()} failed", "failed_step": step, "steps": steps}
    return Reply(body, call.service.choices.step_failure)


def _stepped(call: Call, work: Work, source: Clip, step: str) -> Reply:
    form = call.service.choices.steps
    first: dict[str, object] = {"clip_id": source.clip_id}
    if form == "short":
        return Reply({"task_id": work.task_id, "steps": {"upload": first, step: {}}})
    if form == "none":
        return submitted(call, work)
    steps = {
        "upload": {"success": True, **first},
        step: {"success": True, "task_id": work.task_id},
    }
    return Reply({"code": 200, "message": "success", "task_id": work.task_id, "steps": steps})
