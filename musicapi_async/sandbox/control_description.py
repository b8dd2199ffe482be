"""The OpenAPI document of the control, made from its routes and from the declarations that Python uses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from .._version import __version__
from .declared_settings import Setting, settings_of
from .fault_texts import COMMON, EXAMPLE, FaultWord, fault_words, required

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from .control import Route


def settings_schema(declared: type[DataclassInstance]) -> dict[str, object]:
    """Return the JSON schema of an object with some of the settings of a dataclass."""
    properties = {name: setting.schema() for name, setting in settings_of(declared).items()}
    return {"type": "object", "properties": properties, "additionalProperties": False}


def described_faults() -> dict[str, object]:
    """Return the JSON schema of a fault: one form for each name, and the text of the command line."""
    text: dict[str, object] = {
        "title": "text",
        "type": "object",
        "properties": {"text": {"type": "string", "description": f"As on the command line: {EXAMPLE}."}},
        "required": ["text"],
        "additionalProperties": False,
    }
    return {"oneOf": [*map(_fault_schema, fault_words().values()), text]}


def _fault_schema(word: FaultWord) -> dict[str, object]:
    common = {setting.name: setting.schema() for setting in COMMON}
    options = {name: setting.schema() for name, setting in word.options.items()}
    return {
        "title": word.name,
        "description": word.help,
        "type": "object",
        "properties": {"fault": {"const": word.name}, **options, **common},
        "required": ["fault", *required(word)],
        "additionalProperties": False,
    }


def document(routes: Mapping[tuple[str, str], Route], server: str) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of the control."""
    kinds = {key: route.reply for key, route in routes.items() if route.reply is not None}
    schemas, components = msgspec.json.schema_components(
        list(kinds.values()), ref_template="#/components/schemas/{name}"
    )
    replies = dict(zip(kinds, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for (method, path), route in routes.items():
        reply = replies.get((method, path), {"type": "object"})
        operation: dict[str, Any] = {
            "summary": route.summary,
            "operationId": f"{method.lower()}{path.replace('/', '_')}",
            "responses": {
                "200": _response("Done.", reply),
                "400": _response("The request is wrong; nothing was changed.", _ERROR),
                "401": _response("The token is missing or wrong.", _ERROR),
            },
        }
        if route.query:
            operation["parameters"] = [_parameter(setting) for setting in route.query]
        if route.body is not None:
            operation["requestBody"] = {
                "required": True,
                "content": {"application/json": {"schema": route.body()}},
            }
        paths.setdefault(path, {})[method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {"title": "Control of the musicapi sandbox", "version": __version__},
        "servers": [{"url": server}],
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


_ERROR: dict[str, Any] = {
    "type": "object",
    "properties": {"error": {"type": "string"}},
    "required": ["error"],
}


def _response(text: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"description": text, "content": {"application/json": {"schema": schema}}}


def _parameter(setting: Setting) -> dict[str, Any]:
    schema = {key: value for key, value in setting.schema().items() if key != "description"}
    return {"name": setting.name, "in": "query", "description": setting.help, "schema": schema}
