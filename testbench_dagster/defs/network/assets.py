"""Asset ``suppliers``: the roster, and one dynamic partition per supplier in it."""

import dagster as dg

from testbench_dagster.defs.metadata import markdown_table
from testbench_dagster.defs.partitions import SUPPLIER
from testbench_dagster.stores.documents.collections import SUPPLIERS
from testbench_dagster.suppliers import refresh_roster
from testbench_dagster.workspace import Workspace

GROUP = "network"


@dg.asset(group_name=GROUP, kinds={"python"})
def suppliers(
    context: dg.AssetExecutionContext, workspace: dg.ResourceParam[Workspace]
) -> dg.MaterializeResult:
    """The roster of suppliers, with joins, leaves and changes recorded; adds their partitions."""
    report = refresh_roster(workspace)
    # one bulk call: has_dynamic_partition costs 14-23 ms per key on PostgreSQL
    known = set(context.instance.get_dynamic_partitions(SUPPLIER))
    context.instance.add_dynamic_partitions(SUPPLIER, [key for key in report.active if key not in known])
    documents = workspace.documents.find(SUPPLIERS, sort=[("service", 1), ("address", 1)])
    table = markdown_table(
        ["supplier", "status", "api", "model", "base URL", "joined"],
        [
            [d["_id"], d["status"], d["api"], d["model"], d["base_url"], f"{d['joined_at']:%Y-%m-%d %H:%M}"]
            for d in documents
        ],
    )
    return dg.MaterializeResult(
        metadata={
            "roster": table,
            "active": len(report.active),
            "joined": len(report.joined),
            "left": len(report.left),
            "changed": len(report.changed),
        }
    )
