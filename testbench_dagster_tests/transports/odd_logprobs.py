"""Log-probabilities as servers echo them, oddly: what they are read as, here and by lm-eval.

The second table of the section Log-probabilities of `docs/reference.md` follows from them: ``python -m
testbench_dagster_tests.transports.odd_logprobs`` sends them to lm-eval's own client and prints it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from testbench_dagster.core.faults import Fault
from testbench_dagster.core.relay import Attempt, Endpoint
from testbench_dagster.transports.direct.transport import DirectTransport
from testbench_dagster_tests.echoing import DOCS, MODES, Asked, echoing
from testbench_dagster_tests.endpoints import FAST, relay

#: The context that all are asked about, and a continuation that is right and one that is wrong.
DOC = DOCS[4]
CONTEXT = str(DOC["query"])
CONTINUATIONS = (" café", " cafe")

#: What the modes of :mod:`~testbench_dagster_tests.echoing` show, in words; each mode stands in one row.
ROWS: Mapping[str, tuple[str, ...]] = {
    "characters whole, with the token that completes them": ("plain",),
    "pieces of characters as U+FFFD, as nothing, as `bytes:\\x…`": ("replaced", "hidden", "escaped"),
    "tokens as sentencepiece's vocabulary, or without their space": ("sentencepiece", "spaceless"),
    "no `text_offset`, or one in bytes, in UTF-16, of what is shown, of the answer": (
        "no_offsets",
        "offsets_in_bytes",
        "offsets_in_utf16",
        "offsets_as_shown",
        "offsets_from_the_answer",
    ),
    "the list of objects that chats have": ("content", "content_with_bytes"),
    "one or two special tokens before the prompt, of whatever text": (
        "special",
        "special_two",
        "special_blank",
    ),
    "no generated token: the next one ends the text": ("ends",),
    "several generated tokens": ("ends_in_a_character", "generates_three"),
    "`text` null": ("text_null",),
    "an impossible token as `null`, as the text `NaN`": ("impossible_null", "impossible_text"),
    "an impossible token as -9999": ("impossible_number",),
    "`top_logprobs` null or absent": ("tops_null", "tops_absent"),
    "a token across the boundary": ("merged",),
    "`echo` ignored; `logprobs` null": ("no_echo", "no_logprobs"),
    "all values null": ("all_null",),
    "tokens as ids": ("token_ids",),
}


class LmEval:
    """lm-eval's own client of completions, with a tokenizer that cuts a context as the server does."""

    def __init__(self) -> None:
        from lm_eval.models.openai_completions import LocalCompletionsAPI

        self._client = LocalCompletionsAPI(
            base_url="http://127.0.0.1", model="m", timeout=5, tokenizer_backend="None"
        )

    def read(self, base_url: str, prompt: str, context_tokens: int) -> Any:
        """Sum and greediness by its ``model_call`` and ``parse_logprobs``, or what they raise."""
        self._client.base_url = f"{base_url}/completions"
        try:
            answer = self._client.model_call([prompt], generate=False)
            return self._client.parse_logprobs(answer, ctxlens=[context_tokens])[0]
        except Exception as error:
            return error


def read_here(base_url: str, context: str, continuations: tuple[str, ...]) -> list[Attempt]:
    """What we make of each continuation."""

    async def main() -> list[Attempt]:
        transport = DirectTransport()
        endpoint = Endpoint("a@test", "test", base_url, "completions", "m", FAST)
        try:
            return [
                await transport.send(endpoint, replace(relay(), request=_request(context, continuation)))
                for continuation in continuations
            ]
        finally:
            await transport.close()

    return asyncio.run(main())


def _request(context: str, continuation: str) -> dict[str, Any]:
    return {"type": "loglikelihood", "idx": 0, "context": context, "continuation": continuation}


def context_tokens(mode: str) -> int:
    """Tokens that the server of a mode cuts the context into, without special ones."""
    asked = Asked(CONTEXT, False, None)
    MODES[mode](asked)
    return len(asked.pieces)


def ours(attempts: list[Attempt]) -> str:
    """What we make of the continuations, in words."""
    faults = {attempt.fault for attempt in attempts} - {Fault.OK}
    if faults:
        return ", ".join(sorted(f"`{fault.value}`" for fault in faults))
    unknown = "" if all(attempt.greedy is not None for attempt in attempts) else ", the likeliest unknown"
    return " / ".join(f"{attempt.logprob:.4g}" for attempt in attempts) + unknown


def theirs(found: list[Any], attempts: list[Attempt]) -> str:
    """What lm-eval makes of them, in words."""
    if found == [(attempt.logprob, attempt.greedy) for attempt in attempts]:
        return "the same"
    return " / ".join(
        dict.fromkeys(
            f"`{type(one).__name__}`" if isinstance(one, Exception) else f"{one[0]:.4g}" for one in found
        )
    )


def table() -> str:
    """The table of the documentation."""
    lines = ["| echoed with or as | is read as | lm-eval 0.4.13 |", "|---|---|---|"]
    lm_eval = LmEval()
    with echoing() as (root, _):
        for row, modes in ROWS.items():
            here: dict[str, None] = {}
            there: dict[str, None] = {}
            for mode in modes:
                url, tokens = f"{root}/{mode}/v1", context_tokens(mode)
                attempts = read_here(url, CONTEXT, CONTINUATIONS)
                found = [lm_eval.read(url, CONTEXT + each, tokens) for each in CONTINUATIONS]
                here[ours(attempts)] = there[theirs(found, attempts)] = None
            lines.append(f"| {row} | {'; '.join(here)} | {'; '.join(there)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(table(), end="")
