"""The bodies that answer a poll, family by family, in every form that is documented or was seen."""

from __future__ import annotations

from typing import Final

from .refusal import NOT_READY, TIMED_OUT, Refusal, in_form, invalid, not_found, retired
from .service import Reply, Service
from .works import Clip, Work

FAILURE: Final = "Example upstream failure"
CLIP_FAILURE: Final = "generation failed"


def unknown_task(service: Service, family: str) -> Refusal:
    """An id that no task of the family has."""
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


def poll_reply(service: Service, family: str, task_id: str, now: float) -> Reply:
    """Return the reply to `GET /<family>/task/{id}` at `now`."""
    choices = service.choices
    gone = {"nuro": choices.nuro, "riffusion": choices.riffusion, "studio": choices.studio}
    if gone.get(family) == "retired":
        raise retired()
    service.account.settle(now)
    work = service.works.get(task_id) if len(task_id) <= 200 else None
    if work is None or work.family != family:
        refusal = unknown_task(service, family)
        return Reply(in_form(refusal, choices.error), refusal.status)
    return SHOWN[family](service, work, now)


def failure(work: Work, form: str) -> Reply:
    """A failed task as a whole, in one of the documented forms other than by its clips."""
    match form:
        case "timeout-200":
            return Reply({"type": "timeout", "error": TIMED_OUT})
        case "timeout-504":
            return Reply({"type": "timeout", "error": TIMED_OUT}, 504)
        case "forbidden-200":
            return Reply({"type": "forbidden", "error": "Example moderation refusal"})
        case "api-error-200":
            return Reply({"type": "api_error", "message": FAILURE})
        case "api-error-refunded":
            return Reply({"type": "api_error", "message": FAILURE, "already_refunded": work.refunded}, 500)
        case "failed-500":
            return Reply({"type": "failed", "error": FAILURE}, 500)
        case _:
            return Reply({"type": "failed", "error": FAILURE})


def waiting(service: Service) -> Reply:
    """A task that has nothing to show yet."""
    match service.choices.not_ready:
        case "202-code":
            return Reply({"code": 202, "type": "not_ready", "error": NOT_READY}, 202)
        case "200":
            return Reply({"type": "not_ready"})
        case "empty":
            return Reply({"code": 200, "message": "success", "data": []})
        case "null":
            return Reply({"code": 200, "message": "success", "data": None})
        case _:
            return Reply({"type": "not_ready", "error": NOT_READY}, 202)


def _found(data: object, message: str = "success") -> Reply:
    return Reply({"code": 200, "message": message, "data": data})


def _early(service: Service, work: Work, now: float) -> Reply | None:
    """The answer while there is nothing to show, or when the task failed as a whole."""
    if now >= work.failed_at and (work.failure != "clips" or work.shape != "clips" or not work.clips):
        return failure(work, work.failure)
    hidden = service.choices.running == "hidden" and now < work.ends
    return waiting(service) if now < work.ready_at or hidden else None


def sonic(service: Service, work: Work, now: float) -> Reply:
    """Clips, pairs or a voice."""
    if (early := _early(service, work, now)) is not None:
        return early
    if work.shape == "voice":
        return _found(work.result) if now >= work.ends else waiting(service)
    return _found(sonic_data(service, work, now))


def sonic_data(service: Service, work: Work, now: float, *, chirp: bool = False) -> object:
    """`data` of a sonic task at `now`; webhooks always spell models as chirp."""
    if work.shape == "voice":
        return work.result
    if work.shape == "upload":
        return [{"clip_id": clip.clip_id} for clip in work.clips]
    if work.shape == "pairs":
        return [
            {
                work.pair_word: sonic_clip(service, work, part, now, chirp=chirp),
                "full": (
                    sonic_clip(service, work, full, now, chirp=chirp)
                    if part.ready(now) and now >= full.ends
                    else None
                ),
            }
            for part, full in work.pairs
        ]
    return [sonic_clip(service, work, clip, now, chirp=chirp) for clip in work.clips]


