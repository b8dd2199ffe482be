"""Secrets are hidden in texts in every spelling, before a text is cut; ordinary words stay."""

from __future__ import annotations

import html
import json
import time
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musicapi_async._wire.redaction import HIDDEN, Redactor
from musicapi_async._wire.response import Response, error_of
from musicapi_async.errors import TEXT_LIMIT

SECRET = 'Ab+c/d"e\\f&g 1é😀z\n_'


def escaped(text: str) -> str:
    """JSON with every character escaped, in upper case."""
    units = text.encode("utf-16-be").hex().upper()
    return "".join("\\u" + units[at : at + 4] for at in range(0, len(units), 4))


SPELLINGS = {
    "as it is": SECRET,
    "lower case": SECRET.lower(),
    "json": json.dumps(SECRET)[1:-1],
    "json of other languages": json.dumps(SECRET)[1:-1].replace("/", "\\/").replace("+", "\\u002b"),
    "json all escaped": escaped(SECRET),
    "json in json": json.dumps(json.dumps(SECRET)[1:-1])[1:-1],
    "url": quote(SECRET, safe=""),
    "url in lower case": quote(SECRET, safe="").lower(),
    "url with each octet": "".join(f"%{octet:02x}" for octet in SECRET.encode()),
    "form": quote_plus(SECRET),
    "url in url": quote(quote(SECRET, safe=""), safe=""),
    "html": html.escape(SECRET),
    "repr": repr(SECRET)[1:-1],
    "repr of bytes": repr(SECRET.encode())[2:-1],
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_is_hidden(spelling: str) -> None:
    """In a text, twice in it, and as a whole value."""
    told = SPELLINGS[spelling]
    redactor = Redactor([SECRET, "another secret"])
    assert redactor.text(f"key={told};") == f"key={HIDDEN};"
    assert redactor.text(f"{told} and {told}") == f"{HIDDEN} and {HIDDEN}"
    assert redactor.copy({"a": [{told: told}]}) == {"a": [{HIDDEN: HIDDEN}]}


def test_a_space_in_the_place_of_a_plus_is_hidden() -> None:
    """A server that decoded a form repeats the secret so, in a text without any other mark."""
    told = "the key secret one/two123 is wrong"
    assert Redactor(["secret+one/two123"]).text(told) == f"the key {HIDDEN} is wrong"
    assert Redactor(["secret one/two123"]).text(told) == f"the key {HIDDEN} is wrong"
    assert Redactor(["secret/one+two123"]).text(told) == told


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("before", range(TEXT_LIMIT - 90, TEXT_LIMIT + 10, 7))
def test_a_text_is_cut_after_hiding(spelling: str, before: int) -> None:
    """No part of a secret stays at the end."""
    line = Redactor([SECRET]).line("." * before + SPELLINGS[spelling] + "." * 3000)
    assert set(line) <= set("." + HIDDEN)
    assert len(line) == TEXT_LIMIT


def test_a_long_row_of_secrets_leaves_no_part_at_the_end() -> None:
    """What hiding makes shorter does not draw in a part that was not looked at."""
    line = Redactor(["s" + "0123456789" * 9]).line(("s" + "0123456789" * 9) * 400)
    assert line.replace(HIDDEN, "") in ("", "[", "[h", "[hi", "[hid", "[hidd", "[hidde", "[hidden")


@pytest.mark.parametrize("secret", ["test", "0", "key"])
def test_a_short_secret_is_hidden_only_as_a_whole_value(secret: str) -> None:
    """It is a word like any other inside of a text, and as a name."""
    redactor = Redactor([secret])
    told = {secret: f"pro{secret}", "x": f"the {secret} of", "n": 0, "a": secret, "b": f"Bearer {secret}"}
    assert redactor.copy(told) == {**told, "a": HIDDEN, "b": HIDDEN}
    assert redactor.headers({f"X-{secret}": f"a {secret}", "Y": secret}) == {
        f"x-{secret}": f"a {secret}",
        "y": HIDDEN,
    }


def test_names_of_headers_and_numbers_are_looked_through() -> None:
    """Names come in lower case; a secret may consist of digits."""
    redactor = Redactor(["Sk-Live-0001", "1234567890"])
    assert redactor.headers({"X-SK-LIVE-0001": "a"}) == {"x-[hidden]": "a"}
    assert redactor.copy([1234567890, 12345678901, 5, True, None, 1.5]) == [
        HIDDEN,
        HIDDEN,
        5,
        True,
        None,
        1.5,
    ]


def test_secrets_of_requests_are_learned_the_latest_first() -> None:
    """Their number is bounded; those of the client are never forgotten."""
    redactor = Redactor(["secret of the client"])
    redactor.learn(f"secret of request {number:04}" for number in range(1000))
    assert redactor.text("secret of the client, secret of request 0999") == f"{HIDDEN}, {HIDDEN}"
    assert "0001" in redactor.text("secret of request 0001")


def test_no_repr_shows_secrets() -> None:
    """Not that of the redactor itself."""
    assert "sesame" not in repr(Redactor(["open-sesame-now"]))


@given(st.text(max_size=60), st.text(min_size=8, max_size=30), st.text(max_size=60))
def test_what_is_left_never_holds_the_secret(before: str, secret: str, after: str) -> None:
    """Whatever stands around it."""
    told = Redactor([secret]).text(before + secret + after)
    assert HIDDEN in told
    assert secret not in told.replace(HIDDEN, "\0")


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(),
        lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
        max_leaves=15,
    )
)
def test_a_copy_without_secrets_is_equal(value: object) -> None:
    """And a copy: what is done with it does not change the data."""
    copy = Redactor(["a secret that nothing holds"]).copy(value)
    assert copy == value
    assert not isinstance(value, dict | list) or copy is not value


