"""The other families through the client: results by what was asked, warnings once, the sister hosts' word."""

from __future__ import annotations

import warnings

import pytest

import musicapi_async
from musicapi_async import (
    Clips,
    ConcatPairs,
    EndpointRetiredError,
    MusicAPI,
    RequestValidationError,
    Stems,
    TaskFailedError,
    Voice,
)
from musicapi_async.api.account import Credits, Spending
from musicapi_async.api.families import FAMILIES
from musicapi_async.sandbox import Choices, Fault, Sandbox

SPEED = 500.0
LYRICS = "[Verse]\nRain on the window\n[Chorus]\nStay for the evening"


async def test_a_deprecated_family_works_and_warns_once_at_the_callers_line() -> None:
    """The warning names the replacement; the second call is silent."""
    async with Sandbox(speed=SPEED, seed=1) as sandbox, sandbox.client(rate_limit=None) as client:
        with pytest.warns(DeprecationWarning, match=r"use .*create") as caught:
            task = await client.nuro.create_vocal(lyrics=LYRICS, gender="Female")
        assert caught[0].filename == __file__
        clips = await task.wait()
        assert clips[0].clip_id == task.task_id
        assert clips[0].final_url
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            await client.with_options(max_retries=1).nuro.create_vocal(lyrics=LYRICS)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_riffusion_and_studio_give_clips() -> None:
    """Their odd envelopes read like all others."""
    async with Sandbox(speed=SPEED, seed=1) as sandbox, sandbox.client(rate_limit=None) as client:
        songs = await (
            await client.riffusion.create(mv="FUZZ-1.1 Pro", custom_mode=False, prompt="r&b pop song")
        ).wait()
        assert isinstance(songs, Clips)
        assert len(songs) == 2
        track = await client.producer.create_music(sound="pop, bright", title="Track")
        made = (await track.wait())[0]
        assert made.title == "Track"
        wav = await client.producer.download(made.clip_id, "wav")
        assert wav.token.endswith(":wav")
        assert str((await wav.wait())[0].final_url).endswith(".wav")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_a_retired_endpoint_names_its_replacement() -> None:
    """410 is an error of its own."""
    async with Sandbox(speed=SPEED, choices=Choices(nuro="retired")) as sandbox, sandbox.client() as client:
        with pytest.raises(EndpointRetiredError) as caught:
            await client.nuro.create_bgm(description="calm")
        assert caught.value.replacement
        assert caught.value.replacement in str(caught.value)
        assert sandbox.journal.charges == 0


async def test_a_retired_task_type_names_its_replacement() -> None:
    """Also where no typed call asks for it: by a bare request, or by a field of one's own."""
    async with Sandbox(speed=SPEED) as sandbox, sandbox.client(rate_limit=None) as client:
        with pytest.raises(EndpointRetiredError, match=r"Use producer\.replace_music") as caught:
            await client.request("POST", "/producer/create", json={"task_type": "swap_music_sound"})
        assert caught.value.replacement == "producer.replace_music over the window"
        varied = client.with_options(extra_body={"task_type": "music_variation"})
        with pytest.raises(EndpointRetiredError, match="another seed"):
            await varied.producer.create_music(sound="pop")
        assert sandbox.journal.charges == 0


async def test_results_follow_what_was_asked() -> None:
    """Stems by name, pairs with their full songs, a voice with its persona id."""
    async with (
        Sandbox(speed=SPEED, seed=1, credits=5000) as sandbox,
        sandbox.client(rate_limit=None) as client,
    ):
        clip = (await (await client.sonic.create_music(mv="sonic-v6", prompt=LYRICS)).wait())[0]
        stems = await (await client.sonic.stems_basic(clip.clip_id)).wait()
        assert isinstance(stems, Stems)
        assert set(stems.by_name) == {"vocals", "instrumental"}
        replaced = await client.sonic.replace_section(
            clip_id=clip.clip_id,
            mv="sonic-v5",
            infill_start_s=5,
            infill_end_s=10,
            infill_lyrics="New line",
            auto_concat=True,
        )
        pairs = await replaced.wait()
        assert isinstance(pairs, ConcatPairs)
        assert all(pair.full is not None and pair.full.final_url for pair in pairs.pairs)
        resumed = await client.task(replaced.token).wait()
        assert isinstance(resumed, ConcatPairs)


