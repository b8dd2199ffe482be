"""Sonic: songs, personas, and tools for them. Suno: its word on sister hosts and in older endpoints."""

from __future__ import annotations

from typing import Annotated, ClassVar, Final

from msgspec import Meta

from . import sonic_clips as clips
from . import sonic_songs as songs
from .batches import BatchStates, CreateBatch, GetBatch
from .direct_replies import Bpm, Files, Midi, Persona, SongMetadata, Upload, UpsampledTags, Vox, Wav
from .lyrics import AlignedLyrics, LyricsDrafts, WrittenLyrics
from .operation import Family, Polled, Repeat, calls, polls, submits, submits_batch
from .request import GetMusic, Request
from .results import Clips, Voice
from .stems import Stems

SONIC_POLLED: Final = Polled("/sonic/task/{task_id}", "sonic", first=15, interval=15, deadline=900)
"""The vendor advises a poll every 15 to 25 s. Songs took one to four minutes, and longer on slow days: limits
of 180 s or less lost tasks that were paid for."""
STEMS_POLLED: Final = Polled("/sonic/task/{task_id}", "sonic", first=15, interval=15, deadline=1800)
"""Splitting takes many minutes."""
VOICES_POLLED: Final = Polled("/sonic/task/{task_id}", "sonic", first=10, interval=15, deadline=900)

LYRICS_POLLED: Final = Polled(
    "/suno/get-lyrics/{task_id}", "lyrics", first=3, interval=5, deadline=180, quick=3, slow=30
)
"""Lyrics take seconds."""

SLOW: Final = 120.0
"""Seconds for one attempt of calls that do their work before they answer, such as an upload of about 20 s."""
UPLOADING: Final = 180.0
"""The same for calls that import audio first and then submit: 30 to 60 s were reported."""


class Songs(Family):
    """The ten task types of `create`. Sonic and Suno have them, each under its own word."""

    create_music = submits("/{family}/create", songs.CreateMusic, Clips)
    extend_music = submits("/{family}/create", songs.ExtendMusic, Clips)
    concat_music = submits("/{family}/create", songs.ConcatMusic, Clips)
    cover_music = submits("/{family}/create", songs.CoverMusic, Clips)
    persona_music = submits("/{family}/create", songs.PersonaMusic, Clips)
    remaster = submits("/{family}/create", songs.Remaster, Clips)
    add_vocals = submits("/{family}/create", songs.AddVocals, Clips)
    add_instrumental = submits("/{family}/create", songs.AddInstrumental, Clips)
    extend_upload_music = submits("/{family}/create", songs.ExtendUploadMusic, Clips)
    cover_upload_music = submits("/{family}/create", songs.CoverUploadMusic, Clips)
    get_music = polls(GetMusic)


class Sonic(Songs):
    """Songs with or without vocals, personas, and all that is made of them: `client.sonic`."""

    word = "sonic"
    polled: ClassVar[Polled | None] = SONIC_POLLED

    create_persona = calls("/sonic/persona", clips.CreatePersona, Persona)
    create_persona_older = calls("/sonic/persona", clips.CreatePersonaOlder, Persona)
    create_voice = submits("/sonic/create-voice", clips.CreateVoice, Voice, polled=VOICES_POLLED)

    create_batch = submits_batch("/sonic/batch", CreateBatch)
    get_batch = calls("/sonic/batch", GetBatch, BatchStates, method="GET", charges=False)

    upload = calls("/sonic/upload", clips.UploadAudio, Upload, attempt_timeout=SLOW)
    upload_extend = submits("/sonic/upload-extend", songs.UploadExtend, Clips, attempt_timeout=UPLOADING)
    upload_cover = submits("/sonic/upload-cover", songs.UploadCover, Clips, attempt_timeout=UPLOADING)
    sample = submits("/sonic/sample", songs.Sample, Clips, attempt_timeout=UPLOADING)
    mashup = submits("/sonic/mashup", songs.Mashup, Clips)
    replace_section = submits("/sonic/replace-section", songs.ReplaceSection, Clips)

    stems_basic = submits("/sonic/stems/basic", clips.StemsBasic, Stems, polled=STEMS_POLLED)
    stems_full = submits("/sonic/stems/full", clips.StemsFull, Stems, polled=STEMS_POLLED)

    wav = calls("/sonic/wav", clips.GetWav, Wav)
    midi = calls("/sonic/midi", clips.GetMidi, Midi, repeat=Repeat(every=5, deadline=180))
    bpm = calls("/sonic/bpm", clips.GetBpm, Bpm)
    vox = calls("/sonic/vox", clips.GetVox, Vox)
    aligned_lyrics = calls(
        "/sonic/aligned-lyrics",
        clips.GetAlignedLyrics,
        AlignedLyrics,
        resend=True,
        attempt_timeout=SLOW,
        repeat=Repeat(every=10, deadline=180, on="empty"),
    )
    upsample_tags = calls("/sonic/upsample-tags", clips.UpsampleTags, UpsampledTags)
    lyrics = calls("/sonic/lyrics", clips.WriteLyrics, LyricsDrafts, attempt_timeout=SLOW)
    download = calls("/sonic/download", clips.DownloadFiles, Files, repeat=Repeat(every=3, deadline=120))


class MakeLyrics(Request):
    """Write lyrics as a task. Older than `sonic.lyrics`, which answers at once."""

    prompt: Annotated[str, Meta(min_length=1, max_length=119, description="Subject of the song.")]


class GetLyrics(GetMusic):
    """Poll a task of `make_lyrics` once."""


class GetSong(Request):
    """Get title, author, styles and links of the song behind a share link."""

    share_link: Annotated[str, Meta(min_length=1, description="Link of a shared Suno song.")]


class Suno(Songs):
    """The same songs as `client.sonic`, under the family word that sister hosts use: `client.suno`.

    At the vendor's own host both words lead to the same tasks; use `client.sonic`, which has more.
    """

    word = "suno"
    polled: ClassVar[Polled | None] = Polled(
        "/suno/clip/{task_id}", "sonic", first=15, interval=15, deadline=900
    )

    make_lyrics = submits("/suno/make-lyrics", MakeLyrics, WrittenLyrics, polled=LYRICS_POLLED)
    get_lyrics = polls(GetLyrics, polled=LYRICS_POLLED)
    get_song = calls("/suno/get-song", GetSong, SongMetadata)
