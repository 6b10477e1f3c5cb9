"""The versions of the twins framework, and what it is asked; light, for hashes of tasks need nothing else."""

from testbench_dagster.core.versions import TWINS

#: Over the questions that come with the package, and over those of GSM8K's test split.
STARTER, GSM8K = "twins_starter", "twins_gsm8k"
TWIN_TASKS = (STARTER, GSM8K)
#: Raise when other requests are built from the same questions: all tasks are asked anew.
TWINS_REQUESTS = 1
#: With another one stored answers are scored anew; a test says when to raise the number.
TWINS_VERSION = str(TWINS.number)
