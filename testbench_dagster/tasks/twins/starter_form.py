"""The request that a starter task sends for a question, without examples; a test compares both."""

from __future__ import annotations

from typing import Any

from testbench_dagster.core.task import TaskSpec

#: What the starter tasks say before a question, as their YAMLs have it.
DESCRIPTIONS = {
    "starter_arithmetic": "Answer each question with a whole number.\n\n",
    "starter_calendar": "Answer each question with a weekday, a month, a date (YYYY-MM-DD), a time "
    "(HH:MM) or a number.\n\n",
    "starter_choice": "Answer each question with one of its options.\n\n",
    "starter_logic": "Decide from what is stated alone. Answer yes, no or unknown.\n\n",
    "starter_strings": "Answer each question with one word or one number.\n\n",
    "starter_units": "Answer each question with a number.\n\n",
}
_GENERATION = {
    "until": ["Question:", "</s>", "<|im_end|>"],
    "do_sample": False,
    "temperature": 0.0,
    "max_gen_toks": 256,
}


def starter_request(spec: TaskSpec, task: str, question: str, api: str) -> dict[str, Any]:
    """The request of a question of a starter task in one of the two forms."""
    system = f"{spec.generation.system}\n\n" if spec.generation.system else ""
    before, text = system + DESCRIPTIONS[task], f"Question: {question}\nAnswer:"
    request: dict[str, Any] = {"type": "generate_until", "idx": 0}
    if api == "chat":
        request["messages"] = [{"role": "system", "content": before}, {"role": "user", "content": text}]
    else:
        request["prompt"] = before + text
    request["generation"] = spec.generation.over(_GENERATION)
    if spec.generation.think_end_token is not None:
        request["think_end_token"] = spec.generation.think_end_token
    return request
