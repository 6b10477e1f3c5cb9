"""A model that answers by a pure hash of what it is asked, so that any two runs can be compared.

The reference run asks it through lm-eval, our run asks :func:`answer` directly; equal requests get equal
answers, whatever the order and the process.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.models.api_models import JsonChatStr

Candidates = Callable[[dict[str, Any]], Sequence[str]]


def digest(*parts: Any) -> int:
    """A stable 64-bit number for JSON values."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=True)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def plain_args(args: Sequence[Any]) -> list[Any]:
    """The arguments of an lm-eval instance as JSON: a chat becomes its list of messages."""
    return [json.loads(a.prompt) if isinstance(a, JsonChatStr) else a for a in args]


def answer(
    kind: str, args: list[Any], repeat: int, doc: dict[str, Any], candidates: Candidates | None
) -> Any:
    """The response to one repeat of one request.

    Log-likelihoods are hash numbers; a generation is the hash's choice among the doc's candidates, which mix
    right and wrong answers.
    """
    number = digest(kind, args, repeat)
    if kind == "generate_until":
        assert candidates is not None, "a generative case names its candidate answers"
        texts = candidates(doc)
        return texts[number % len(texts)]
    value = -0.01 - (number >> 11) / 2**53 * (2.5 * len(str(args[-1])))
    return value if kind == "loglikelihood_rolling" else (value, number % 3 == 0)


class ReplayLM(LM):
    """Records every request and answers it with :func:`answer`."""

    tokenizer_name = "replay"

    def __init__(self, candidates: Candidates | None) -> None:
        super().__init__()
        self.candidates = candidates
        self.seen: dict[int, Instance] = {}

    def _answer_all(self, requests: list[Instance]) -> list[Any]:
        repeats: Counter[int] = Counter()
        responses = []
        for request in requests:
            self.seen[id(request)] = request
            responses.append(
                answer(
                    request.request_type,
                    plain_args(request.args),
                    repeats[id(request)],
                    request.doc,
                    self.candidates,
                )
            )
            repeats[id(request)] += 1
        return responses

    loglikelihood = loglikelihood_rolling = generate_until = _answer_all

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> Any:
        """Tag the history as lm-eval's API models do."""
        return JsonChatStr(json.dumps(chat_history, ensure_ascii=False))

    @property
    def instances(self) -> list[Instance]:
        """Every recorded request once, in the order asked."""
        return list(self.seen.values())