@pytest.mark.parametrize("unit", ["a", "\\a", "%41", "&#43;", "\\u0041", "%", "\\", "sk-1234567%38", "25%25"])
def test_hostile_texts_take_little_time(unit: str) -> None:
    """Time grows with the length, and the length is bounded."""
    redactor = Redactor(["sk-12345678", "\\" * 20 + "a"])
    text = unit * (4_000_000 // len(unit))
    assert len(redactor.text(text)) <= len(text)


@pytest.mark.parametrize(
    "spelled", ["Secret&sol;Key&plus;0123", "Secret&#x2F;Key&#43;0123", "Secret&#x2F;key&plus;0123"]
)
def test_named_entities_of_html_are_spellings(spelled: str) -> None:
    assert Redactor(["Secret/Key+0123"]).text(f"bad key {spelled}.") == f"bad key {HIDDEN}."


@pytest.mark.parametrize(
    "body",
    [
        ["a"] * 1_000_000,
        [["a", {"b": "c"}]] * 200_000,
        ["%41" * 1000] * 2000,
        [{"%41" * 300 + str(at): at} for at in range(10_000)],
    ],
    ids=["short texts", "nested", "spelled texts", "long names"],
)
def test_an_error_with_millions_of_values_is_copied_in_little_time(body: list[object]) -> None:
    redactor = Redactor([f"secret-number-{at}" for at in range(64)])
    begun = time.process_time()
    error = error_of(
        Response(400, {}, {"error": "too long", "of": body}, True, redactor=redactor), call="GET /x"
    )
    assert time.process_time() - begun < 5  # 120 s, were each of a million texts searched for each secret
    assert error.message == "too long"
    assert error.body["of"][0] is not None


def test_a_copy_without_a_limit_is_whole() -> None:
    """Replies that are stored are copied so: nothing of them may be lost."""
    notes = [{"pitch": at, "name": "C" * 40} for at in range(30_000)]
    assert Redactor(["secret-0123456789"]).copy({"notes": notes}) == {"notes": notes}


def test_a_secret_of_backslashes_ends() -> None:
    assert Redactor(["\\" * 10]).text("a \\" + "\\" * 10 + "%41") == f"a {HIDDEN}\\%41"
