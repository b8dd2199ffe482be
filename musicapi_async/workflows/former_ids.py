"""Songs without an id of their own, in folders that an earlier version wrote.

Their ids followed from the whole row, steps included; now they follow from what the song is made of. So that
nothing is paid for again, such a song keeps the id under which its request is in the job store.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from ..jobs import Job, JobRequest
from ..jobs.job import DELIVERY
from .manifest import Manifest, Song

MADE_ID: Final = re.compile(r"[0-9a-f]{16}(-\d+)?")
"""An id that followed from a row; the number tells equal rows apart."""


def wanted_fields(request: JobRequest) -> bytes:
    """Return the call and the fields of a request in one form, without where results are delivered.

    A local file is the one of its SHA-256, and not its link.
    """
    wanted = {**request.fields, **request.files}
    fields = {name: value for name, value in wanted.items() if name not in DELIVERY}
    return request.call.encode() + msgspec.json.encode(fields, order="sorted")


def with_former_ids(
    manifest: Manifest, jobs: Iterable[Job], request_of: Callable[[Song], JobRequest]
) -> Manifest:
    """Return the manifest with the former id of each song that was sent under one.

    Args:
        manifest: The songs.
        jobs: The jobs of the folder.
        request_of: Returns the request of a song.
    """
    by_key = {job.key: job for job in jobs}
    if all(song.is_named or song.key in by_key for song in manifest.songs):
        return manifest
    of_songs = {song.key for song in manifest.songs}
    former: defaultdict[bytes, list[str]] = defaultdict(list)
    for key, job in by_key.items():
        song_id = key.removesuffix(f"/{job.request.kind}")
        if key not in of_songs and MADE_ID.fullmatch(song_id):
            former[wanted_fields(job.request)].append(song_id)
    songs = list(manifest.songs)
    for index, song in enumerate(songs):
        if not song.is_named and song.key not in by_key:
            ids = former[wanted_fields(request_of(song))]
            if ids:
                songs[index] = msgspec.structs.replace(song, former_id=ids.pop(0))
    return Manifest(tuple(songs), manifest.source)
