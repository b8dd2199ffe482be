"""The service as this SDK knows it, as an OpenAPI 3.1 document: for clients in other languages.

`document()` reads everything off the declarations that the SDK itself uses: paths, requests with their limits
and help texts, and replies. So it describes what is documented or was observed, and is no document of the
vendor's. Fields that the SDK always sends are required in it. Rules between fields, such as the limit of a
prompt by model, do not fit a schema and are not in it. Replies are described as leniently as they are read:
numbers may come as text, any field may be null, and fields may be added.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Any, Final, cast

import msgspec

from .._version import __version__
from ..arguments import is_list
from ..options import DEFAULT_BASE_URL
from .batches import TASK_TYPES, Batch, BatchStates
from .direct_replies import Reply
from .families import FAMILIES
from .operation import Operation
from .operation_help import first_paragraph
from .request import FieldInfo, Request, body, fields
from .results import Clip, Item
from .stems import Pair

Schema = dict[str, Any]

REF: Final = "#/components/schemas/{name}"
ABOUT: Final = (
    "Music generation over REST: a POST charges credits and gives a task id, a free GET is polled until the "
    "clips are there. Written down from the vendor's documentation and from observed replies; not a document "
    "of the vendor's. There is no idempotency key: a POST that was sent and whose answer was lost may have "
    "been carried out and charged, so it must not be repeated blindly."
)
NUMBERS: Final = {"number": ["number", "string"], "integer": ["integer", "number", "string"]}
"""Types of values in replies: numbers may come as text."""

STRICT: Final = frozenset({"required", "default", "minimum", "maximum"})
"""Keywords that do not hold for replies."""


def document(server: str = DEFAULT_BASE_URL) -> Schema:
    """Return the OpenAPI 3.1 document of the service, as plain data for JSON.

    Args:
        server: the base URL of the service.
    """
    schemas = dict(sorted(_components().items()))
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "MusicAPI.ai, as musicapi_async knows it",
            "version": __version__,
            "description": ABOUT,
        },
        "servers": [{"url": server}],
        "security": [{"key": []}],
        "paths": _paths(),
        "components": {
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
            "schemas": schemas,
        },
    }


def operations() -> Mapping[str, list[Operation[..., Any]]]:
    """Return all operations by their call, such as 'POST /sonic/create', which several may share."""
    found: dict[str, list[Operation[..., Any]]] = {}
    for family in FAMILIES.values():
        for operation in family.operations().values():
            found.setdefault(operation.call_name, []).append(operation)
    return found


def _paths() -> Schema:
    paths: Schema = {}
    for call, several in operations().items():
        method, _, path = call.partition(" ")
        paths.setdefault(path, {})[method.lower()] = _operation(call, several)
    return paths


def _operation(call: str, several: list[Operation[..., Any]]) -> Schema:
    first = several[0]
    method, _, path = call.partition(" ")
    names = [f"`client.{one.family.word}.{one.name}`" for one in several]
    found: Schema = {
        "operationId": method.lower() + "".join(word[:1].upper() + word[1:] for word in _words(path)),
        "tags": [first.family.word],
        "summary": _summary(several),
        "description": f"{_cost(first)} In the Python SDK: {', '.join(names)}.",
        "responses": _responses(several),
    }
    if first.replacement or first.family.replacement:
        found["deprecated"] = True
    parameters = list(_parameters(first, path))
    if parameters:
        found["parameters"] = parameters
    if method != "GET":
        found["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": _one_of([one.request for one in several])}},
        }
    return found


def _summary(several: list[Operation[..., Any]]) -> str:
    if len(several) > 1:
        return f"One of: {', '.join(one.name for one in several)}."
    return first_paragraph(several[0].request).replace("`", "").partition(". ")[0].rstrip(".") + "."


def _parameters(operation: Operation[..., Any], path: str) -> Iterator[Schema]:
    """Find the parameters of a GET: those in the path, and else those of the query."""
    for field in operation.fields if operation.method == "GET" else ():
        place = "path" if "{" + field.name + "}" in path else "query"
        schema = _field_schema(field)
        text = schema.pop("description", field.description)
        yield {"name": field.name, "in": place, "required": True, "description": text, "schema": schema}


def _words(path: str) -> list[str]:
    parts = [part for part in path.split("/") if "{" not in part]
    return [word for part in parts for word in part.split("-") if word]


def _responses(several: list[Operation[..., Any]]) -> Schema:
    first = several[0]
    found = {"200": _content("The result.", _reply_schema(first))}
    if first.creates:
        found["202"] = _content("Taken, and the outcome is unknown: do not repeat it.", _ref("Error"))
    elif first.polled is not None or first.repeat is not None:
        found["202"] = _content("Not ready: call again after some seconds.", _ref("Error"))
    found["default"] = _content("An error. What it says of money depends on its status.", _ref("Error"))
    return found


def _cost(operation: Operation[..., Any]) -> str:
    """Return one or two sentences on credits and repetitions."""
    if not operation.charges:
        return "Free."
    if operation.resend:
        return "Charges credits; the same call again does not."
    after = " Only after a 202 it may be repeated." if operation.repeat is not None else ""
    return f"Charges credits. Must not be repeated once it was sent.{after}"


def _content(text: str, schema: Schema) -> Schema:
    return {"description": text, "content": {"application/json": {"schema": schema}}}


def _reply_schema(operation: Operation[..., Any]) -> Schema:
    if operation.submits:
        return _ref("Submitted")
    if operation.reply is Batch:
        return _ref("SubmittedBatch")
    if issubclass(operation.reply, Reply):
        return _ref(operation.reply.__name__)
    return _ref("TaskState")


def _one_of(kinds: Iterable[type[Request]]) -> Schema:
    """Return the schema of a body that is one of several requests; tags tell which."""
    unique = list(dict.fromkeys(kinds))
    refs = [_ref(_name(kind)) for kind in unique]
    if len(refs) == 1:
        return refs[0]
    tags = {str(kind.__struct_config__.tag): _name(kind) for kind in unique if kind.__struct_config__.tag}
    field = unique[0].__struct_config__.tag_field
    if field is None or len(tags) < len(unique):
        return {"anyOf": refs}
    mapping = {tag: REF.format(name=name) for tag, name in tags.items()}
    return {"oneOf": refs, "discriminator": {"propertyName": field, "mapping": mapping}}


@cache
def _names() -> Mapping[type[Request], str]:
    """Return the names of the schemas of requests: families have classes of one name."""
    names: dict[type[Request], str] = {}
    for operation in (one for several in operations().values() for one in several):
        kind, family = operation.request, operation.family.__name__
        names.setdefault(kind, f"{family}{kind.__name__.removeprefix(family)}")
    return names


def _name(kind: type[Request]) -> str:
    return _names()[kind]


def request_schema(kind: type[Request], optional: Iterable[str] = ()) -> Schema:
    """Return the schema of a request. Fields that the SDK always sends are required, but those in `optional`.

    Fields that are not declared may be sent, too.
    """
    config, not_needed = kind.__struct_config__, set(optional)
    properties: Schema = {}
    if config.tag_field is not None:
        properties[config.tag_field] = {"const": config.tag}
    properties |= {field.name: _field_schema(field) for field in fields(kind) if not field.local}
    required = [name for name in properties if name in always_sent(kind) and name not in not_needed]
    schema: Schema = {"type": "object", "description": first_paragraph(kind), "properties": properties}
    return {**schema, "required": required} if required else schema


def always_sent(kind: type[Request]) -> set[str]:
    """Return the fields of the body that the SDK always sends."""
    needed = {field.name for field in fields(kind) if field.required}
    return needed | set(body(kind(**dict.fromkeys(needed, "x"))))


def _field_schema(field: FieldInfo) -> Schema:
    if field.name == "items":
        return _items_schema(field)
    schema = _without_null(_schema(field.hint))
    if field.link or field.protected:
        schema["format"] = "uri"
    if field.known:
        schema["examples"] = list(field.known)
    if field.default is not None and not field.required:
        schema["default"] = field.default
    return schema


def _items_schema(field: FieldInfo) -> Schema:
    """Return the schema of the items of a batch: each is a single create, by default of a new song."""
    forms = [
        request_schema(kind, ("use_suno_cdn", "task_type" if word == "create_music" else ""))
        for word, kind in TASK_TYPES.items()
    ]
    return {**_schema(field.hint), "items": {"anyOf": forms}}


def _schema(hint: object) -> Schema:
    """Return the schema of a type; objects in it are among the components."""
    (schema,), _ = msgspec.json.schema_components((hint,), ref_template=REF)
    return schema


def _without_null(schema: Schema) -> Schema:
    """Return a schema without null: a field that is None is not sent."""
    forms = [one for one in schema.get("anyOf", ()) if one != {"type": "null"}]
    if not forms:
        return schema
    rest = {name: value for name, value in schema.items() if name != "anyOf"}
    return {**rest, **forms[0]} if len(forms) == 1 else {**rest, "anyOf": forms}


def _components() -> Schema:
    found: Schema = {}
    replies: set[type[Item]] = {Clip, Pair}
    for operation in (one for several in operations().values() for one in several):
        if operation.method != "GET":
            found[_name(operation.request)] = request_schema(operation.request)
            hints = [field.hint for field in operation.fields]
            found |= msgspec.json.schema_components(hints, ref_template=REF)[1]
        if issubclass(operation.reply, Reply) and operation.reply is not BatchStates:
            replies.add(operation.reply)
    _, inner = msgspec.json.schema_components(replies, ref_template=REF)
    found |= {name: _lenient(schema) for name, schema in inner.items()}
    for kind in replies:
        if issubclass(kind, Reply):
            found[kind.__name__] = _enveloped(kind, found[kind.__name__])
    return {**found, **_SHAPES}


def _enveloped(kind: type[Reply], schema: Schema) -> Schema:
    """Return the schema of a whole reply: its fields are at the top, or in `data`."""
    keys = kind.keys
    properties = {keys.get(name, name): one for name, one in schema["properties"].items()}
    needed = kind.needs or tuple(properties)
    inner: Schema = {
        "properties": properties,
        "anyOf": [{"required": [keys.get(one, one)]} for one in needed],
    }
    return {
        "type": "object",
        "description": schema.get("description", ""),
        "anyOf": [inner, {"properties": {"data": {"type": "object", **inner}}, "required": ["data"]}],
    }


def _lenient(schema: object) -> Any:
    """Return a schema of replies as they are read: no field is needed, and any may be null."""
    if is_list(schema):
        return [_lenient(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    given = cast("Schema", schema)
    found: Schema = {name: _lenient(one) for name, one in given.items() if name not in STRICT}
    if isinstance(text := found.get("description"), str):
        found["description"] = " ".join(text.partition("\n\n")[0].split())
    kind = found.get("type")
    if isinstance(kind, str) and kind in NUMBERS:
        found["type"] = NUMBERS[kind]
    properties: Schema = found.get("properties", {})
    if properties:
        found["properties"] = {name: _nullable(one) for name, one in properties.items()}
    return found


def _nullable(schema: Schema) -> Schema:
    if schema == {} or {"type": "null"} in schema.get("anyOf", ()):
        return schema
    return {"anyOf": [schema, {"type": "null"}]}


def _ref(name: str) -> Schema:
    return {"$ref": REF.format(name=name)}


_ANY_ID: Final = {"type": ["string", "integer"], "description": "Opaque; a UUID so far."}
_CODE: Final = {"type": ["integer", "string", "null"], "description": "In a 2xx: 400 or more is an error."}

_SHAPES: Final[Schema] = {
    "Error": {
        "type": "object",
        "description": "The text is in `error`, `message` or `detail`; `type` is a word such as not_found.",
        "properties": {
            "type": {"type": ["string", "null"]},
            "code": _CODE,
            "failed_step": {"type": ["string", "null"], "description": "Of uploads and samples."},
            "steps": {"type": ["object", "null"]},
            "already_refunded": {"type": ["boolean", "null"]},
            "refund_processed": {"type": ["boolean", "null"]},
        },
    },
    "Submitted": {
        "type": "object",
        "description": "A create was accepted and paid for. The id of its task is at the top, or in `data`.",
        "properties": {
            "code": _CODE,
            "message": {"type": ["string", "null"]},
            "task_id": _ANY_ID,
            "data": {"type": ["object", "string"], "properties": {"task_id": _ANY_ID}},
            "steps": {"type": ["object", "null"], "description": "Of uploads and samples: each step."},
            "warning": {"type": ["string", "null"]},
        },
        "anyOf": [{"required": ["task_id"]}, {"required": ["data"]}],
    },
    "SubmittedBatch": {
        "type": "object",
        "description": "A batch was accepted. The keys of an entry are not documented.",
        "properties": {
            "message": {"type": ["string", "null"]},
            "batch_id": {"type": ["string", "null"], "description": "For GET /sonic/batch."},
            "submitted": {"type": ["integer", "string", "null"]},
            "tasks": {
                "type": "array",
                "items": {
                    "anyOf": [
                        {"type": "object", "required": ["task_id"], "properties": {"task_id": _ANY_ID}},
                        {"type": "object", "required": ["id"], "properties": {"id": _ANY_ID}},
                        {"type": "string"},
                        _ref("Error"),
                    ]
                },
            },
        },
        "required": ["tasks"],
    },
    "BatchStates": {
        "type": "object",
        "description": "Of each task what a poll of it answers. The form is not documented.",
        "properties": {
            "batch_id": {"type": ["string", "null"]},
            **{
                name: {
                    "type": "array",
                    "items": {
                        "allOf": [
                            _ref("TaskState"),
                            {"required": ["task_id"], "properties": {"task_id": _ANY_ID}},
                        ]
                    },
                }
                for name in ("data", "tasks")
            },
        },
        "anyOf": [{"required": ["data"]}, {"required": ["tasks"]}],
    },
    "TaskState": {
        "type": "object",
        "description": (
            "The state of a task. It has ended when each clip in `data` has the state succeeded or failed; "
            "`code` 200 alone does not say so."
        ),
        "properties": {
            "code": _CODE,
            "type": {"type": ["string", "null"]},
            "status": {"type": ["string", "null"]},
            "data": {"anyOf": [{"type": "array", "items": {"anyOf": [_ref("Clip"), _ref("Pair")]}}, {}]},
        },
    },
}
"""The bodies that the SDK reads by rules and not by a declaration."""
