"""The tools: names, descriptions, schemas and checks, derived from the declarations of the requests.

A paid tool is an operation of Sonic with the fields that make sense in a conversation; its description, its
schema and the checks of its arguments are those of the operation. A free tool is a request of its own, which
is declared in the same way. Fields that a tool leaves out are named in no text of it.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal, get_args

import msgspec
from msgspec import Meta

from ..api.field_limits import SONIC_MODELS
from ..api.operation import Operation
from ..api.request import FieldInfo, Request, fields, refuse, violations
from ..api.sonic import Sonic
from ..api.suggestions import did_you_mean
from ..errors import Violation

LONGEST_WAIT: Final = 50.0
"""Seconds that a tool works at most: clients give up after 60, the default of the protocol's own SDKs."""
USUAL_WAIT: Final = 45.0

HIDDEN: Final = frozenset(
    {
        "webhook_url",
        "webhook_secret",
        "use_suno_cdn",
        "custom_mode",  # follows from the text that is given
        "vox_audio_id",  # of a tool that is not offered
        "vocal_start_s",
        "vocal_end_s",
    }
)
"""Fields of requests that no tool has."""
DEFAULTS: Final[Mapping[str, str]] = MappingProxyType({"mv": next(iter(SONIC_MODELS))})
"""Values of required fields that a person rarely names."""
TEXTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "persona_id": "Persona id, from create_persona.",
        "auto_lyrics": "The service writes the lyrics from a description in `prompt`.",
        "full": "True: all parts, 12 to 24; takes many minutes, and often fails, with its credits returned. "
        "False: vocals and instrumental.",
    }
)
"""Descriptions in the place of those of the declaration, which name other operations."""

PAYS: Final = (
    "Charges credits. Repeating the call with the same job_key and the same arguments gives the same result "
    "and pays nothing, so after a time-out or a lost answer repeat it exactly so."
)
MAKES_TASK: Final = (
    "Returns a token at once; the song takes one to four minutes: call wait_for_song with the token."
)


class JobKey(Request):
    """The argument that each paid tool has besides those of its operation."""

    job_key: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=200,
            description="Your name for this one paid call, such as 'rain-song-1'. The same job_key never "
            "pays twice; a new song, or another attempt, needs a new one.",
        ),
    ]


class SeparateStems(Request):
    """Split a clip into vocals and instrumental, or into all its parts. Takes minutes."""

    clip_id: Annotated[str, Meta(min_length=1, description="Clip id.")]
    full: Annotated[bool, Meta(description="")] = False


Token = Annotated[
    str,
    Meta(min_length=1, max_length=1000, description="The token that a paid tool returned, or list_jobs."),
]
AtMost = Annotated[
    float,
    Meta(
        ge=1,
        le=LONGEST_WAIT,
        description="Seconds to work at most; less than the time after which your client gives up.",
    ),
]


class WaitForSong(Request):
    """Wait until a song, stems or another task is finished. If it takes longer than `at_most`, the result
    says that it is paid for and still being made: call again, as often as needed.
    """

    token: Token
    at_most: AtMost = USUAL_WAIT


class CheckSong(Request):
    """Say how far a song, stems or another task is, without waiting."""

    token: Token


class DownloadSong(Request):
    """Save the files of a finished song, or of stems, in the folder of this server. The result has a link to
    each local file, with title, length and cover. Whole files are not fetched twice.
    """

    token: Token
    at_most: AtMost = USUAL_WAIT


class ListJobs(Request):
    """List the paid calls that this server has recorded, the latest first, with job key, state and token:
    also those of earlier conversations, and of a server that was killed. Lyrics and personas have no token:
    repeat the call with its job_key and the `arguments` that are listed, which pays nothing.
    """

    states: (
        Annotated[
            list[Literal["reserved", "sent", "accepted", "finished", "failed", "ambiguous"]],
            Meta(
                max_length=6,
                description="Only jobs in these states. accepted: being made, or not waited for yet; "
                "ambiguous: sent, and the outcome is unknown, so that a person has to decide.",
            ),
        ]
        | None
    ) = None
    limit: Annotated[int, Meta(ge=1, le=100, description="Jobs to list at most.")] = 20


