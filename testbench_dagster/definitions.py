"""The Dagster front door: one ``Definitions`` object built from the packages under ``defs``.

Import stays light (no lm_eval, datasets or pandas): a test holds it to that.
"""

import atexit
import logging
import sys

from testbench_dagster.config import find_config, installation_home
from testbench_dagster.defs.build import build_definitions
from testbench_dagster.defs.entry_points import remarks, serves, shared_switches
from testbench_dagster.stages.statements import serve_statement

for _remark in remarks(sys.argv, installation_home()):
    logging.getLogger("dagster").warning(_remark)
defs = build_definitions(switched=shared_switches(sys.argv))
if serves(sys.argv):
    atexit.register(serve_statement(find_config().absolute()).close)
