"""Endpoints that begin with a file behind a link: uploads, voices, and what is made of them in one call."""

from __future__ import annotations

from typing import Final

import anyio.to_thread

from .backend import Call, submitted
from .media_host import audio_of
from .ordered_tasks import NEVER, OrderedClip, OrderedTask, StoredPersona
from .outbound_requests import NOT_ALLOWED, NotAccessible
from .recipes import UploadedFile, continued, joined, made, uploaded
from .replies import NOT_ACCESSIBLE, JsonReply, Refusal, invalid, retired
from .score import Brief
from .song_clips import SongRequest, read_song, variants
from .sonic_creates import cover, extension, whole
from .validation import SHORT_TAGS

SHORTEST_VOICE: Final = 10.0
"""Seconds (vendor's page on voices)."""

NOT_AUDIO: Final = "Upload request failed (HTTP 400): Invalid audio file"
TOO_LONG: Final = "Upload request failed (HTTP 400): The audio should be at most 8 minutes long"
KNOWN_SONG: Final = "Upload request failed (HTTP 400): The audio matches an existing recording"
WARNING: Final = "The voice may be removed by the provider after some time; keep the source audio."
SECOND_STEP: Final = "Example refusal"


async def imported(call: Call, url: str) -> OrderedClip:
    """Fetch a file and make a clip of it; 400 with the documented texts when that cannot be done."""
    try:
        data = await call.service.outbound.fetch(url)
    except NotAccessible as error:
        reason = str(error)
        if reason:
            call.entry.fault = call.entry.fault or NOT_ALLOWED
        raise invalid(f"{NOT_ACCESSIBLE} {reason}".rstrip()) from None
    if "existing-recording" in url:
        raise invalid(KNOWN_SONG)
    try:
        duration, seed = await anyio.to_thread.run_sync(audio_of, data)
    except ModuleNotFoundError as error:
        raise Refusal(500, {"type": "internal_error", "error": str(error)}) from None
    except ValueError as error:
        raise invalid(TOO_LONG if "at most" in str(error) else NOT_AUDIO) from None
    await call.service.sleep(call.service.durations.upload)
    call.now = call.service.now()
    brief = Brief(seed=seed, title="Upload", duration=duration)
    own = call.service.clip_at(url)  # of a song made here it is known what is heard
    clip = OrderedClip(
        call.service.new_id(),
        own.recipe if own else uploaded(brief, duration, call.service.store_upload(UploadedFile(data))),
        mv="sonic-v6",
        title="Upload",
        uploaded=True,
        created=call.service.time.date(),
        ends=call.now,
        file_at=call.now,
    )
    return call.service.clips.put(clip.clip_id, clip)


async def _paid_import(call: Call, kind: str, url: str) -> OrderedClip:
    """Return a file as a clip, paid for once it is there."""
    call.afford(kind)
    clip = await imported(call, url)
    call.pay(kind)
    return clip


async def upload(call: Call) -> JsonReply:
    """`POST /sonic/upload`: direct, or a task when `callback_url` is given."""
    service, form = call.service, call.form
    url, callback = form.source_url(), form.hook("callback_url")
    clip = await _paid_import(call, "upload", url)
    if callback is not None:
        task = call.order("sonic", "upload", (service.durations.upload, 0.0), [clip], shape="upload")
        task.webhook = (callback, "")
        service.on_task(task)
        return submitted(call, task)
    body: dict[str, object] = {"code": 200, "message": "success"}
    if service.choices.upload == "nested":
        body["data"] = {"clip_id": clip.clip_id}
    else:
        body["clip_id"] = clip.clip_id
    return JsonReply(body)


async def riffusion_upload(call: Call) -> JsonReply:
    """`POST /riffusion/upload`: direct."""
    if call.service.choices.riffusion == "retired":
        raise retired()
    url = call.form.source_url()
    clip = await _paid_import(call, "riffusion_upload", url)
    return JsonReply({"code": 200, "clip_id": clip.clip_id, "message": "success"})


async def producer_upload(call: Call) -> JsonReply:
    """`POST /producer/upload`: a task whose result is the clip id."""
    form, service = call.form, call.service
    url, webhook = form.source_url("audio_url"), form.webhook()
    clip = await _paid_import(call, "producer_file", url)
    spread = service.durations.producer_file
    return submitted(call, call.order("producer", "upload", spread, [clip], shape="upload", webhook=webhook))


