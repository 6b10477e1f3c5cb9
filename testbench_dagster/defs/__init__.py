"""The Dagster shell: one room per asset group, thin over the domain packages.

Each room (``catalog``, ``network``, ``evaluation``, ``summaries``) holds its group's assets, checks and jobs.
What the rooms share lies beside them: partitions, resources, metadata, instance settings.
"""

import warnings

import dagster as dg

# backfill policies are marked beta in 1.13 and would warn once per asset in every process
warnings.filterwarnings("ignore", category=dg.BetaWarning)
warnings.filterwarnings("ignore", category=dg.PreviewWarning)
