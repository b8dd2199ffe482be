"""What a back end says to browsers: problems instead of errors, and streams of a task's updates.

Pure but for the streams' waiting; no web framework. `musicapi_async.contrib.fastapi` and
`musicapi_async.contrib.aiohttp_web` are thin layers over it.
"""

from .problems import PROBLEM_TYPE, Problem, loggable, problem_of, problem_schema
from .streams import STREAM_HEADERS, STREAM_TYPE, event, has_ended, stream, update_fields

__all__ = [
    "PROBLEM_TYPE",
    "STREAM_HEADERS",
    "STREAM_TYPE",
    "Problem",
    "event",
    "has_ended",
    "loggable",
    "problem_of",
    "problem_schema",
    "stream",
    "update_fields",
]