async def test_direct_tools_of_a_clip() -> None:
    """wav, midi (its 202 waited out), bpm, vox, aligned lyrics, tags, lyrics, download links."""
    async with Sandbox(speed=SPEED, seed=1) as sandbox, sandbox.client(rate_limit=None) as client:
        clip = (await (await client.sonic.create_music(mv="sonic-v6", prompt=LYRICS)).wait())[0].clip_id
        assert (await client.sonic.wav(clip)).wav_url
        midi = await client.sonic.midi(clip)
        assert midi.midi_url
        assert midi.instruments[0].notes
        assert ((await client.sonic.bpm(clip)).avg_bpm or 0) > 40
        vox = await client.sonic.vox(clip_id=clip, vocal_start_s=1, vocal_end_s=9)
        assert vox.vox_audio_id
        assert "[00:" in (await client.sonic.aligned_lyrics(clip)).lrc()
        assert (await client.sonic.upsample_tags(tags="pop")).upsampled_tags
        assert (await client.sonic.lyrics(description="a song about sky"))[0].lyrics
        files = await client.sonic.download(clip, ["mp3", "wav"])
        assert set(files.by_format) == {"mp3", "wav"}


async def test_the_word_of_the_sister_hosts_stands_in_the_paths() -> None:
    """With `sonic_word='suno'` creates go to /suno/create and polls to /suno/clip/{id}."""
    async with Sandbox(speed=SPEED, seed=1) as sandbox, sandbox.client(sonic_word="suno") as client:
        task = await client.sonic.create_music(mv="sonic-v6", prompt=LYRICS)
        assert (await task.wait()).status == "succeeded"
        assert {entry.path.split("/")[1] for entry in sandbox.journal} == {"suno"}


async def test_where_songs_are_polled_can_be_said() -> None:
    """Nobody knows for sure where the host of that word is polled, so the path is an option."""
    poll = "/sonic/task/{task_id}"
    async with Sandbox(speed=SPEED, seed=1) as box, box.client(sonic_word="suno", sonic_poll=poll) as client:
        task = await client.sonic.create_music(mv="sonic-v6", prompt=LYRICS)
        await task.wait()
        assert {entry.path.split("/")[1] for entry in box.journal} == {"suno", "sonic"}


@pytest.mark.parametrize(
    "options",
    [
        {"sonic_word": "suno/../x"},
        {"sonic_word": ""},
        {"sonic_poll": "/suno/task"},
        {"sonic_poll": "x{task_id}"},
    ],
)
def test_words_that_are_no_part_of_a_path_are_refused(options: dict[str, str]) -> None:
    """The option is named."""
    with pytest.raises(RequestValidationError, match=next(iter(options))):
        MusicAPI("key", **options)  # type: ignore[arg-type]


def test_every_kind_of_result_has_a_public_name() -> None:
    """What a call gives can be named in annotations without knowing the rooms of the package."""
    for family in FAMILIES.values():
        for operation in family.operations().values():
            assert operation.reply.__name__ in musicapi_async.__all__, operation


async def test_the_balance_tells_what_was_spent() -> None:
    """A song costs; a failed one comes back, which shows although its error leaves."""
    async with Sandbox(speed=SPEED, seed=1) as sandbox, sandbox.client(rate_limit=None) as client:
        async with client.spending() as spent:
            task = await client.sonic.create_music(mv="sonic-v6", prompt=LYRICS)
            assert spent.total is None
        assert spent.total == sandbox.journal.charges == 20
        sandbox.faults.on("POST", "/sonic/create", Fault.fail())
        with pytest.raises(TaskFailedError):
            async with client.spending() as lost:
                await (await client.sonic.create_music(mv="sonic-v6", prompt=LYRICS)).wait()
        assert lost.total == 0
        await task.wait()


def test_what_was_spent_is_told_as_exactly_as_the_balance() -> None:
    """Balances with fractions differ by what was charged, not by binary dust."""
    spent = Spending(Credits(credits=100.3, extra_credits=0.1), Credits(credits=90.2, extra_credits=0.1))
    assert spent.total == 10.1


async def test_a_download_that_is_resolved_by_hand_keeps_the_format_asked_for() -> None:
    """The handle and its token know it from what was written down."""
    async with Sandbox(speed=SPEED, seed=1) as sandbox, sandbox.client(rate_limit=None) as client:
        sandbox.faults.on("POST", "/producer/download", Fault.reset_after)
        with pytest.raises(musicapi_async.OutcomeUnknownError):
            await client.with_options(job_key="k").producer.download(clip_id="clip", format="mp3")
        assert (await client.resolve("k", task_id="T")).token.endswith(":T:mp3")


async def test_a_voice_from_audio_of_the_sandbox_itself() -> None:
    """create_voice gives a persona id that sings."""
    async with Sandbox(speed=SPEED, seed=1) as sandbox, sandbox.client(rate_limit=None) as client:
        clip = (await (await client.sonic.create_music(mv="sonic-v6", prompt=LYRICS, duration=15)).wait())[0]
        task = await client.sonic.create_voice(audio_url=clip.final_url or "")
        assert task.warning
        voice = await task.wait()
        assert isinstance(voice, Voice)
        song = await client.sonic.persona_music(persona_id=voice.persona_id, mv="sonic-v6", prompt=LYRICS)
        assert (await song.wait()).status == "succeeded"
