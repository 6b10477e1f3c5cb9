"""Workloads of service probes: how long the prompt is, and what is asked of the answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

#: Tokens of a context that is worth a probe, and the most that anybody is believed to have.
MIN_CONTEXT, MAX_CONTEXT = 256, 100_000_000
#: How prompts of service probes ask for an answer as long as it may be, and for words that they hide, which
#: follow :data:`HIDDEN_WORDS`: simulated suppliers look for them.
LONG_ANSWER = "Do not stop before you are cut off."
HIDDEN_QUESTION = "What does the sign at the north gate say? Answer with the words on the sign alone."
HIDDEN_WORDS = "The sign at the north gate says"


@dataclass(frozen=True, slots=True)
class Workload:
    """One kind of service probe.

    ``prompt_tokens`` is about how long its prompt is; None for as long as the supplier claims to take
    (its context length). ``hides`` is whether a word is hidden in the prompt that the answer must hold.
    """

    name: str
    prompt_tokens: int | None
    hides: bool = False


#: All of them, by name. Lengths as Artificial Analysis measures with (100, 1,000 and 10,000 tokens).
WORKLOADS: Mapping[str, Workload] = MappingProxyType(
    {
        one.name: one
        for one in (
            Workload("short", 100),
            Workload("1k", 1_000),
            Workload("10k", 10_000),
            Workload("context", None, hides=True),
        )
    }
)


@dataclass(frozen=True, slots=True)
class DueProbe:
    """That a supplier, by its key, is to be probed with a workload, by its name."""

    supplier: str
    workload: str
