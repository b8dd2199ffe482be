"""The bodies of poll responses, family by family, in every form that is documented or was observed."""

from __future__ import annotations

from typing import Final

from .backend import Service
from .ordered_tasks import OrderedClip, OrderedTask
from .replies import NOT_READY, TIMED_OUT, JsonReply, Refusal, invalid, not_found, not_ready, retired

FAILURE: Final = "Example upstream failure"
STREAM: Final = "/audiopipe/"
"""The path of streams: a word of the service's own host for them, by which clients know a stream."""

CLIP_FAILURE: Final = "generation failed"


def unknown_task(service: Service, family: str) -> Refusal:
    """Return the refusal of an id that no task of the family has."""
    if family == "nuro":
        body: dict[str, object] = {
            "type": "not_found",
            "message": "Task not found",
            "refund_processed": False,
        }
        return Refusal(404, body)
    if family == "studio":
        return Refusal(400, {"code": "error", "message": "Task not found"})
    match service.choices.unknown_task:
        case "404":
            return not_found("task not found.")
        case "code":
            return Refusal(200, {"code": 404, "message": "task not found."})
        case _:
            return invalid("task not found.")


def poll_reply(service: Service, family: str, task_id: str, now: float) -> JsonReply:
    """Return the reply to `GET /<family>/task/{id}` at `now`."""
    choices = service.choices
    gone = {"nuro": choices.nuro, "riffusion": choices.riffusion, "studio": choices.studio}
    if gone.get(family) == "retired":
        raise retired()
    service.account.settle(now)
    task = service.tasks.get(task_id) if len(task_id) <= 200 else None
    if task is None or task.family != family:
        raise unknown_task(service, family)
    return POLL_REPLIES[family](service, task, now)


def failure(task: OrderedTask, form: str) -> JsonReply:
    """Return the reply for a task that failed as a whole, in one of the documented forms."""
    match form:
        case "timeout-200":
            return JsonReply({"type": "timeout", "error": TIMED_OUT})
        case "timeout-504":
            return JsonReply({"type": "timeout", "error": TIMED_OUT}, 504)
        case "forbidden-200":
            return JsonReply({"type": "forbidden", "error": "Example moderation refusal"})
        case "api-error-200":
            return JsonReply({"type": "api_error", "message": FAILURE})
        case "api-error-refunded":
            return JsonReply(
                {"type": "api_error", "message": FAILURE, "already_refunded": task.refunded}, 500
            )
        case "failed-500":
            return JsonReply({"type": "failed", "error": FAILURE}, 500)
        case _:
            return JsonReply({"type": "failed", "error": FAILURE})


def waiting(service: Service) -> JsonReply:
    """Return the reply for a task that has no clips yet."""
    match service.choices.not_ready:
        case "202-code":
            return JsonReply({"code": 202, "type": "not_ready", "error": NOT_READY}, 202)
        case "200":
            return JsonReply({"type": "not_ready"})
        case "empty":
            return JsonReply({"code": 200, "message": "success", "data": []})
        case "null":
            return JsonReply({"code": 200, "message": "success", "data": None})
        case _:
            return JsonReply({"type": "not_ready", "error": NOT_READY}, 202)


def _found(data: object, message: str = "success") -> JsonReply:
    return JsonReply({"code": 200, "message": message, "data": data})


def _early(service: Service, task: OrderedTask, now: float) -> JsonReply | None:
    """Return the reply while there are no clips, or after the task failed as a whole; else None."""
    if now >= task.failed_at and (task.failure != "clips" or task.shape != "clips" or not task.clips):
        return failure(task, task.failure)
    hidden = service.choices.running == "hidden" and now < task.ends
    return waiting(service) if now < task.ready_at or hidden else None


def sonic(service: Service, task: OrderedTask, now: float) -> JsonReply:
    """Return the reply of a Sonic task: clips, pairs or a voice."""
    if (early := _early(service, task, now)) is not None:
        return early
    if task.shape == "voice":
        return _found(task.result) if now >= task.ends else waiting(service)
    return _found(sonic_data(service, task, now))


def sonic_data(service: Service, task: OrderedTask, now: float, *, chirp: bool = False) -> object:
    """Return `data` of a Sonic task at `now`; webhooks always spell models as chirp."""
    if task.shape == "voice":
        return task.result
    if task.shape == "upload":
        return [{"clip_id": clip.clip_id} for clip in task.clips]
    if task.shape == "pairs":
        return [
            {
                task.pair_word: sonic_clip(service, task, part, now, chirp=chirp),
                "full": (
                    sonic_clip(service, task, full, now, chirp=chirp)
                    if part.ready(now) and now >= full.ends
                    else None
                ),
            }
            for part, full in task.pairs
        ]
    return [sonic_clip(service, task, clip, now, chirp=chirp) for clip in task.clips]


