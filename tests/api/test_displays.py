"""How results are displayed: reprs that can be copied, and HTML for notebooks."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musicapi_async import Clip, Clips, MusicAPI, Persona, Result, Stem, Stems, TaskUpdate

LINK = "https://cdn.example/" + "a" * 200 + ".mp3?signature=" + "b" * 300
ID = "0f8c2f3e-1111-4222-8333-944455556666"


class Tags(HTMLParser):
    """The elements and links of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.names = set[str]()
        self.attributes = set[str]()
        self.links: list[str] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_links_and_ids_in_a_repr_are_whole() -> None:
    """Long lyrics are cut, in any script; links never."""
    clip = Clip(clip_id=ID, state="succeeded", audio_url=LINK, lyrics="la la " * 99, title="雨" * 99)
    assert f"audio_url={LINK!r}" in repr(clip)
    assert f"clip_id={ID!r}" in repr(clip)
    assert "(596 characters)" in repr(clip)
    assert "(101 characters)" in repr(clip)


def test_reprs_name_what_they_are() -> None:
    """Stems by name, a persona by name and id, the base of results by its task."""
    stems = Stems([Stem(clip_id="a", name="vocals"), Stem(clip_id="b", name="drums"), Stem(name="drums")])
    assert repr(stems) == "Stems({'vocals': a, 'drums': b, 'drums 2': ?})"
    assert repr(Result(task_id=ID, family="sonic")) == f"Result('sonic', {ID!r})"
    assert repr(Persona(persona_id=ID, name="Rainy")) == f"Persona(persona_id={ID!r}, name='Rainy')"


def test_a_task_shows_its_last_state() -> None:
    """And nothing of it before the first poll."""
    task = MusicAPI("key").task("sonic", ID, kind="create_music")
    assert repr(task) == f"Task('sonic', {ID!r}, kind='create_music')"
    task.last = TaskUpdate("running", clips=Clips([Clip(clip_id="a", state="running", audio_url=LINK)]))
    assert repr(task) == f"Task('sonic', {ID!r}, kind='create_music', state='running')"
    page = Tags(task._repr_html_())
    assert task.token in page.text
    assert "sonic create_music · running" in page.text
    assert page.links == [LINK]


def test_a_finished_clip_has_cover_player_and_file() -> None:
    """All three are links of the service."""
    page = Tags(
        Clip(
            state="succeeded", audio_url=LINK, image_url="http://a.example/c.png", duration=61.9
        )._repr_html_()
    )
    assert page.links == ["http://a.example/c.png", LINK, LINK]
    assert "1:01" in page.text
    assert {"audio", "img", "a"} <= page.names


@pytest.mark.parametrize(
    "link",
    ["javascript:alert(1)", "data:text/html,x", "file:///etc/passwd", "//a.example/x", "http:///x", "x"],
)
def test_only_http_links_are_linked(link: str) -> None:
    """Whatever a reply holds."""
    clip = Clip(state="succeeded", audio_url=link, wav_url=link, image_url=link)
    assert Tags(clip._repr_html_()).links == []
    assert Tags(Clip(state="running", audio_url=link)._repr_html_()).links == []


@given(st.dictionaries(st.sampled_from(["clip_id", "state", "title", "tags", "error"]), st.text()))
def test_hostile_texts_stay_texts(fields: dict[str, Any]) -> None:
    """No text of the service makes an element or an attribute."""
    hostile = {name: f"{text}<script>\"'</div><img onerror=x>" for name, text in fields.items()}
    page = Tags(Clips([Clip(**hostile, audio_url='https://a.example/"onplay="x')])._repr_html_())
    assert page.names <= {"div", "img", "audio", "a", "code"}
    assert page.attributes <= {
        "style", "src", "href", "alt", "loading", "referrerpolicy", "controls", "preload", "target", "rel",
    }  # fmt: skip


def test_nothing_to_play_is_said() -> None:
    """No clips, and a clip that failed with its reason."""
    assert "no clips" in Clips()._repr_html_()
    assert "refused" in Clip(state="failed", error_message="refused")._repr_html_()