async def create_voice(call: Call) -> JsonReply:
    """`POST /sonic/create-voice`: a task whose result can sing like a persona."""
    form, service = call.form, call.service
    url, webhook = form.source_url("audio_url"), form.webhook()
    call.afford("voice", form="402")
    source = await imported(call, url)
    if source.recipe.duration <= SHORTEST_VOICE:
        raise invalid("The audio should be longer than 10 seconds.")
    call.pay("voice", form="402")
    task = call.order("sonic", "create-voice", service.durations.voice, shape="voice", webhook=webhook)
    persona_id = service.new_id()
    task.result = {"persona_id": persona_id, **({"name": "Voice"} if service.choices.voice_name else {})}
    ready = NEVER if task.failed_at < NEVER else task.ends
    life = service.choices.voice_life
    service.personas.put(
        persona_id,
        StoredPersona(persona_id, "Voice", "", source.recipe.brief.seed, ready_at=ready, life=life),
    )
    return submitted(call, task, **({"warning": WARNING} if service.choices.voice_warning else {}))


async def upload_extend(call: Call) -> JsonReply:
    """`POST /sonic/upload-extend`: import, extend and perhaps join, in one call."""
    form = call.form
    song = read_song(call, lengthy=True)
    at, auto, webhook = form.number("continue_at"), form.flag("auto_concat"), form.webhook()
    source = await _both_steps(call, "upload_extend", "extend", form.source_url())
    parts = extension(call, song, source, at)
    spread = call.service.durations.song
    if auto:
        pairs = [(part, whole(call, part)) for part in parts]
        task = call.order("sonic", "upload-extend", spread, pairs=pairs, webhook=webhook)
    else:
        task = call.order("sonic", "upload-extend", spread, parts, webhook=webhook)
    return _stepped(call, task, source, "extend")


async def upload_cover(call: Call) -> JsonReply:
    """`POST /sonic/upload-cover`: import and cover in one call."""
    form = call.form
    song = read_song(call, lengthy=True)
    form.flag("auto_concat")
    url, webhook = form.source_url(), form.webhook()
    source = await _both_steps(call, "upload_cover", "cover", url)
    clips = cover(call, song, source)
    task = call.order("sonic", "upload-cover", call.service.durations.song, clips, webhook=webhook)
    return _stepped(call, task, source, "cover")


async def sample(call: Call) -> JsonReply:
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
    clips = _sampled(call, song, source, start, end)
    task = call.order("sonic", "sample", service.durations.song, clips, webhook=webhook)
    return _stepped(call, task, source, "sample") if url is not None else submitted(call, task)


def _sampled(
    call: Call, song: SongRequest, source: OrderedClip, start: float, end: float
) -> list[OrderedClip]:
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


async def _both_steps(call: Call, kind: str, step: str, given: OrderedClip | str) -> OrderedClip:
    """Return the clip that was given, or made of a link, once both steps are sure.

    Raises:
        Refusal: Which of them failed; the uploaded clip stays usable after the second.
    """
    call.form.moderate()
    call.afford(kind)
    try:
        source = await imported(call, given) if isinstance(given, str) else given
    except Refusal as refusal:
        if refusal.status != 400:
            raise
        upload: dict[str, object] = {"success": False, "error": refusal.body.get("error")}
        raise _failed(call, "upload", {"upload": upload}) from None
    fault = call.service.faults.pick("step", call.entry.method, call.entry.path)
    if fault is not None:
        call.entry.fault = call.entry.fault or fault.name
        upload = {"success": True, "clip_id": source.clip_id}
        raise _failed(call, step, {"upload": upload, step: {"success": False, "error": SECOND_STEP}})
    call.pay(kind)
    return source


def _failed(call: Call, step: str, steps: dict[str, object]) -> Refusal:
    text = f"{step.capitalize()} failed"
    body: dict[str, object] = {"code": 400, "message": text, "failed_step": step, "steps": steps}
    return Refusal(call.service.choices.step_failure, body)


def _stepped(call: Call, task: OrderedTask, source: OrderedClip, step: str) -> JsonReply:
    form = call.service.choices.steps
    first: dict[str, object] = {"clip_id": source.clip_id}
    if form == "short":
        return JsonReply({"task_id": task.task_id, "steps": {"upload": first, step: {}}})
    if form == "none":
        return submitted(call, task)
    steps = {
        "upload": {"success": True, **first},
        step: {"success": True, "task_id": task.task_id},
    }
    return JsonReply({"code": 200, "message": "success", "task_id": task.task_id, "steps": steps})
