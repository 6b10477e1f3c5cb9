"""The Dagster front door: one ``Definitions`` object built from the packages under ``defs``.

Import stays light (no lm_eval, datasets or pandas): a test holds it to that.
"""

from testbench_dagster.defs.build import build_definitions

defs = build_definitions()