def sonic_clip(
    service: Service, task: OrderedTask, clip: OrderedClip, now: float, *, chirp: bool = False
) -> dict[str, object]:
    """Return one clip in the live form."""
    choices = service.choices
    state = clip.state(now)
    pending = state == "pending"
    done = state == "succeeded"
    item: dict[str, object] = {
        "clip_id": clip.clip_id,
        "state": task.odd_state if task.odd_state and now < clip.ends else state,
        "title": None if pending else clip.title,
        "tags": None if pending else clip.tags,
        "lyrics": None if pending else clip.lyrics,
        "image_url": None if pending else service.media(f"image_{clip.clip_id}.png"),
        "audio_url": audio_link(service, clip, now),
        "video_url": service.media(f"{clip.clip_id}.mp4") if done and choices.video == "link" else None,
        "created_at": service.stamp(clip.created),
        "mv": chirped(clip.mv) if chirp or choices.mv == "chirp" else clip.mv,
        "gpt_description_prompt": clip.description,
        "duration": seconds(clip.recipe.duration, choices.duration) if done else None,
        "negative_tags": clip.negative_tags,
        "style_weight": clip.style_weight,
        "weirdness_constraint": clip.weirdness,
    }
    if clip.stem and choices.stem_names != "title":
        item["stem_type"] = clip.stem
    if state == "failed":
        item[choices.clip_error] = CLIP_FAILURE
    return item


def audio_link(service: Service, clip: OrderedClip, now: float) -> str | None:
    """Return no link, then that of the stream, then that of the file; a failed clip has none."""
    if clip.ready(now):
        folder = "stems/" if clip.stem else ""
        return service.media(f"{folder}{clip.clip_id}.{clip.ending}")
    if clip.streams <= now < clip.ends:
        return f"{service.origin}{STREAM}?item_id={clip.clip_id}"
    return None


def chirped(mv: str) -> str:
    """Return `sonic-v5` as `chirp-v5`."""
    return f"chirp-{mv.removeprefix('sonic-')}" if mv.startswith("sonic-") else mv


def seconds(duration: float, form: str) -> str | float | int:
    """Return a duration as text ("104.88"), number or whole number."""
    if form == "integer":
        return round(duration)
    return f"{duration:.2f}".rstrip("0").rstrip(".") if form == "text" else round(float(duration), 2)


def producer(service: Service, task: OrderedTask, now: float) -> JsonReply:
    """Return the reply of a Producer task: clip states, or the form with a top-level status."""
    if service.choices.producer == "status":
        return _producer_status(service, task, now)
    if now >= task.failed_at and task.failure == "clips" and task.shape == "clips":
        return failure(task, "failed-500")
    if now >= task.failed_at:
        return failure(task, task.failure)
    if now < task.ready_at or (
        now < task.ends and (task.shape != "clips" or service.choices.running == "hidden")
    ):
        return JsonReply({"code": 202, "type": "not_ready", "error": NOT_READY}, 202)
    return _found(producer_data(service, task, now))


def _producer_status(service: Service, task: OrderedTask, now: float) -> JsonReply:
    if now >= task.failed_at:
        text = "Generation failed. Credits have been refunded."
        return JsonReply({"code": 200, "message": text, "status": "FAILED", "data": []})
    if now < task.ends:
        word = "PENDING" if now < task.ready_at else "RUNNING"
        return JsonReply({"code": 200, "message": word.lower(), "status": word, "data": []})
    data = producer_data(service, task, now)
    if task.shape == "clips":
        omitted = ("state", "created_at")
        data = [
            {
                **{key: value for key, value in item.items() if key not in omitted},
                "wav_url": service.media(f"{item['clip_id']}.wav"),
            }
            for item in data
        ]
    return JsonReply({"code": 200, "message": "success", "status": "SUCCESS", "data": data})


def producer_data(service: Service, task: OrderedTask, now: float) -> list[dict[str, object]]:
    """Return `data` of a Producer task."""
    if task.shape == "upload":
        return [{"clip_id": clip.clip_id} for clip in task.clips]
    if task.shape == "file":
        return [task.result]
    return [_producer_clip(service, task, clip, now) for clip in task.clips]


def _producer_clip(service: Service, task: OrderedTask, clip: OrderedClip, now: float) -> dict[str, object]:
    state = clip.state(now)
    done = state == "succeeded"
    seed = str(clip.extra.get("seed", "0"))
    return {
        **_track(service, clip, audio_link(service, clip, now) if done else None),
        "seed": int(float(seed)) if service.choices.producer_seed == "number" else seed,
        "duration": round(clip.recipe.duration, 2) if done else None,
        "state": task.odd_state if task.odd_state and not done else state,
    }


def nuro(service: Service, task: OrderedTask, now: float) -> JsonReply:
    """Return the reply of a Nuro task: one flat object."""
    return JsonReply(nuro_body(service, task, now)) if now < task.failed_at else _nuro_failure(service, task)


