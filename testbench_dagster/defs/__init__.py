"""The Dagster shell: one package per asset group, thin over the stages.

Each package (``catalog``, ``network``, ``evaluation``, ``service``, ``summaries``) holds its group's assets,
checks and jobs, ``operations`` what keeps the installation itself in order. What they share lies beside them:
partitions, lineage, resources, metadata, instance settings.

Belongs here: assets, checks, jobs, sensors and schedules: when which stage runs, over which partitions, and
what Dagster shows of it. Does not: what a stage does; it is called, never written here.

To add a sensor or a schedule: write its factory beside its group's assets, call that in the package's
``definitions()``, give it a field of ``AutomationSettings``, and rows in docs/operations.md and
docs/reference.md. Tests tell what is missing.
"""

import warnings

import dagster as dg

# backfill policies are marked beta in 1.13 and would warn once per asset in every process
warnings.filterwarnings("ignore", category=dg.BetaWarning)
warnings.filterwarnings("ignore", category=dg.PreviewWarning)
