"""An endpoint is declared once: what follows for its method, its help, and another family with it."""

from __future__ import annotations

import math
from typing import Any

import pytest

from musicapi_async.api.direct_replies import Wav
from musicapi_async.api.families import FAMILIES
from musicapi_async.api.operation import Direct, Family, Polled
from musicapi_async.api.sonic import Songs, Sonic, Suno

OPERATIONS = [one for family in FAMILIES.values() for one in family.operations().values()]
SONGS = [name for name, operation in Songs.operations().items() if operation.submits]


@pytest.mark.parametrize("name", SONGS)
def test_suno_has_the_songs_of_sonic(name: str) -> None:
    """The same request and result, under its own word, polled at its own path."""
    sonic, suno = Sonic.operations()[name], Suno.operations()[name]
    assert (suno.request, suno.reply, suno.name) == (sonic.request, sonic.reply, name)
    assert (sonic.family, sonic.path, sonic.call_name) == (Sonic, "/sonic/create", "POST /sonic/create")
    assert (suno.family, suno.path, suno.call_name) == (Suno, "/suno/create", "POST /suno/create")
    assert sonic.polled is not None
    assert suno.polled is not None
    assert (sonic.polled.path, suno.polled.path) == ("/sonic/task/{task_id}", "/suno/clip/{task_id}")


def test_create_has_ten_task_types() -> None:
    """Each is declared once, and named as the service names it."""
    assert len(SONGS) == 10
    assert {str(Songs.operations()[name].request.__struct_config__.tag) for name in SONGS} == set(SONGS)


@pytest.mark.parametrize("operation", OPERATIONS, ids=repr)
def test_help_lists_useful_fields_first(operation: Any) -> None:
    """Required fields come first, those of the webhook last; signature and docstring agree."""
    names = [field.name for field in operation.fields]
    assert list(operation.signature.parameters) == names
    required = [field.required for field in operation.fields]
    assert required == sorted(required, reverse=True)
    webhook = [name for name in names if name.startswith("webhook_")]
    assert names[len(names) - len(webhook) :] == webhook
    listed = [line.split()[0] for line in operation.doc.splitlines() if line.startswith("    ")]
    assert listed[: len(names)] == names


def test_help_of_a_song_begins_with_its_text() -> None:
    """Model, lyrics or description, title and style are read first."""
    names = list(Sonic.operations()["create_music"].signature.parameters)
    assert names[:5] == ["mv", "prompt", "gpt_description_prompt", "title", "tags"]


@pytest.mark.parametrize("operation", OPERATIONS, ids=repr)
def test_help_is_in_the_style_of_docstrings(operation: Any) -> None:
    """Subject, cost, arguments, result, errors; no error of payment where nothing is paid."""
    sections = ["Args:"] * bool(operation.fields) + ["Returns:", "Raises:"]
    assert [
        line for line in operation.doc.splitlines() if line in {"Args:", "Returns:", "Raises:"}
    ] == sections
    assert ("OutcomeUnknownError" in operation.doc) == operation.charges


def test_requests_are_classes() -> None:
    """A function in the place of a request is refused where it is declared."""
    with pytest.raises(TypeError, match=r"/sonic/wav: .* is no class of requests"):
        Direct("/sonic/wav", Sonic.operations()["wav"].request.rules, Wav)


def test_alias_keeps_its_name() -> None:
    """An operation under a second name in another class is still that of its family."""

    class Short(Family):
        song = Sonic.create_music

    assert Short.song.name == "create_music"
    assert (Short.song.family, Short.song.path) == (Sonic, "/sonic/create")


def test_impossible_times_are_refused() -> None:
    """Times of polling are checked where they are declared."""
    for times in ((-1, 15, 900), (15, 0, 900), (15, 61, 900), (15, 15, 0), (1, 1, 1, 9, 9), (1, 1, math.nan)):
        with pytest.raises(ValueError, match="times"):
            Polled("/sonic/task/{task_id}", "sonic", *times)
