"""The guides, in the docstrings of the packages that they explain: every example compiles, every name exists."""

from __future__ import annotations

import ast
import re
from importlib import import_module

import pytest
from public_api import public_names

from musicapi_async import MusicAPI
from musicapi_async.api.families import FAMILIES


@pytest.fixture(scope="module")
def guides() -> dict[str, str]:
    """The texts by module."""
    return {name: import_module(name).__doc__ or "" for name in public_names()}


def test_examples_compile_and_their_imports_exist(guides: dict[str, str]) -> None:
    """As in a notebook, with `await` at its top; nothing of them runs but the imports."""
    compiled = 0
    for name, text in guides.items():
        for example in re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
            tree = ast.parse(example, name)
            compile(example, name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            tree.body = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
            exec(compile(tree, name, "exec"), {})
            compiled += 1
    assert compiled >= 8


def test_every_public_module_explains_itself(guides: dict[str, str]) -> None:
    """No page of the reference is without a text."""
    assert [name for name, text in guides.items() if not text.strip()] == []


def test_calls_in_the_guides_exist(guides: dict[str, str]) -> None:
    """Methods of families and of the client, wherever they are named."""
    for name, text in guides.items():
        for owner, method in re.findall(r"\b(sonic|producer|suno|client)\.(\w+)", text):
            known = FAMILIES[owner].operations() if owner in FAMILIES else {*dir(MusicAPI), *FAMILIES}
            assert method in known, f"{name}: {owner}.{method}"


def test_modules_that_the_guides_refer_to_exist(guides: dict[str, str]) -> None:
    """A name in backquotes that begins with the package can be imported, or is in a module that can."""
    for text in guides.values():
        for named in re.findall(r"`(musicapi_async(?:\.\w+)+)", text):
            try:
                import_module(named)
            except ModuleNotFoundError:
                module, _, attribute = named.rpartition(".")
                assert hasattr(import_module(module), attribute), named
