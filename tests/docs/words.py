"""The words that this package does not use, and where they remain.

One thing has one word, and the words are those that a reader of `httpx`, `celery` or RFC 9110 already knows. The
lists are closed: identifiers are compared word by word, texts (docstrings, comments, messages) by phrase, and
English at large is not judged. A file that still has some of them is in `words_remaining.txt` with exactly those
that it has: the test fails for a new one, and for one in the list that is no longer there.

`python tests/docs/words.py` prints all that are there, `--write` takes those out of the list that are gone and adds
nothing, `--write-all` writes what is there, for a file that was renamed.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
REMAINING: Final = Path(__file__).with_name("words_remaining.txt")

IDENTIFIERS: Final[Mapping[str, str]] = {
    "poll, poll response, poll result": "look looks looked seen",
    "rate, rate limit": "pace",
    "queue, permit, slot": "gate turn crowd",
    "schedule, due queue, duration model, poll cost": "agenda hazard hazards",
    "job, job store, job recorder, transition": "ledger ledgers book holder holders recording",
    "request, prepared request, response, result": "outgoing answer answers told asked asks",
    "send, sent, outcome unknown": "fly flight doubt",
    "reuse, previous result": "again earlier",
    "notify, notified, subscriber": "tell tells listener listeners listening",
    "stored, saved; displayed": "kept shown",
    "fix, repair": "mend mended",
    "remaining, unfinished": "left",
    "checkpoint, step, workflow, budget": "reached paying chain chains purse",
    "fault injection, rng": "striking chance pressing",
    "suggestion": "spelling",
    "client, client view, per-loop resources": "core bound watching runtime",
    "the caller, the server, nothing": "nobody somebody whoever whatever anew",
}
"""What to say, and the words of names that say it otherwise."""
UNWANTED: Final = {word for listed in IDENTIFIERS.values() for word in listed.split()}
ALLOWED_NAMES: Final = {"max_in_flight", "in_doubt", "__get_pydantic_core_schema__"}
"""Names that mean what they say: an option, a field of the paid call, and a name that pydantic prescribes."""

PHRASES: Final[Mapping[str, str]] = {
    "poll; what a response says": r"\blook(s|ed)?\b(?! up)|\bseen\b",
    "rate, rate limit": r"\bpace\b",
    "schedule; duration model": r"\bagenda\b",
    "job store; owner": r"\bledgers?\b|\bholders?\b",
    "request, requested, response": r"\basks\b|\basked\b|\boutgoing\b",
    "notify, name, say": r"\btold\b",
    "continue": r"\bgo(es)? on\b|\bwent on\b|\bgoing on\b",
    "stored, saved; displayed": r"\bkept\b|\bshown\b",
    "fix, repair": r"\bmend(s|ed)?\b",
    "no one, nothing; the caller; the server": r"\bnobody\b|\bsomebody\b|\bwhoever\b|\bwhatever\b",
    "once more, new": r"\banew\b",
    "is": r"\bstands?\b",
    "budget": r"\bpurse\b",
    "the fact itself, or the vendor's page": r"\bcontract, \w+ \d|\brules? R\d",
}
"""What to say, and the phrases in texts that say it otherwise."""
SECTION: Final = "section-number"
"""The entry in the list for each reference to a section of a document that the reader does not have."""
BEGINNINGS: Final = ("What", "Whether")
"""A docstring begins with a verb or a noun that names the subject."""


def suggestion(word: str) -> str:
    """Return what to say instead of `word`."""
    for better, names in IDENTIFIERS.items():
        if word in names.split():
            return better
    for better, phrase in PHRASES.items():
        if re.search(phrase, word.replace("-", " ")):
            return better
    return "a verb or a noun first" if word.startswith("docstring:") else "the fact itself"


def remaining() -> dict[str, set[str]]:
    """Return the offenders that are known, by file and kind."""
    lines = REMAINING.read_text(encoding="utf-8").splitlines()
    return {" ".join(words[:2]): set(words[2:]) for line in lines if (words := line.split())}


def found() -> dict[str, set[str]]:
    """Return the offenders that are there: `{"musicapi_async/client.py names": {"told"}}`."""
    offenders: dict[str, set[str]] = {}
    for path in sorted((ROOT / "musicapi_async").rglob("*.py")):
        name = path.relative_to(ROOT).as_posix()
        source = path.read_text(encoding="utf-8")
        nodes = list(ast.walk(ast.parse(source)))
        named = {path.stem, *_names(nodes)}
        offenders[f"{name} names"] = {word for found in named for word in in_name(found)}
        offenders[f"{name} texts"] = {word for text in _texts(source, nodes) for word in in_text(text)}
        offenders[f"{name} texts"] |= set(_beginnings(nodes))
    pages = [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "benchmarks" / "README.md"]
    for path in [*pages, *sorted((ROOT / ".github").rglob("*.md"))]:
        offenders[f"{path.relative_to(ROOT).as_posix()} texts"] = set(
            in_text(path.read_text(encoding="utf-8"))
        )
    return {place: words for place, words in offenders.items() if words}


def _names(nodes: Iterable[ast.AST]) -> Iterator[str]:
    """Yield the names that a module gives: of classes, functions, arguments, variables and attributes."""
    for node in nodes:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr


def in_name(name: str) -> Iterator[str]:
    if name in ALLOWED_NAMES:
        return
    words = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)
    yield from (word.lower() for word in words if word.lower() in UNWANTED)


def _texts(source: str, nodes: Iterable[ast.AST]) -> Iterator[str]:
    """Yield comments and constant texts, docstrings among them.

    A third of the time would go into finding the comments of files where nothing after a `#` has such a phrase.
    """
    after = "\n".join(" ".join(line.partition("#")[2].split()) for line in source.splitlines() if "#" in line)
    if any(re.search(phrase, after) for phrase in PHRASES.values()):
        for token in tokenize.generate_tokens(io.StringIO(source).readline):
            if token.type == tokenize.COMMENT:
                yield token.string
    for node in nodes:
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def in_text(text: str) -> Iterator[str]:
    joined = re.sub(r"`[^`]*`", "`", " ".join(text.split()))  # code in backquotes is judged as code
    for phrase in PHRASES.values():
        for match in re.finditer(phrase, joined):
            yield SECTION if any(map(str.isdigit, match[0])) else match[0].lower().replace(" ", "-")


def _beginnings(nodes: Iterable[ast.AST]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = (ast.get_docstring(node) or "").partition(" ")[0]
            if first in BEGINNINGS:
                yield f"docstring:{first}"


def write(offenders: Mapping[str, set[str]]) -> None:
    """Write the list of what remains."""
    lines = [f"{place} {' '.join(sorted(words))}\n" for place, words in sorted(offenders.items()) if words]
    REMAINING.write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    there = found()
    if "--write" in sys.argv:
        write({place: words & there.get(place, set()) for place, words in remaining().items()})
    elif "--write-all" in sys.argv:
        write(there)
    else:
        sys.stdout.writelines(f"{place} {' '.join(sorted(words))}\n" for place, words in there.items())
