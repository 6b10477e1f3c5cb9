"""Which values a metric may give a doc, by its definition: what suppliers answer has no say in it.

A framework may say it with the metric (``MetricFlags.bounds``, ``binary``). lm-eval does not: of the metrics
in its registry and of its tasks that are means of docs' values, what their code gives is listed here by name.
Of any other metric nothing is known, and its values are taken to lie from 0 to 1 as long as all do: there a
supplier that keeps back the others could hide that they count for less. The setting ``worst`` of a task says
it, and ``testbench check`` names the tasks that need it.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from testbench_dagster.core.registration import Registration
from testbench_dagster.core.task_flags import TaskFlags


class Bounds(NamedTuple):
    """The least and the greatest value of a doc; infinite where there is no bound."""

    least: float
    most: float


#: Shares, and right or wrong.
UNIT = Bounds(0.0, 1.0)
_NONE = Bounds(-math.inf, math.inf)
_LM_EVAL = "lm_eval"

_SHARES = frozenset(
    {
        # of lm-eval's registry
        "acc", "acc_all", "acc_bytes", "acc_mutual_info", "acc_norm", "exact_match",
        # of its tasks
        "accuracy", "bleu_acc", "classification_score", "code_sim_score", "contains", "count_score", "em",
        "exact_match_original", "extraction_rate", "f1", "flexible_f1", "fscore", "math_verify", "mrr",
        "numerical_match", "partial_accuracy", "pass@1", "pct_stereotype", "percent_parseable", "precision",
        "prompt_level_loose_acc", "prompt_level_strict_acc", "qa_f1_score", "qa_f1_zh_score", "r@1", "r@2",
        "recall", "retrieval_score", "retrieval_zh_score", "rouge1_acc", "rouge2_acc", "rougeL_acc",
        "rouge_score", "rouge_zh_score",
    }
)  # fmt: skip
_OTHERS = {
    "difference_male_female": Bounds(-1.0, 1.0),
    **dict.fromkeys(
        # differences of two scores, of log-likelihoods; error rates; scales of their own
        (
            "bertscore_f1", "bertscore_precision", "bertscore_recall", "bleu_diff", "bleurt", "eqbench",
            "likelihood_diff", "rouge1_diff", "rouge2_diff", "rougeL_diff", "wer",
        ),
        _NONE,
    ),
}  # fmt: skip


def declared_bounds(registration: Registration, metric: str) -> Bounds | None:
    """Which values a metric of a task may give a doc; None where nothing but the answers would say it."""
    return bounds_by_definition(registration.framework, registration.flags, metric)


def bounds_by_definition(framework: str, task: TaskFlags, metric: str) -> Bounds | None:
    """The same, of what a framework says of a task."""
    flags = task.metrics.get(metric)
    if flags is not None and flags.binary:
        return UNIT
    if flags is not None and flags.bounds is not None:
        least, most = flags.bounds
        return Bounds(least, most)
    if framework != _LM_EVAL:
        return None
    return UNIT if metric in _SHARES else _OTHERS.get(metric)
