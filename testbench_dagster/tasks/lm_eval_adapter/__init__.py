"""lm-eval behind eight functions: register, identify, build prompts, four ways to score, aggregate.

The only package that imports lm_eval, pinned to 0.4.13 because it uses private parts (:mod:`.internals`).
Requests and scores are those of ``lm_eval.simple_evaluate`` for the same docs and answers; the parity suite
compares them.

Facts the code relies on (`reference/lm_eval.md` sections 1, 2, 6):

* few-shot examples come from one random stream over the docs in dataset order, so the stream is replayed
  over skipped docs and a doc's prompt never depends on which other docs were drawn;
* processed docs are stored once, because ``process_docs`` may be random;
* doc 0 of the eval split decides some flags of a task, so the flags are stored with it;
* compiling templates dominates request building, so compiled ones are kept.

Belongs here: everything that touches lm_eval, on the worker's side. Does not: stores, suppliers, and anything
that runs outside of the worker.
"""

from testbench_dagster.tasks.lm_eval_adapter.empty import score_empty
from testbench_dagster.tasks.lm_eval_adapter.probes import score_probes
from testbench_dagster.tasks.lm_eval_adapter.registration import identify, register
from testbench_dagster.tasks.lm_eval_adapter.requests import build_prompts
from testbench_dagster.tasks.lm_eval_adapter.scoring import aggregate, score, score_each, seed_checkers

__all__ = [
    "aggregate",
    "build_prompts",
    "identify",
    "register",
    "score",
    "score_each",
    "score_empty",
    "score_probes",
    "seed_checkers",
]
