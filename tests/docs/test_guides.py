"""The guides, in the docstrings of the packages that they explain: every example compiles, every name exists."""

from __future__ import annotations

import ast
import re
from importlib import import_module

import pytest
from public_api import load, public_modules

from musicapi_async import MusicAPI
from musicapi_async.api.families import FAMILIES

GUIDES = {module.path: import_module(module.path).__doc__ or "" for module in public_modules(load())}
EXAMPLES = [
    pytest.param(block, id=f"{name} {n}")
    for name, text in GUIDES.items()
    for n, block in enumerate(re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
]


@pytest.mark.parametrize("example", EXAMPLES)
def test_example_compiles_and_its_imports_exist(example: str) -> None:
    """As in a notebook, with `await` at its top; nothing of it runs but the imports."""
    tree = ast.parse(example)
    compile(example, "guide", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    tree.body = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    exec(compile(tree, "guide", "exec"), {})


def test_every_public_module_explains_itself() -> None:
    """No page of the reference is without a text."""
    assert len(EXAMPLES) >= 8
    assert [name for name, text in GUIDES.items() if not text.strip()] == []


def test_calls_in_the_guides_exist() -> None:
    """Methods of families and of the client, wherever they are named."""
    for name, text in GUIDES.items():
        for owner, method in re.findall(r"\b(sonic|producer|suno|client)\.(\w+)", text):
            known = FAMILIES[owner].operations() if owner in FAMILIES else {*dir(MusicAPI), *FAMILIES}
            assert method in known, f"{name}: {owner}.{method}"


def test_modules_that_the_guides_refer_to_exist() -> None:
    """A name in backquotes that begins with the package can be imported, or is in a module that can."""
    for text in GUIDES.values():
        for named in re.findall(r"`(musicapi_async(?:\.\w+)+)", text):
            try:
                import_module(named)
            except ModuleNotFoundError:
                module, _, attribute = named.rpartition(".")
                assert hasattr(import_module(module), attribute), named
