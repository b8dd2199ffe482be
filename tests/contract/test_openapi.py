"""`musicapi openapi`: a valid document, which says what the contract says, and which the sandbox keeps."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Generator, Mapping
from typing import Any

import aiohttp
import pytest
from examples_index import EXAMPLES, REQUESTS, Example
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate

from musicapi_async.api.batches import TASK_TYPES
from musicapi_async.api.families import FAMILIES
from musicapi_async.api.openapi import document, operations
from musicapi_async.sandbox import Choices, Durations, Fault, Sandbox
from musicapi_async.testing.virtual import VirtualTimeLoop

DOCUMENT = document()
PATHS: Mapping[str, Any] = DOCUMENT["paths"]
POSTS = sorted(path for path, methods in PATHS.items() if "post" in methods)


def broken(schema: Any, value: Any) -> list[str]:
    """What a value breaks of a schema of the document."""
    whole = {**schema, "components": DOCUMENT["components"]}
    return [error.message[:300] for error in Draft202012Validator(whole).iter_errors(value)]


def request_schema(path: str) -> Any:
    return PATHS[path]["post"]["requestBody"]["content"]["application/json"]["schema"]


def reply_schema(method: str, path: str, status: int) -> Any:
    """The schema of a reply with this status."""
    replies = PATHS[path][method.lower()]["responses"]
    return replies.get(str(status), replies["default"])["content"]["application/json"]["schema"]


def template(path: str) -> str:
    """The path of the document that a called path belongs to."""
    path = path.replace("{id}", "{task_id}")
    return path if path in PATHS else f"{path.rpartition('/')[0]}/{{task_id}}"


def test_the_document_is_valid() -> None:
    """As a library of others judges it, and as JSON."""
    validate(json.loads(json.dumps(DOCUMENT)))


def test_every_operation_is_in_the_document_and_nothing_else() -> None:
    """Each call, and each method of the SDK by its name."""
    calls = {f"{method.upper()} {path}" for path, methods in PATHS.items() for method in methods}
    assert calls == set(operations())
    text = json.dumps(DOCUMENT)
    for word, family in FAMILIES.items():
        for name in family.operations():
            assert f"`client.{word}.{name}`" in text
    ids = [one["operationId"] for methods in PATHS.values() for one in methods.values()]
    assert len(set(ids)) == len(ids)


def test_limits_and_help_come_from_the_declarations() -> None:
    """Those of fields, known words, defaults, and what the SDK always sends."""
    song = DOCUMENT["components"]["schemas"]["SonicCreateMusic"]
    assert song["properties"]["title"]["maxLength"] == 80
    assert song["properties"]["mv"]["examples"][0] == "sonic-v6"
    assert (song["properties"]["duration"]["minimum"], song["properties"]["duration"]["maximum"]) == (10, 360)
    assert set(song["required"]) == {"task_type", "mv", "custom_mode", "use_suno_cdn"}
    assert "wait" not in DOCUMENT["components"]["schemas"]["SonicGetMidi"]["properties"]
    items = DOCUMENT["components"]["schemas"]["SonicCreateBatch"]["properties"]["items"]
    assert (items["minItems"], items["maxItems"], len(items["items"]["anyOf"])) == (1, 10, len(TASK_TYPES))
    assert "deprecated" in PATHS["/nuro/create"]["post"]
    assert "deprecated" not in PATHS["/sonic/create"]["post"]


SHORTER = {
    "sonic-create-req-custom-minimal": "the SDK always sends task_type and use_suno_cdn",
    "suno-create-req": "the SDK always sends task_type and use_suno_cdn",
    "riffusion-create-req-description": "the SDK always sends task_type",
}
"""Bodies of the contract that are shorter than what the SDK sends."""


@pytest.mark.parametrize("example", REQUESTS, ids=str)
def test_requests_of_the_contract_fit_the_document(example: Example) -> None:
    """With null and empty texts left out, as everywhere."""
    sent = {name: value for name, value in example.body.items() if value not in (None, "")}
    found = broken(request_schema(example.path), sent)
    assert bool(found) == (example.name in SHORTER), found


RESPONSES = [
    one for one in EXAMPLES if one.kind == "response" and one.method != "any" and template(one.path) in PATHS
]


@pytest.mark.parametrize("example", RESPONSES, ids=str)
def test_responses_of_the_contract_fit_the_document(example: Example) -> None:
    """A 2xx that holds an error is one of the things that make this API odd: it fits as an error."""
    schemas = [reply_schema(example.method, template(example.path), example.status)]
    if example.outcome not in ("accepted", "ok", "succeeded"):
        schemas.append(reply_schema(example.method, template(example.path), 500))
    found = [broken(schema, example.body) for schema in schemas]
    assert [] in found, found


# --- the sandbox --------------------------------------------------------------------------------------------


class Caller:
    """A sandbox in virtual time, and plain HTTP to it."""

    def __init__(self) -> None:
        self.runner = asyncio.Runner(loop_factory=VirtualTimeLoop)
        self.box = Sandbox(credits=1e9, durations=Durations(upload=0.0, lyrics=0.0))
        self.runner.run(self.box.start())
        self.http = self.runner.run(self._session())

    async def _session(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(headers={"Authorization": f"Bearer {self.box.api_key}"})

    def call(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        return self.runner.run(self._call(method, path, body))

    async def _call(self, method: str, path: str, body: object) -> tuple[int, Any]:
        async with self.http.request(method, self.box.base_url + path, json=body) as reply:
            return reply.status, await reply.json()

    def checked(self, method: str, path: str, body: object = None) -> Any:
        """Call, and compare the reply with the document."""
        status, reply = self.call(method, path, body)
        assert status < 500 or method == "GET", reply
        schema = reply_schema(method, template(path.partition("?")[0]), status)
        assert broken(schema, reply) == [], (status, reply)
        return reply

    def close(self) -> None:
        self.runner.run(self.http.close())
        self.runner.run(self.box.stop())
        self.runner.close()


@pytest.fixture(scope="module")
def caller() -> Generator[Caller]:
    caller = Caller()
    yield caller
    caller.close()


def values(schema: Any) -> st.SearchStrategy[Any]:
    """The values that a schema of the document allows, those at its limits among them."""
    if "$ref" in schema:
        return values(DOCUMENT["components"]["schemas"][schema["$ref"].rpartition("/")[2]])
    if forms := schema.get("oneOf") or schema.get("anyOf"):
        return st.one_of(*map(values, forms))
    if "const" in schema:
        return st.just(schema["const"])
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    match schema.get("type"):
        case "object" if "properties" in schema:
            known = {name: values(one) for name, one in schema["properties"].items()}
            needed = {name: known.pop(name) for name in schema.get("required", ())}
            return st.fixed_dictionaries(needed, optional={**known, "new_field": ANYTHING})
        case "string":
            return texts(schema)
        case "number" | "integer" as kind:
            low, high = schema.get("minimum", 0), schema.get("maximum", 1000)
            number = st.integers if kind == "integer" else st.floats
            return number(int(low), int(high)) | st.sampled_from([low, high])
        case "boolean":
            return st.booleans()
        case "array":
            most = schema.get("maxItems", 3)
            return st.lists(values(schema["items"]), min_size=schema.get("minItems", 0), max_size=most)
        case "object":
            return st.dictionaries(st.text(max_size=5), ANYTHING, max_size=2)
        case _:
            return ANYTHING


ANYTHING = st.none() | st.booleans() | st.text(st.characters(codec="utf-8"), max_size=5)


def texts(schema: Any) -> st.SearchStrategy[str]:
    least, most = schema.get("minLength", 0), schema.get("maxLength", 30)
    known = st.sampled_from(schema.get("examples") or ["x" * most])
    if schema.get("format") == "uri":
        return st.sampled_from(["https://files.example/a.mp3", "http://127.0.0.1:9/a.mp3"])
    return known | st.text(st.characters(codec="utf-8"), min_size=least, max_size=min(most, 30))


BODIES = {path: values(request_schema(path)) for path in POSTS}


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(st.data())
def test_the_sandbox_answers_any_body_of_the_document_as_the_document_says(
    caller: Caller, data: st.DataObject
) -> None:
    """Accepted or refused, and never with a failure of its own."""
    path = data.draw(st.sampled_from(POSTS))
    caller.checked("POST", path, data.draw(BODIES[path]))


SONG = {"task_type": "create_music", "custom_mode": False, "mv": "sonic-v6", "gpt_description_prompt": "rain"}
FORMS: dict[str, list[Any]] = {
    "submit": ["plain", "code", "nested"],
    "error": ["type", "error", "message", "code", "code-text", "detail"],
    "unknown_task": ["400", "404", "code"],
    "not_ready": ["202", "202-code", "200", "empty", "null"],
    "running": ["visible", "hidden"],
    "failure": [
        "clips",
        "failed-200",
        "timeout-200",
        "forbidden-200",
        "api-error-200",
        "failed-500",
        "timeout-504",
    ],
    "duration": ["text", "number", "integer"],
    "batch_tasks": ["task_id", "id", "text"],
    "batch_entries": ["all", "accepted"],
    "batch_status": ["data", "tasks"],
    "upload": ["plain", "nested"],
    "upsampled": ["nested", "flat"],
}
"""Choices of the sandbox that change a reply."""


@settings(max_examples=25)
@given(
    st.fixed_dictionaries({name: st.sampled_from(words) for name, words in FORMS.items()}),
    st.sampled_from([None, Fault.fail(), Fault.partial(), Fault.odd_state("mixing")]),
)
def test_replies_of_the_sandbox_fit_the_document_under_every_choice(
    caller: Caller, choices: dict[str, Any], fault: Fault | None
) -> None:
    """From the submit to the end of a song, of a batch, and of what is made of a clip."""
    box = caller.box
    box.choices = Choices(**choices)
    box.faults.clear()
    if fault is not None:
        box.faults.on("POST", "/sonic/create", fault)
    reply = caller.checked("POST", "/sonic/create", SONG | {"use_suno_cdn": False})
    task_id = reply.get("task_id") or reply["data"]["task_id"]
    refused = {**SONG, "gpt_description_prompt": "by example name"}
    batch = caller.checked("POST", "/sonic/batch", {"items": [SONG, refused]})
    caller.checked("POST", "/sonic/create", {})
    for pause in (0.0, 15.0, 30.0, 600.0):
        caller.runner.run(asyncio.sleep(pause))
        body = caller.checked("GET", f"/sonic/task/{task_id}")
        caller.checked("GET", f"/suno/clip/{task_id}")
        caller.checked("GET", f"/sonic/batch?batch_id={batch['batch_id']}")
    caller.checked("GET", "/sonic/task/unknown")
    caller.checked("GET", "/get-credits")
    caller.checked("POST", "/sonic/upsample-tags", {"tags": "pop"})
    caller.checked("POST", "/sonic/lyrics", {"description": "a sky"})
    clips = [clip for clip in body.get("data") or [] if clip["state"] == "succeeded"]
    for clip in clips[:1]:
        for path in ("/sonic/wav", "/sonic/midi", "/sonic/bpm", "/sonic/vox", "/sonic/stems/basic"):
            caller.checked("POST", path, {"clip_id": clip["clip_id"]})
        caller.checked("POST", "/sonic/download", {"clip_id": clip["clip_id"], "formats": ["mp3"]})
        caller.checked("POST", "/sonic/persona", {"clip_id": clip["clip_id"], "name": "Rain"})
