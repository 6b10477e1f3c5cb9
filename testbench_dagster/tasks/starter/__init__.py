"""Starter catalog: small lm-eval tasks of our own, with data, usable without any download.

Belongs here: the task YAMLs, their data, the loader and checks those YAMLs name, and the generator that
made the data. `README.md` describes every task. Does not: anything that imports lm_eval or datasets at import
time.
"""

from __future__ import annotations

from pathlib import Path

#: Folder to hand to lm-eval as ``include_path``.
FOLDER = Path(__file__).parent

#: The task that is answered by choosing between given continuations (log-likelihoods).
CHOICE_TASK = "starter_choice"

#: Every task of the catalog, in the order of the README.
TASKS = (
    "starter_arithmetic",
    "starter_logic",
    "starter_strings",
    "starter_calendar",
    "starter_units",
    "starter_reading",
    "starter_instructions",
    CHOICE_TASK,
)
