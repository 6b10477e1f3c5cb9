"""Where twins come from: public questions, and for each of them fresh ones with other values.

Two sources. The packaged items are the starter catalog's questions, whose makers are in the package too, so a
twin is another question of the same maker. Of GSM8K the package has no text at all: a template says which
numbers of a public question may vary and how its answer follows from them, and the text comes from whoever
has the data set.

A twin is drawn by SHA-256 of the seed and the question alone: the same in every process and on every Python.

Belongs here: items, templates, drawing. Does not: tasks, prompts, scores, statistics, files of data sets.
"""

from testbench_dagster.tasks.twins.sources.gsm8k import gsm8k_item, gsm8k_template_ids, gsm8k_twin
from testbench_dagster.tasks.twins.sources.item import SOURCES_VERSION, Item, question_id
from testbench_dagster.tasks.twins.sources.packaged import packaged_items, packaged_twin

__all__ = [
    "SOURCES_VERSION",
    "Item",
    "gsm8k_item",
    "gsm8k_template_ids",
    "gsm8k_twin",
    "packaged_items",
    "packaged_twin",
    "question_id",
]