def sonic_clip(
    service: Service, work: Work, clip: Clip, now: float, *, chirp: bool = False
) -> dict[str, object]:
    """One clip in the live form."""
    choices = service.choices
    state = clip.state(now)
    pending = state == "pending"
    done = state == "succeeded"
    item: dict[str, object] = {
        "clip_id": clip.clip_id,
        "state": work.odd_state if work.odd_state and now < clip.ends else state,
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


def audio_link(service: Service, clip: Clip, now: float, ending: str = "mp3") -> str | None:
    """Nothing, then a stream link, then the file; a failed clip has none."""
    if clip.ready(now):
        folder = "stems/" if clip.stem else ""
        return service.media(f"{folder}{clip.clip_id}.{ending}")
    if clip.streams <= now < clip.ends:
        return f"{service.origin}/stream/?item_id={clip.clip_id}"
    return None


def chirped(mv: str) -> str:
    """`sonic-v5` as `chirp-v5`."""
    return f"chirp-{mv.removeprefix('sonic-')}" if mv.startswith("sonic-") else mv


def seconds(duration: float, form: str) -> str | float | int:
    """A duration as text ("104.88"), number or whole number."""
    if form == "integer":
        return round(duration)
    return f"{duration:.2f}".rstrip("0").rstrip(".") if form == "text" else round(float(duration), 2)


def producer(service: Service, work: Work, now: float) -> Reply:
    """Producer: clip states, or the form with a top-level status."""
    if service.choices.producer == "status":
        return _producer_status(service, work, now)
    if now >= work.failed_at and work.failure == "clips" and work.shape == "clips":
        return failure(work, "failed-500")
    if now >= work.failed_at:
        return failure(work, work.failure)
    if now < work.ready_at or (
        now < work.ends and (work.shape != "clips" or service.choices.running == "hidden")
    ):
        return Reply({"code": 202, "type": "not_ready", "error": NOT_READY}, 202)
    return _found(producer_data(service, work, now))


def _producer_status(service: Service, work: Work, now: float) -> Reply:
    if now >= work.failed_at:
        text = "Generation failed. Credits have been refunded."
        return Reply({"code": 200, "message": text, "status": "FAILED", "data": []})
    if now < work.ends:
        word = "PENDING" if now < work.ready_at else "RUNNING"
        return Reply({"code": 200, "message": word.lower(), "status": word, "data": []})
    data = producer_data(service, work, now)
    if work.shape == "clips":
        data = [{key: value for key, value in item.items() if key != "state"} for item in data]
    return Reply({"code": 200, "message": "success", "status": "SUCCESS", "data": data})


def producer_data(service: Service, work: Work, now: float) -> list[dict[str, object]]:
    """`data` of a Producer task."""
    if work.shape == "upload":
        return [{"clip_id": clip.clip_id} for clip in work.clips]
    if work.shape == "file":
        return [work.result]
    return [_producer_clip(service, work, clip, now) for clip in work.clips]


def _producer_clip(service: Service, work: Work, clip: Clip, now: float) -> dict[str, object]:
    state = clip.state(now)
    done = state == "succeeded"
    seed = str(clip.extra.get("seed", "0"))
    return {
        **_track(service, clip, audio_link(service, clip, now) if done else None),
        "seed": int(float(seed)) if service.choices.producer_seed == "number" else seed,
        "duration": round(clip.recipe.duration, 2) if done else None,
        "state": work.odd_state if work.odd_state and not done else state,
    }


def nuro(service: Service, work: Work, now: float) -> Reply:
    """Nuro's flat object."""
    return Reply(nuro_body(service, work, now)) if now < work.failed_at else _nuro_failure(service, work)


def nuro_body(service: Service, work: Work, now: float) -> dict[str, object]:
    """The flat object at `now`; empty texts while there is nothing."""
    clip = work.clips[0]
    done = clip.ready(now)
    share = min(max((now - work.created) / max(work.ends - work.created, 1e-9), 0.0), 0.99)
    state = "succeeded" if done else "pending" if now < work.ready_at else "running"
    body: dict[str, object] = {
        "task_id": work.task_id,
        "status": work.odd_state if work.odd_state and not done else state,
        "progress": 100 if done else 0 if state == "pending" else int(100 * share),
        "audio_url": service.media(f"{clip.clip_id}.wav") if done else "",
        "lyrics": clip.lyrics if done else "",
        "duration": round(clip.recipe.duration, 5) if done else 0,
    }
    for key in ("genre", "mood", "gender", "timbre"):
        body[key] = clip.extra.get(key, "") if done else ""
    return body


def _nuro_failure(service: Service, work: Work) -> Reply:
    if service.choices.nuro_failure == "type":
        text = "Input language not supported"
        return Reply({"type": "bad_request", "message": text, "refund_processed": work.refunded}, 400)
    body = nuro_body(service, work, work.created)
    return Reply({**body, "status": "failed", "progress": 40})


def riffusion(service: Service, work: Work, now: float) -> Reply:
    """Riffusion: nothing, "processing", one song, both songs."""
    if now >= work.failed_at:
        return failure(work, "failed-200" if work.failure == "clips" else work.failure)
    songs = [clip for clip in work.clips if now >= clip.ends]
    if now < work.ready_at or (service.choices.running == "hidden" and now < work.ends):
        return Reply({"type": "not_ready", "error": NOT_READY}, 202)
    if not songs:
        if service.choices.riffusion_interim == "202":
            return Reply({"type": "not_ready", "error": NOT_READY}, 202)
        return _found([], "processing")
    return _found([_riffusion_song(service, clip, now) for clip in songs])


def _track(service: Service, clip: Clip, audio_url: str | None) -> dict[str, object]:
    """The fields that a Producer clip and a Riffusion song share."""
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


def _riffusion_song(service: Service, clip: Clip, now: float) -> dict[str, object]:
    return {
        **_track(service, clip, audio_link(service, clip, now)),
        "vocal_variation": clip.extra.get("vocal_variation"),
        "duration": round(clip.recipe.duration, 2),
        "timestamp": {},
        "state": clip.state(now),
    }


def studio(service: Service, work: Work, now: float) -> Reply:
    """Studio: a task object inside `data`, its songs inside that."""
    failed, done, begun = now >= work.failed_at, now >= work.ends, now >= work.ready_at
    share = min(max((now - work.created) / max(work.ends - work.created, 1e-9), 0.0), 0.99)
    status = "FAILURE" if failed else "SUCCESS" if done else "IN_PROGRESS" if begun else "NOT_START"
    epoch = service.epoch
    data: dict[str, object] = {
        "task_id": work.task_id,
        "notify_hook": "",
        "action": "studio-generate",
        "status": work.odd_state if work.odd_state and not done else status,
        "fail_reason": "Example failure" if failed else "",
        "submit_time": int(epoch + work.created),
        "start_time": int(epoch + work.ready_at) if begun else 0,
        "finish_time": int(epoch + work.ends) if done and not failed else 0,
        "progress": "100%" if done else f"{int(share * 100) if begun else 0}%",
        "data": {"songs": [_studio_song(service, clip) for clip in work.clips]}
        if done and not failed
        else None,
    }
    return Reply({"code": "success", "message": "", "data": data})


def _studio_song(service: Service, clip: Clip) -> dict[str, object]:
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


def lyrics(service: Service, work: Work, now: float) -> Reply:
    """Legacy lyrics: not ready, then one object."""
    if now >= work.failed_at:
        return failure(work, "failed-200" if work.failure == "clips" else work.failure)
    return Reply({"type": "not_ready"}, 202) if now < work.ends else _found(work.result)


SHOWN: Final = {
    "sonic": sonic,
    "producer": producer,
    "nuro": nuro,
    "riffusion": riffusion,
    "studio": studio,
    "lyrics": lyrics,
}
