"""Names of tasks that pocket-ml-testbench adds to lm-eval, and what to measure in their place.

Their definitions are in its fork of lm-eval and in the repository `a-vert` of its authors (pnyxai on GitHub),
whose task folders it copies over lm-eval's. The names are those of its task configuration and of the
taxonomies of `lm-taxonomies`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

_SEMANTIC = "its answers are judged by the service of a-vert: see docs/scorers.md"
_CODE = "it runs code that the model wrote, in ways of its own: see docs/code.md"
_TOOLS = "it needs conversations with tools, which this version does not have"


@dataclass(frozen=True)
class ForkTask:
    """A pattern of such names, what the tasks need, and the nearest tasks of lm-eval itself."""

    pattern: str
    needs: str = ""
    nearest: str = ""


FORK_TASKS: Sequence[ForkTask] = (
    ForkTask("babisteps*", _SEMANTIC),
    ForkTask("babi-task_*", _SEMANTIC),
    ForkTask("babi-all*", _SEMANTIC),
    ForkTask("bbh-split_*", _SEMANTIC, "bbh_zeroshot_*, bbh_cot_zeroshot_*"),
    ForkTask("exploretom*", _SEMANTIC),
    ForkTask("gpqa_subtask*", _SEMANTIC, "gpqa_main_generative_n_shot"),
    ForkTask("gsm8k_chat*", _SEMANTIC, "gsm8k, gsm8k_cot_zeroshot"),
    ForkTask("gsm8k-chat*", _SEMANTIC, "gsm8k, gsm8k_cot_zeroshot"),
    ForkTask("mmlu_*chat_generative*", _SEMANTIC, "mmlu_*_generative"),
    ForkTask("mmlu_pro-category_*", _SEMANTIC, "mmlu_pro_*"),
    ForkTask("*mmlu_pro_test*", "", "mmlu_pro_*, leaderboard_mmlu_pro"),
    ForkTask("reasoning_gym*", "it needs the Python package reasoning-gym"),
    ForkTask("ifbench*", "", "ifeval"),
    ForkTask("t-eval*", _TOOLS),
    ForkTask("apps_*", _CODE),
    ForkTask("debugbench*", _CODE),
    ForkTask("ds1000*", _CODE),
    ForkTask("humaneval_chat*", _CODE),
    ForkTask("humaneval_sandbox*", _CODE),
    ForkTask("mbpp_sandbox*", _CODE),
    ForkTask("mbpp_chat*", _CODE),
    ForkTask("multipl-e*", _CODE),
)


def fork_task_text(name: str) -> str | None:
    """What to say of a name that lm-eval does not know, where it is one of these; None for any other."""
    for task in FORK_TASKS:
        if fnmatchcase(name.lower(), task.pattern):
            break
    else:
        return None
    ways = [f"measure {task.nearest} of lm-eval"] if task.nearest else []
    ways.append("add the folder with its YAML to task_paths")
    ways.append("remove it")
    needs = f"; {task.needs}" if task.needs else ""
    return f"is a task of pocket-ml-testbench's lm-eval fork, not in lm-eval{needs}; {', or '.join(ways)}"
