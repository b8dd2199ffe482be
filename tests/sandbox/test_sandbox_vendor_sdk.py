"""The vendor's own synchronous SDK, which nobody here wrote, works against the sandbox unchanged."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from musicapi_async.sandbox import Choices, Durations, Fault, Sandbox

vendor = pytest.importorskip("musicapi")

HIDDEN = Choices(running="hidden")
"""The vendor's SDK takes `code` 200 for the end of a task."""


@pytest.fixture
def anyio_backend() -> str:
    """Threads live in real time."""
    return "asyncio"


async def using(sandbox: Sandbox, work: Callable[[Any], Any]) -> Any:
    """Run synchronous code with the vendor's client in a thread."""

    def run() -> Any:
        with vendor.MusicAPI("sandbox-key", base_url=sandbox.base_url, max_retries=0) as client:
            return work(client)

    return await asyncio.to_thread(run)


def quickly() -> Any:
    return vendor.PollOptions(poll_interval_ms=5, timeout_ms=20_000)


def wish(text: str = "calm rain") -> Any:
    return vendor.SonicCreateParams(custom_mode=False, mv="sonic-v5", gpt_description_prompt=text)


async def test_vendor_generates_and_waits(start):
    """A song from description to two finished clips; the balance goes down once."""
    api = await start(choices=HIDDEN)

    def work(client: Any) -> None:
        result = client.sonic.generate_and_wait(wish(), quickly())
        assert [song.state for song in result.data] == ["succeeded", "succeeded"]
        assert result.data[0].audio_url.endswith(".mp3")
        assert client.credits.get().credits == 980
        again = client.suno.generate_and_wait(wish("again"), quickly())
        assert len(again.data) == 2

    await using(api.sandbox, work)
    assert api.sandbox.journal.charged_twice() == []
    assert {entry.status for entry in api.sandbox.journal.polls} == {200, 202}


async def test_vendor_uses_every_tool(start):
    """Persona, vox, bpm, wav, midi, lyrics, tags, stems, mashup, replace, sample and uploads."""
    api = await start(choices=HIDDEN, durations=Durations(midi=0.0), credits=5000)
    clip = await api.song()
    clip_id, url = clip["clip_id"], clip["audio_url"]

    def work(client: Any) -> None:
        sonic = client.sonic
        assert sonic.create_persona(vendor.CreatePersonaParams("Voice", clip_id)).persona_id
        assert sonic.vox(vendor.VoxParams(clip_id)).data["status"] == "ready"
        assert sonic.bpm(vendor.BpmParams(clip_id)).data["avg_bpm"] > 0
        assert sonic.wav(vendor.WavParams(clip_id)).data["wav_url"].endswith(".wav")
        assert sonic.midi(vendor.MidiParams(clip_id)).data["instruments"]
        assert sonic.aligned_lyrics(vendor.AlignedLyricsParams(clip_id)).data["alignment"]
        assert len(sonic.lyrics(vendor.SonicLyricsParams("a song about sky")).results) == 2
        assert sonic.upsample_tags(vendor.UpsampleTagsParams("pop")).data["upsampled_tags"]
        assert len(sonic.stems_basic_and_wait(vendor.StemsParams(clip_id), quickly()).data) == 2
        assert len(sonic.stems_full_and_wait(vendor.StemsParams(clip_id), quickly()).data) == 12
        uploaded = sonic.upload(vendor.SonicUploadParams(url)).clip_id
        mixed = vendor.MashupParams((clip_id, uploaded), False, "sonic-v5", gpt_description_prompt="blend")
        assert len(sonic.mashup_and_wait(mixed, quickly()).data) == 2
        section = vendor.ReplaceSectionParams(clip_id, "sonic-v5", 1, 3)
        assert sonic.replace_section_and_wait(section, quickly()).data
        sample = vendor.SampleParams(0, 2, False, "sonic-v5", True, url=url, gpt_description_prompt="dance")
        assert sonic.sample(sample).task_id
        cover = vendor.UploadCoverParams(url, False, "sonic-v5", gpt_description_prompt="jazz")
        assert sonic.upload_cover(cover).steps["cover"]["success"]
        extend = vendor.UploadExtendParams(url, False, "sonic-v5", gpt_description_prompt="more")
        assert sonic.upload_extend(extend).steps["extend"]["task_id"]
        task_id = client.suno.make_lyrics(vendor.MakeLyricsParams("sky")).data["task_id"]
        assert task_id
        assert client.suno.get_song(vendor.GetSongParams("https://suno.example/song/x")).song_title

    await using(api.sandbox, work)


async def test_vendor_uses_the_other_families(start):
    """Producer, Riffusion and Studio."""
    api = await start(choices=HIDDEN)

    def work(client: Any) -> None:
        track = client.producer.generate_and_wait(vendor.ProducerCreateParams(sound="pop"), quickly())
        assert track.data[0].duration > 0
        file = vendor.ProducerDownloadParams(track.data[0].clip_id, "mp3")
        assert client.producer.download_and_wait(file, quickly()).data[0]
        songs = client.riffusion.generate_and_wait(
            vendor.RiffusionCreateParams(custom_mode=False, prompt="r&b"), quickly()
        )
        assert len(songs.data) == 2
        request = vendor.StudioCreateParams(
            prompt="rock",
            lyrics_type="generate",
            prompt_strength=0.5,
            clarity_strength=0.25,
            lyrics_strength=0.5,
            generation_quality=0.75,
            model_type="studio32-v1.5",
            config={"mode": "regular"},
        )
        assert client.studio.generate_and_wait(request, quickly()).data.status == "SUCCESS"

    await using(api.sandbox, work)


async def test_vendor_sees_failures(start):
    """A failed task and a refused request raise the vendor's own error with our type and text."""
    api = await start(choices=HIDDEN)
    api.sandbox.faults.on("POST", "/sonic/create", Fault.fail("timeout-200"))

    def work(client: Any) -> None:
        with pytest.raises(vendor.MusicAPIError, match="timeout"):
            client.sonic.generate_and_wait(wish(), quickly())
        with pytest.raises(vendor.MusicAPIError, match="mv"):
            client.sonic.create(vendor.SonicCreateParams(custom_mode=False, mv="x"))

    await using(api.sandbox, work)
    assert api.sandbox.balance == 1000