def nuro_body(service: Service, task: OrderedTask, now: float) -> dict[str, object]:
    """Return the flat object at `now`; empty texts while there is nothing."""
    clip = task.clips[0]
    done = clip.ready(now)
    state = "succeeded" if done else "pending" if now < task.ready_at else "running"
    body: dict[str, object] = {
        "task_id": task.task_id,
        "status": task.odd_state if task.odd_state and not done else state,
        "progress": 100 if done else 0 if state == "pending" else task.percent(now),
        "audio_url": service.media(f"{clip.clip_id}.wav") if done else "",
        "lyrics": clip.lyrics if done else "",
        "duration": round(clip.recipe.duration, 5) if done else 0,
    }
    for key in ("genre", "mood", "gender", "timbre"):
        body[key] = clip.extra.get(key, "") if done else ""
    return body


def _nuro_failure(service: Service, task: OrderedTask) -> JsonReply:
    if service.choices.nuro_failure == "type":
        text = "Input language not supported"
        return JsonReply({"type": "bad_request", "message": text, "refund_processed": task.refunded}, 400)
    body = nuro_body(service, task, task.created)
    return JsonReply({**body, "status": "failed", "progress": 40})


def riffusion(service: Service, task: OrderedTask, now: float) -> JsonReply:
    """Return the reply of a Riffusion task: nothing, "processing", one song, both songs."""
    if now >= task.failed_at:
        return failure(task, "failed-200" if task.failure == "clips" else task.failure)
    songs = [clip for clip in task.clips if now >= clip.ends]
    if now < task.ready_at or (service.choices.running == "hidden" and now < task.ends):
        raise not_ready()
    if not songs and service.choices.riffusion_interim == "202":
        raise not_ready()
    if not songs:
        return _found([], "processing")
    return _found([_riffusion_song(service, clip, now) for clip in songs])


def _track(service: Service, clip: OrderedClip, audio_url: str | None) -> dict[str, object]:
    """Return the fields that a Producer clip and a Riffusion song share."""
    return {
        "clip_id": clip.clip_id,
        "title": clip.title,
        "sound": clip.extra.get("sound"),
        "lyrics": clip.lyrics,
        "image_url": service.media(f"image_{clip.clip_id}.png"),
        "audio_url": audio_url,
        "video_url": None,
        "created_at": service.stamp(clip.created),
        "mv": clip.mv,
    }


def _riffusion_song(service: Service, clip: OrderedClip, now: float) -> dict[str, object]:
    return {
        **_track(service, clip, audio_link(service, clip, now)),
        "vocal_variation": clip.extra.get("vocal_variation"),
        "duration": round(clip.recipe.duration, 2),
        "timestamp": {},
        "state": clip.state(now),
    }


def studio(service: Service, task: OrderedTask, now: float) -> JsonReply:
    """Return the reply of a Studio task: a task object inside `data`, its songs inside that."""
    failed, done, begun = now >= task.failed_at, now >= task.ends, now >= task.ready_at
    status = "FAILURE" if failed else "SUCCESS" if done else "IN_PROGRESS" if begun else "NOT_START"
    data: dict[str, object] = {
        "task_id": task.task_id,
        "notify_hook": "",
        "action": "studio-generate",
        "status": task.odd_state if task.odd_state and not done else status,
        "fail_reason": "Example failure" if failed else "",
        "submit_time": int(task.date),
        "start_time": _date_of(service, task, task.ready_at) if begun else 0,
        "finish_time": _date_of(service, task, task.ends) if done and not failed else 0,
        "progress": "100%" if done else f"{task.percent(now) if begun else 0}%",
        "data": {"songs": [_studio_song(service, clip) for clip in task.clips]}
        if done and not failed
        else None,
    }
    return JsonReply({"code": "success", "message": "", "data": data})


def _date_of(service: Service, task: OrderedTask, at: float) -> int:
    """Return the real date (seconds since 1970) of a moment in the life of a task, at most that of now."""
    return int(min(task.date + (at - task.created) / service.time.clock.speed, service.time.date()))


def _studio_song(service: Service, clip: OrderedClip) -> dict[str, object]:
    words = [word.strip() for word in clip.tags.split(",") if word.strip()]
    return {
        "id": clip.clip_id,
        "tags": words if service.choices.studio_tags == "list" else clip.tags,
        "liked": False,
        "likes": 0,
        "plays": 0,
        "title": clip.title,
        "artist": "Sandbox",
        "lyrics": clip.lyrics,
        "prompt": clip.extra.get("prompt"),
        "song_path": service.media(f"{clip.clip_id}.mp3"),
        "image_path": service.media(f"image_{clip.clip_id}.png"),
        "duration": round(clip.recipe.duration, 2),
        "created_at": service.stamp(clip.created),
        "finished": True,
    }


def lyrics(service: Service, task: OrderedTask, now: float) -> JsonReply:
    """Return the reply of a legacy lyrics task: not ready, then one object."""
    if now >= task.failed_at:
        return failure(task, "failed-200" if task.failure == "clips" else task.failure)
    return JsonReply({"type": "not_ready"}, 202) if now < task.ends else _found(task.result)


POLL_REPLIES: Final = {
    "sonic": sonic,
    "producer": producer,
    "nuro": nuro,
    "riffusion": riffusion,
    "studio": studio,
    "lyrics": lyrics,
}
