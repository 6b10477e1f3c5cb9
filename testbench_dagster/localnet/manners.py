"""How a simulated supplier's server differs from a plain OpenAI-compatible one, as real ones do.

:data:`MANNERS` are the kinds by name: a reasoning model, the servers of OpenAI and Azure, a strict gateway,
a slow stream, an answer without usage, streams that are refused or break off. What each refuses, and in which
words, is what the real ones were seen to say.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from testbench_dagster.core.wording import counted

if TYPE_CHECKING:
    from testbench_dagster.localnet.requests import Ask

#: Where a reasoning model's thoughts stand: in ``message.reasoning_content`` or ``message.reasoning``, as a
#: part of the content, between tags in the text, there without the opening tag, or nowhere, only counted.
Thoughts = Literal["reasoning_content", "reasoning", "part", "tags", "end_tag", "hidden"]

#: A number that is no answer to any question of the starter tasks: it shows who takes something else for one.
NONSENSE = "8675309"
#: The key of servers that want one. It opens nothing: everything here is simulated.
KEY = "simulated-key-of-nobody"

_THOUGHTS_IN_TEXT = ("tags", "end_tag")
#: What all requests of OpenAI's API may say; a strict server refuses everything else.
_STRICT = frozenset(
    {
        "model", "messages", "prompt", "max_tokens", "temperature", "top_p", "stop", "n", "stream",
        "stream_options", "echo", "logprobs", "tools", "tool_choice", "response_format",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Refused:
    """A request that is not answered: the status, and the error's JSON."""

    status: int
    body: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Manners:
    """How a server behaves; the default is plain.

    ``thinks``: tokens of thoughts before each answer, which count for the request's limit; ``thoughts`` says
    where they stand. ``refuses``: parameters that must not stand in a request, ``temperature`` with any value
    but 1. ``max_stops``: most stop strings of a request. ``strict``: unknown parameters and an empty list of
    stop strings are refused. ``azure``: requests name their deployment in the path and the version of the API
    in the query, and carry the key in ``api-key``. ``gap_ms``: time between two events of a stream.
    ``usage``: whether answers count their tokens. ``breaks_after``: a stream ends after so many events, as
    if it were complete.
    """

    thinks: int = 0
    thoughts: Thoughts = "reasoning_content"
    refuses: tuple[str, ...] = ()
    max_stops: int | None = None
    strict: bool = False
    azure: bool = False
    gap_ms: float = 0.0
    usage: bool = True
    breaks_after: int | None = None

    @property
    def thinks_in_text(self) -> bool:
        """Whether thoughts are a part of the text, where stop strings end it too."""
        return self.thinks > 0 and self.thoughts in _THOUGHTS_IN_TEXT

    def base_path(self, model: str) -> str:
        """Path of the API, without slashes around it."""
        return f"openai/deployments/{model}" if self.azure else "v1"

    def refusal(self, ask: Ask) -> Refused | None:
        """Why a request is not answered, by what it says; None where nothing is wrong."""
        if self.strict and (unknown := sorted(ask.parameters - _STRICT)):
            return _extra(unknown)
        if self.strict and ask.stop_given == 0:
            return _error(400, "[] is too short - 'stop'", None, "stop")
        for name in self.refuses:
            if name not in ask.parameters or (name == "temperature" and ask.temperature == 1):
                continue
            return _unsupported(name)
        if self.max_stops is not None and (ask.stop_given or 0) > self.max_stops:
            text = (
                f"Invalid 'stop': array too long. Expected an array with maximum length {self.max_stops}, "
                f"but got an array with length {ask.stop_given} instead."
            )
            return _error(400, text, "array_above_max_length", "stop")
        return None

    def unadmitted(self, headers: Mapping[str, str], query: Mapping[str, str]) -> Refused | None:
        """Why nobody is let in, by the headers and the query of a request; None who is."""
        if not self.azure:
            return None
        if headers.get("api-key") != KEY:
            text = (
                "Access denied due to invalid subscription key or wrong API endpoint. Make sure to provide a "
                "valid key for an active subscription and use a correct regional API endpoint."
            )
            return Refused(401, {"error": {"code": "401", "message": text}})
        if not query.get("api-version"):
            return Refused(404, {"error": {"code": "404", "message": "Resource not found"}})
        return None


def too_long(limit: int, asked: int) -> Refused:
    """A prompt with its answer takes more tokens than the context has, as vLLM says it."""
    text = (
        f"This model's maximum context length is {counted(limit, 'token')}. However, you requested "
        f"{counted(asked, 'token')}. "
        "Please reduce the length of the messages or completion."
    )
    return _error(400, text, "context_length_exceeded", None)


def unknown_model(name: str) -> Refused:
    """There is no model of that name here."""
    text = f"The model `{name[:200]}` does not exist or you do not have access to it."
    return _error(404, text, "model_not_found", None)


def _error(status: int, message: str, code: str | None, param: str | None) -> Refused:
    error = {"message": message, "type": "invalid_request_error", "param": param, "code": code}
    return Refused(status, {"error": error})


def _unsupported(name: str) -> Refused:
    if name == "temperature":
        text = (
            "Unsupported value: 'temperature' does not support 0 with this model. Only the default (1) value "
            "is supported."
        )
        return _error(400, text, "unsupported_value", name)
    text = f"Unsupported parameter: '{name}' is not supported with this model."
    if name == "max_tokens":
        text += " Use 'max_completion_tokens' instead."
    return _error(400, text, "unsupported_parameter", name)


def _extra(names: list[str]) -> Refused:
    """As a server says it that reads requests into pydantic's models."""
    detail = [
        {"type": "extra_forbidden", "loc": ["body", name], "msg": "Extra inputs are not permitted"}
        for name in names
    ]
    return Refused(422, {"detail": detail})


#: The kinds of servers that can be played, by name.
MANNERS: Mapping[str, Manners] = {
    "plain": Manners(),
    "reasoning": Manners(thinks=400),
    "reasoning_tags": Manners(thinks=400, thoughts="tags"),
    "reasoning_end_tag": Manners(thinks=400, thoughts="end_tag"),
    "reasoning_part": Manners(thinks=400, thoughts="part"),
    "openai_reasoning": Manners(
        thinks=2000, thoughts="hidden", refuses=("max_tokens", "temperature", "stop"), max_stops=4
    ),
    "azure": Manners(azure=True, max_stops=4),
    "strict": Manners(strict=True, max_stops=4),
    "slow_stream": Manners(gap_ms=50),
    "no_usage": Manners(usage=False),
    "no_stream_options": Manners(refuses=("stream_options",)),
    "no_stream": Manners(refuses=("stream",)),
    "breaks_off": Manners(breaks_after=20),
}
