"""Help for an operation, read off its request: signature, docstring, and the fault of a wrong call."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, Final, Union, get_args, get_origin, get_type_hints

from ..options import Options
from .request import Request, fields
from .suggestions import OPTIONS_MEANT, did_you_mean, is_folder, nearest

_AT_MOST_ONCE: Final = "Sent at most once: not repeated unless it provably was not sent or was refused."
_REPEATED: Final = "May be repeated freely; the client repeats it after passing failures."
_PLAIN: Final = ("", "text", "True or False", "a number", "a whole number", "an object", "a JSON value")
"""Limits that say no more than the type."""
OR_FILE: Final = ", or a local file with MusicAPI(uploader=...)"
_ERRORS: Final = {
    "RequestValidationError": "a field breaks a limit; nothing was sent.",
    "OutcomeUnknownError": "the call was sent, and may have been carried out and charged.",
    "JobKeyConflictError": "the job key was used with another request; nothing was sent.",
    "JobStoreError": "the call could not be recorded; nothing was sent.",
    "APIStatusError": "the service refused; its subclasses say why.",
    "APIConnectionError": "the service cannot be reached.",
    "InvalidResponseError": "the response cannot be understood.",
}
ONLY_PAID: Final = frozenset({"OutcomeUnknownError", "JobKeyConflictError", "JobStoreError"})
ONLY_FREE: Final = frozenset({"InvalidResponseError"})  # of a paid call, its outcome is unknown


def signature_of(request: type[Request], returns: object) -> inspect.Signature:
    """Return the signature of the public method: of arguments by name, those of most use first."""
    plain = _types_of(request)
    own = inspect.signature(request).parameters
    names = list(own)
    if names and own[names[0]].kind is inspect.Parameter.KEYWORD_ONLY:
        names = [field.name for field in fields(request)]
    return inspect.Signature(
        [own[name].replace(annotation=plain[name]) for name in names], return_annotation=returns
    )


def docstring_of(
    request: type[Request],
    call: str,
    returns: str,
    *,
    family: str,
    charges: bool,
    resend: bool,
    replacement: str | None,
) -> str:
    """Return the docstring of the public method.

    Args:
        request: the class of its requests, whose docstring describes the method.
        call: method and path, such as `POST /sonic/create`.
        returns: the result of awaiting it, in words.
        family: the word of its family, for the example.
        charges: True if it costs credits.
        resend: True if it may be sent again although it costs credits.
        replacement: the operation to use instead of a deprecated one.
    """
    cost = "Charges credits." if charges else "Free."
    repeats = _AT_MOST_ONCE if charges and not resend else _REPEATED
    lines = [inspect.cleandoc(request.__doc__ or ""), "", f"`{call}`. {cost} {repeats}"]
    if replacement:
        lines += ["", f"Deprecated by the service; use {replacement} instead."]
    plain = _types_of(request)
    if fields(request):
        lines += ["", "Args:"]
    for field in fields(request):
        kind = inspect.formatannotation(plain[field.name])
        default = "required" if field.required else f"default {field.default!r}"
        if field.default is None and not field.required and not kind.endswith("None"):
            default = "optional"  # a value that is made for each request
        limit = "" if field.limit in _PLAIN else f" ({field.limit}{OR_FILE if field.link else ''})"
        lines.append(f"    {field.name} ({kind}, {default}): {field.description}{limit}")
    lines += ["", "Returns:", f"    {returns}", "", "Raises:"]
    errors = [name for name in _ERRORS if name not in (ONLY_FREE if charges else ONLY_PAID)]
    lines += [f"    {name}: {_ERRORS[name]}" for name in errors]
    if request.example:
        example = request.example.replace("{family}", family).splitlines()
        lines += ["", "Example:", "    ```python", *(f"    {line}" for line in example), "    ```"]
    return "\n".join(lines)


def first_paragraph(about: type) -> str:
    """Return the first paragraph of a docstring in one line."""
    return " ".join(inspect.cleandoc(about.__doc__ or "").partition("\n\n")[0].split())


def misuse(
    method: str,
    request: type[Request],
    args: tuple[object, ...],
    given: Mapping[str, object],
    error: TypeError,
) -> TypeError:
    """Return the error that names wrong arguments, and the right ones.

    Args:
        method: the public method, such as 'sonic.create_music'.
        request: the class of its requests.
        args: arguments given by position.
        given: arguments given by name.
        error: the error that making the request raised.
    """
    known = signature_of(request, None).parameters
    unknown = [one for one in given if one not in known]
    options = [one for one in unknown if one in Options.__struct_fields__ or one in OPTIONS_MEANT]
    if options:
        meant = OPTIONS_MEANT.get(options[0])
        use = (
            f"client.with_options({options[0]}=...)"
            if meant is None
            else f"client.with_options(...): {meant}"
        )
        text = f"takes no {options[0]!r}: that is an option, {use}"
    elif unknown:
        text = "has no argument " + ", ".join(_no_argument(one, known) for one in unknown)
        if not any(nearest(one, known) or is_folder(one) for one in unknown):
            text += f"; there are {', '.join(known)}"
    elif args and next(iter(known.values())).kind is inspect.Parameter.KEYWORD_ONLY:
        text = f"takes arguments by name only, such as {next(iter(known))}=..."
    else:
        needed = [one for one, about in known.items() if about.default is about.empty]
        missing = [one for one in needed if one not in given and one not in list(known)[: len(args)]]
        listed = [field.known_words for field in fields(request) if field.name in missing]
        text = f"needs {', '.join(missing)}" if missing else f"cannot be called so: {error}"
        text = "; ".join(filter(None, [text, *listed]))
    return TypeError(f"{method}() {text}")


def _no_argument(name: str, known: Iterable[str]) -> str:
    near = did_you_mean(name, known)
    if not near and is_folder(name):
        near = " (to save the files: client.download(await task.wait(), folder))"
    return f"{name!r}{near}"


@cache  # the signature and the docstring need them, one after the other
def _types_of(request: type[Request]) -> Mapping[str, Any]:
    """Return the types of the fields as a caller sees them: where a link is wanted, a file may be given."""
    types = {name: _union(hint) for name, hint in get_type_hints(request).items()}
    return types | {field.name: _with_path(types[field.name]) for field in fields(request) if field.link}


def _with_path(link: Any) -> Any:
    """Return the type of a link with the paths of files, None being the last."""
    takes_none = type(None) in get_args(link)
    return str | os.PathLike[str] | None if takes_none else str | os.PathLike[str]


def _union(hint: Any) -> Any:
    """Return `Optional[str]`, which is how typing spells it at run time, as `str | None`."""
    if get_origin(hint) is Union:
        union = get_args(hint)[0]
        for member in get_args(hint)[1:]:
            union = union | member
        return union
    return hint