class GetCredits(Request):
    """Show the balance of the account, and what of the budget of this server is spent."""


class PlanBatch(Request):
    """Check a list of songs, and say how long they would take and what they would cost. Sends nothing."""

    songs: Annotated[
        list[dict[str, Any]],
        Meta(
            min_length=1,
            max_length=1000,
            description="One object a song, with the arguments of create_song, and if wanted "
            '`steps`, such as ["stems", "lyrics"].',
        ),
    ]
    prices: (
        Annotated[
            dict[str, float],
            Meta(description='Credits by step or operation, such as {"create_music": 20}.'),
        ]
        | None
    ) = None


class Tool(msgspec.Struct, frozen=True, kw_only=True):
    """One tool. `request` declares its arguments; a paid one has an operation, and one for `full`."""

    name: str
    title: str
    request: type[Request]
    operations: tuple[Operation[..., Any], ...] = ()
    saves_files: bool = False
    is_offline: bool = False

    @property
    def charges(self) -> bool:
        """True if it costs credits."""
        return bool(self.operations)

    @property
    def fields(self) -> list[FieldInfo]:
        """The fields of its request that it offers."""
        return [field for field in fields(self.request) if field.name not in HIDDEN]

    @property
    def description(self) -> str:
        """The subject, the cost and the next step, from the docstring of the request."""
        about = " ".join(inspect.cleandoc(self.request.__doc__ or "").split())
        texts = [_about(about, self)]
        texts.append(PAYS if self.charges else "Free.")
        texts += [MAKES_TASK] if self.charges and self.operations[0].submits else []
        return " ".join(texts)

    @property
    def schema(self) -> dict[str, Any]:
        """The JSON schema of its arguments."""
        of_key = fields(JobKey) if self.charges else ()
        declared = [*of_key, *self.fields]
        return {
            "type": "object",
            "properties": {field.name: self._property(field) for field in declared},
            "required": [one.name for one in declared if one.required and one.name not in DEFAULTS],
            "additionalProperties": False,
        }

    def _property(self, field: FieldInfo) -> dict[str, Any]:
        schema = msgspec.json.schema(_without_none(field.hint))
        text = TEXTS.get(field.name) or _about(field.description, self)
        default = DEFAULTS.get(field.name, field.default)
        schema["description"] = text
        has_default = field.name in DEFAULTS or field.default is not None
        return {**schema, "default": default} if has_default else schema

    def operation_for(self, request: Request) -> Operation[..., Any]:
        """Return the operation that carries out a request of a paid tool."""
        is_full = isinstance(request, SeparateStems) and request.full
        return self.operations[1 if is_full else 0]


def _tool(name: str, title: str, operation: Operation[..., Any]) -> Tool:
    """Return the tool that carries out one operation with the arguments that it has."""
    return Tool(name=name, title=title, operations=(operation,), request=operation.request)


TOOLS: Final[Mapping[str, Tool]] = MappingProxyType(
    {
        tool.name: tool
        for tool in (
            _tool("create_song", "Create a song", Sonic.create_music),
            _tool("extend_song", "Extend a song", Sonic.extend_music),
            _tool("join_song", "Join an extension to its song", Sonic.concat_music),
            _tool("cover_song", "Cover a song", Sonic.cover_music),
            _tool("create_persona", "Make a persona of a voice", Sonic.create_persona),
            _tool("song_with_persona", "Create a song with a persona", Sonic.persona_music),
            Tool(
                name="separate_stems",
                title="Separate the stems of a song",
                operations=(Sonic.stems_basic, Sonic.stems_full),
                request=SeparateStems,
            ),
            _tool("write_lyrics", "Write lyrics", Sonic.lyrics),
            Tool(name="wait_for_song", title="Wait for a song", request=WaitForSong),
            Tool(name="check_song", title="Check a song", request=CheckSong),
            Tool(name="download_song", title="Save a song", request=DownloadSong, saves_files=True),
            Tool(name="list_jobs", title="List paid calls", request=ListJobs, is_offline=True),
            Tool(name="get_credits", title="Show the balance", request=GetCredits),
            Tool(name="plan_batch", title="Plan a batch", request=PlanBatch, is_offline=True),
        )
    }
)
"""All tools by name, in the order in which clients list them."""

