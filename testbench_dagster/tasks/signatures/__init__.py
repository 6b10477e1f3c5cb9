"""The framework ``signatures``: what a supplier says of itself, or how it begins, as texts to compare.

Three tasks, after those of pocket-ml-testbench. ``tokenizer`` and ``config`` ask for the JSON page of that
name that suppliers of the Pocket network serve beside their API; ``identity`` asks short probes whose answers
tell backends apart. A score is a *signature*, 64 hexadecimal digits; it is compared, never averaged.

Belongs here: questions whose answers are compared as texts, and how a text is signed. Does not: comparing
signatures of suppliers.
"""

from testbench_dagster.tasks.signatures.framework import FILTER, METRIC, PAGES, Signatures
from testbench_dagster.tasks.signatures.pages import page_signature

__all__ = ["FILTER", "METRIC", "PAGES", "Signatures", "page_signature"]
