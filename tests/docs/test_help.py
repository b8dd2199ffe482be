"""What `help()` says: the examples of operations run, and a handle shows no internals."""

from __future__ import annotations

import ast
import inspect
import pydoc
import re
from pathlib import Path
from types import CodeType
from typing import Any

import pytest

from musicapi_async import MusicAPI, Task
from musicapi_async.api.families import FAMILIES
from musicapi_async.sandbox import Sandbox

EXAMPLES = [
    (word, name)
    for word, family in FAMILIES.items()
    for name, operation in family.operations().items()
    if "Example:" in operation.doc
]
LYRICS = "[Verse]\nRain on the window\n[Chorus]\nStay for the evening"


@pytest.mark.parametrize(("word", "name"), EXAMPLES)
async def test_the_example_of_an_operation_runs(word: str, name: str, tmp_path: Path) -> None:
    """With a client, a clip, lyrics and a link at hand."""
    async with Sandbox(speed=600, seed=1, longest=12) as box, box.client() as client:
        clips = await (await client.sonic.create_music(mv="sonic-v6", prompt=LYRICS))
        await client.download(clips[0], tmp_path)  # so that its audio is made before the sandbox fetches it
        names: dict[str, Any] = {
            "client": client,
            "clip": clips[0],
            "lyrics": LYRICS,
            "link": clips[0].final_url,
            "print": lambda *_: None,
        }
        example = re.search(r"```python\n(.*?)```", FAMILIES[word].operations()[name].doc, re.DOTALL)
        assert example is not None
        code = compile(
            inspect.cleandoc("\n" + example[1]), name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        )
        assert isinstance(code, CodeType)
        await eval(code, names)


def test_the_calls_of_most_use_have_examples() -> None:
    """Those of the table in the package's guide."""
    assert {
        ("sonic", name)
        for name in ("create_music", "extend_music", "persona_music", "create_persona", "upload", "wav")
    } <= set(EXAMPLES)


def test_help_of_a_create() -> None:
    """The fields of most use first, those of the webhook last, then the example."""
    text = pydoc.plain(pydoc.render_doc(MusicAPI("key").sonic.create_music))
    places = [
        text.index(one)
        for one in (
            " mv (",
            " prompt (",
            " title (",
            " webhook_url (",
            " webhook_secret (",
            "Returns:",
            "Example:",
        )
    ]
    assert places == sorted(places)


def test_help_of_a_handle_shows_no_internals() -> None:
    """Nothing public but what a caller uses, each with a text."""
    public = {name for name in dir(Task) if not name.startswith("_")}
    assert public == {
        "family", "is_known", "job_key", "kind", "last", "raw", "refresh", "response", "state", "steps",
        "task_id", "to_dict", "to_json", "token", "updates", "uploaded_clip_id", "wait", "warning",
    }  # fmt: skip
    assert all(inspect.getdoc(getattr(Task, name)) for name in public)
    text = pydoc.plain(pydoc.render_doc(Task))
    assert not {
        word for word in ("TaskRef", "Waiter", "_ref", "_set", "made by") if word.lower() in text.lower()
    }
