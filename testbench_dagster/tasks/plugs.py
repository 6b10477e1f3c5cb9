"""The plugs of our own frameworks. Light: names where their adapters are, and imports none of them."""

from __future__ import annotations

from testbench_dagster.core.frameworks import FrameworkPlug
from testbench_dagster.tasks.chat_choice.version import CHAT_CHOICE_VERSION
from testbench_dagster.tasks.fresh.generators import FRESH_TASKS
from testbench_dagster.tasks.fresh.generators import check as check_fresh
from testbench_dagster.tasks.fresh.remark import remark as remark_on_fresh
from testbench_dagster.tasks.fresh.version import FRESH_VERSION
from testbench_dagster.tasks.lm_eval_version import LM_EVAL_VERSION
from testbench_dagster.tasks.signatures.version import SIGNATURE_TASKS, SIGNATURES_VERSION
from testbench_dagster.tasks.tools.version import TOOLS_VERSION
from testbench_dagster.tasks.twins.version import TWIN_TASKS, TWINS_VERSION

#: lm-eval's tasks, asked and scored as lm-eval does.
LM_EVAL = FrameworkPlug(
    name="lm_eval",
    version=LM_EVAL_VERSION,
    adapter="testbench_dagster.tasks.lm_eval_framework:LmEval",
    keys=frozenset(
        {
            "num_fewshot",
            "metric",
            "filter",
            "cluster",
            "worst",
            "data",
            "where",
            "only",
            "samples",
            "generation",
        }
    ),
    output_type=None,
    of_lm_eval=True,
)
#: The multiple-choice tasks among them, asked of suppliers that only chat.
CHAT_CHOICE = FrameworkPlug(
    name="chat_choice",
    version=f"{CHAT_CHOICE_VERSION} of {LM_EVAL_VERSION}",
    adapter="testbench_dagster.tasks.chat_choice.adapter:ChatChoice",
    keys=LM_EVAL.keys - {"worst"} | {"mode"},
    output_type="generate_until",
    forms=("chat",),
    of_lm_eval=True,
    process="lm_eval",
)
#: Tool calls and structured answers.
TOOLS = FrameworkPlug(
    name="tools",
    version=TOOLS_VERSION,
    adapter="testbench_dagster.tasks.tools.adapter:Tools",
    keys=frozenset({"metric", "filter", "cluster", "worst", "data", "where", "samples", "generation"}),
    output_type="chat",
    forms=("chat",),
)
#: Public questions and fresh ones of the same kind.
TWINS = FrameworkPlug(
    name="twins",
    version=f"{TWINS_VERSION} of {LM_EVAL_VERSION}",
    adapter="testbench_dagster.tasks.twins.adapter:Twins",
    keys=frozenset({"metric", "filter", "cluster", "worst", "data", "where", "samples", "generation"}),
    task_names=lambda: TWIN_TASKS,
    output_type="generate_until",
    process="lm_eval",
)
#: Questions drawn anew in every epoch by reasoning-gym (an extra).
FRESH = FrameworkPlug(
    name="fresh",
    version=FRESH_VERSION,
    adapter="testbench_dagster.tasks.fresh.adapter:Fresh",
    keys=frozenset({"metric", "filter", "samples", "generation", "options"}),
    task_names=lambda: FRESH_TASKS,
    check=check_fresh,
    remark=remark_on_fresh,
)
#: Pages and probes that are compared, not averaged.
SIGNATURES = FrameworkPlug(
    name="signatures",
    version=SIGNATURES_VERSION,
    adapter="testbench_dagster.tasks.signatures.framework:Signatures",
    keys=frozenset(),
    task_names=lambda: SIGNATURE_TASKS,
)
