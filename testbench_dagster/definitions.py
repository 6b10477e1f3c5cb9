"""The Dagster front door: one ``Definitions`` object built from the packages under ``defs``.

Import stays light (no lm_eval, datasets or pandas): a test holds it to that.
"""

import logging
import sys

from testbench_dagster.config import installation_home
from testbench_dagster.defs.build import build_definitions
from testbench_dagster.defs.entry_points import remarks, shared_switches

for _remark in remarks(sys.argv, installation_home()):
    logging.getLogger("dagster").warning(_remark)
defs = build_definitions(switched=shared_switches(sys.argv))
