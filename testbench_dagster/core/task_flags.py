"""What a framework says of a registered task besides its docs: how to ask it and how to score it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from testbench_dagster.core.records.declaring import Part, content, nested
from testbench_dagster.core.relay import Api

#: The aggregation that is the plain mean of the docs' values, which needs no function of the framework.
MEAN = "mean"
_BOTH: tuple[Api, ...] = ("chat", "completions")
_FORMS: Mapping[str, tuple[Api, ...]] = {
    "generate_until": _BOTH,
    "get": _BOTH,
    "chat": ("chat",),
}


@nested
class MetricFlags(Part):
    """How the values of a metric are put together."""

    aggregation: str = content("name of the aggregation: mean, another of the framework's, custom or none")
    higher_is_better: bool = content("whether a higher score is a better one")
    binary: bool | None = content(
        "whether a doc's value is 0 or 1, as the framework says", default=None, sparse=True
    )
    bounds: list[float] | None = content(
        "the least and the greatest value of a doc, as the framework says", default=None, sparse=True
    )
    of_some_docs: bool | None = content(
        "whether it is of some answers alone: docs without a value, or an answer, count for nothing",
        default=None,
        sparse=True,
    )


@nested
class TaskFlags(Part):
    """Flags of a task, kept with its registration; the last three are set when it is registered."""

    output_type: str = content(
        "kind of its requests: generate_until, chat, loglikelihood, multiple_choice, get, …"
    )
    features: list[str] = content("columns of its docs")
    multiple_input: bool | int = content("lm-eval's number of inputs per doc, 0 or false for one")
    multiple_target: bool | int = content("lm-eval's number of targets per doc, 0 or false for one")
    repeats: int = content("how often each request is made")
    num_fewshot: int = content("few-shot examples in a prompt")
    version: str = content("version of the task's definition")
    metrics: Mapping[str, MetricFlags] = content("its metrics; the dataset store sorts them by name")
    filters: list[str] = content("names of its filters, in order")
    questions_of_epoch: bool | None = content(
        "whether its questions are drawn anew in every epoch", default=None, sparse=True
    )
    forms: list[str] | None = content(
        "request forms it has: chat, completions; by its kind of requests where the framework does not say",
        default=None,
        sparse=True,
    )
    pairs: bool | None = content(
        "whether its docs are pairs of a public and a fresh question (`core/pairs.py`)",
        default=None,
        sparse=True,
    )
    doc_notes: Mapping[str, int] | None = content(
        "how many of its docs were left out, or are asked otherwise than the rest, by the reason",
        default=None,
        sparse=True,
    )
    metric_order: list[str] | None = content(
        "names of its metrics in the framework's own order", default=None, sparse=True
    )
    source: str | None = content(
        "changes with its definition, settings and data files", default=None, sparse=True
    )
    definition: str | None = content("changes with the code that scores it", default=None, sparse=True)

    @property
    def request_forms(self) -> tuple[Api, ...]:
        """The request forms it has, the usual one first."""
        return request_forms(self.output_type, self.forms)

    def question(self, epoch: int, doc_id: int) -> tuple[int, int]:
        """What tells a question from others of its task: two suppliers are compared where it is the same."""
        return (epoch if self.questions_of_epoch else 0, doc_id)


def request_forms(output_type: str, forms: Sequence[str] | None = None) -> tuple[Api, ...]:
    """The request forms of a task: those its framework names, else those of its kind of requests.

    Log-probabilities of a given text come with completions alone.
    """
    if forms:
        return tuple(form for form in _BOTH if form in forms)
    return _FORMS.get(output_type, ("completions",))
