"""What a framework says of a registered task besides its docs: how to ask it and how to score it."""

from __future__ import annotations

from collections.abc import Mapping

from testbench_dagster.core.records.declaring import Part, content, nested


@nested
class MetricFlags(Part):
    """How the values of a metric are put together."""

    aggregation: str = content("name of the aggregation: mean, another of the framework's, custom or none")
    higher_is_better: bool = content("whether a higher score is a better one")


@nested
class TaskFlags(Part):
    """Flags of a task, kept with its registration; the last three are set when it is registered."""

    output_type: str = content("kind of its requests: generate_until, loglikelihood, multiple_choice, get, …")
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
    metric_order: list[str] | None = content(
        "names of its metrics in the framework's own order", default=None, sparse=True
    )
    source: str | None = content(
        "changes with its definition, settings and data files", default=None, sparse=True
    )
    definition: str | None = content("changes with the code that scores it", default=None, sparse=True)
