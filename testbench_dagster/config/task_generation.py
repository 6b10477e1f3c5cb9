"""The block ``generation`` of a task in `testbench.yaml`: how texts are asked for, and how they are read."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, field_validator

from testbench_dagster.core.rules import Strict
from testbench_dagster.core.task import TaskGeneration

_MAX_STOPS = 64


class TaskGenerationConfig(Strict):
    """See :class:`~testbench_dagster.core.task.TaskGeneration`; what is left out is as the YAML says."""

    max_tokens: int | None = Field(default=None, strict=True, ge=1, le=1_000_000)
    temperature: float | None = Field(default=None, ge=0, le=10, allow_inf_nan=False)
    top_p: float | None = Field(default=None, gt=0, le=1, allow_inf_nan=False)
    stop: tuple[Annotated[str, Field(min_length=1, max_length=1000)], ...] | None = None
    system: Annotated[str, Field(min_length=1, max_length=100_000)] | None = None
    think_end_token: str | bool | None = None

    @field_validator("stop", mode="before")
    @classmethod
    def _list_of_stops(cls, value: Any) -> Any:
        if isinstance(value, str):
            value = [value]
        if value is not None and not (isinstance(value, list) and all(isinstance(s, str) for s in value)):
            raise ValueError("stop must be a text or a list of texts, such as ['\\n\\n']; [] for none")
        if value is not None and len(value) > _MAX_STOPS:
            raise ValueError(f"stop has {len(value)} texts; {_MAX_STOPS} are allowed")
        return value

    @field_validator("temperature", "top_p", mode="before")
    @classmethod
    def _no_switch(cls, value: Any) -> Any:
        if isinstance(value, bool):
            raise ValueError(f"{str(value).lower()} is no number; write one such as 0.6")
        return value

    @field_validator("think_end_token", mode="before")
    @classmethod
    def _token_or_off(cls, value: Any) -> Any:
        usable = value is None or value is False or (isinstance(value, str) and 0 < len(value) <= 200)
        if not usable:
            raise ValueError(
                "think_end_token must be the text that ends a model's thoughts, such as '</think>', or false "
                "to keep all tags in the answer; leave it out and the tags that are known are looked for"
            )
        return value

    def generation(self) -> TaskGeneration:
        """The same as the value that tasks have."""
        return TaskGeneration(**self.model_dump())
