"""Suno: the older family word for Sonic, and three older endpoints."""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Meta

from . import song_requests as songs
from .operation import Family, Polled, calls, submits
from .replies import SongMetadata
from .request import GetMusic, Request
from .results import Clips, TaskUpdate
from .stems import WrittenLyrics

SONGS: Final = Polled("/suno/clip/{task_id}", "sonic", first=15, interval=15, deadline=900)
LYRICS: Final = Polled(
    "/suno/get-lyrics/{task_id}", "lyrics", first=3, interval=5, deadline=180, quick=3, slow=30
)
"""First look, interval and deadline in seconds (contract, tasks 5)."""


class MakeLyrics(Request):
    """Write lyrics as a task. Older than `sonic.lyrics`, which answers at once."""

    prompt: Annotated[str, Meta(min_length=1, max_length=119, description="What the song is about.")]


class GetLyrics(GetMusic):
    """Look at a task of `make_lyrics` once, as it is now."""


class GetSong(Request):
    """Title, author, styles and links of a song behind a share link."""

    share_link: Annotated[str, Meta(min_length=1, description="Link of a shared Suno song.")]


class Suno(Family):
    """The same songs as `client.sonic`, under the family word that sister hosts use: `client.suno`."""

    word = "suno"

    create_music = submits("/suno/create", songs.CreateMusic, Clips, polled=SONGS)
    extend_music = submits("/suno/create", songs.ExtendMusic, Clips, polled=SONGS)
    concat_music = submits("/suno/create", songs.ConcatMusic, Clips, polled=SONGS)
    cover_music = submits("/suno/create", songs.CoverMusic, Clips, polled=SONGS)
    persona_music = submits("/suno/create", songs.PersonaMusic, Clips, polled=SONGS)
    remaster = submits("/suno/create", songs.Remaster, Clips, polled=SONGS)
    add_vocals = submits("/suno/create", songs.AddVocals, Clips, polled=SONGS)
    add_instrumental = submits("/suno/create", songs.AddInstrumental, Clips, polled=SONGS)
    extend_upload_music = submits("/suno/create", songs.ExtendUploadMusic, Clips, polled=SONGS)
    cover_upload_music = submits("/suno/create", songs.CoverUploadMusic, Clips, polled=SONGS)
    get_music = calls("/suno/clip/{task_id}", GetMusic, TaskUpdate, method="GET", charges=False, polled=SONGS)

    make_lyrics = submits("/suno/make-lyrics", MakeLyrics, WrittenLyrics, polled=LYRICS)
    get_lyrics = calls(
        "/suno/get-lyrics/{task_id}", GetLyrics, TaskUpdate, method="GET", charges=False, polled=LYRICS
    )
    get_song = calls("/suno/get-song", GetSong, SongMetadata)