OF_OPERATION: Final[Mapping[str, str]] = MappingProxyType(
    {operation.name: tool.name for tool in TOOLS.values() for operation in tool.operations}
)
"""The tool of each operation."""


def prices_of(prices: Mapping[str, float]) -> dict[str, float]:
    """Return prices by operation of those by tool; other names, such as those of steps, stay."""
    found: dict[str, float] = {}
    for name, price in prices.items():
        operations = TOOLS[name].operations if name in TOOLS else ()
        found |= dict.fromkeys([operation.name for operation in operations] or [name], price)
    return found


_SENTENCE: Final = re.compile(r"(?<=[^.]\.) (?=[A-Z`])|(?=; )")
_NAME: Final = re.compile(r"\b[a-z]+(?:_[a-z0-9]+)+\b")


def _about(text: str, tool: Tool) -> str:
    """Return a text of a declaration with tools in the place of operations.

    Sentences about a field or an operation that no tool has are left out.
    """
    known = {field.name for field in tool.fields} | set(TOOLS) | {"job_key"}
    sentences = [one for one in _SENTENCE.split(in_tools(text)) if known.issuperset(_NAME.findall(one))]
    joined = "".join(one if one.startswith("; ") else f" {one}" for one in sentences).removeprefix("; ")
    return f"{joined.strip().rstrip('.')}." if joined else ""


def in_tools(text: str) -> str:
    """Return a text with tools in the place of operations. One whose name is a common word stays."""
    return _NAME.sub(lambda name: OF_OPERATION.get(name[0], name[0]), text)


def _without_none(hint: object) -> Any:
    """Return the type of a field that is given."""
    members = get_args(hint)
    return next(one for one in members if one is not type(None)) if type(None) in members else hint


def request_of(tool: Tool, given: Mapping[str, object]) -> Request:
    """Return the checked request of a tool, without its job key.

    Raises:
        RequestValidationError: names each argument that is unknown, missing, or breaks a limit.
    """
    values = {name: value for name, value in given.items() if value is not None}
    key = {name: values.pop(name) for name in ("job_key",) if tool.charges and name in values}
    known = {field.name: field for field in tool.fields}
    faults = [*_unknown(values, known)]
    for name, default in DEFAULTS.items():
        if name in known:
            values.setdefault(name, default)
    faults += _missing(values, known)
    if tool.charges:
        faults += _missing(key, {field.name: field for field in fields(JobKey)})
        faults += [] if faults else _key_faults(key["job_key"])
    if faults:
        raise refuse(faults, tool.name)
    request = tool.request(**values, **_mode(tool, values))
    if broken := violations(request):
        raise refuse(broken, tool.name)
    return request


def _unknown(values: Iterable[str], known: Iterable[str]) -> Iterator[Violation]:
    for name in values:
        if name not in known:
            instead = did_you_mean(name, known) or f"; there are {', '.join(known)}"
            yield Violation(name[:60], f"no argument of this tool{instead}", "")


def _missing(values: Mapping[str, object], known: Mapping[str, FieldInfo]) -> Iterator[Violation]:
    for name, field in known.items():
        if field.required and name not in values:
            yield Violation(name, f"needed ({field.limit})", "nothing")


def _key_faults(key: object) -> list[Violation]:
    found = violations(JobKey(job_key=key))  # type: ignore[arg-type]
    if not found and isinstance(key, str) and not (key.isprintable() and key == key.strip()):
        # A key that is repeated without the space at its end would be another one, and pay twice.
        found = [Violation("job_key", "printable characters, with no space at either end", "others")]
    return found


def _mode(tool: Tool, values: Mapping[str, object]) -> dict[str, bool]:
    """Return the mode of a request that needs it said; it follows from the text that is given."""
    required = any(field.name == "custom_mode" and field.required for field in fields(tool.request))
    own_lyrics = bool(values.get("prompt")) or not values.get("gpt_description_prompt")
    return {"custom_mode": own_lyrics} if required else {}
