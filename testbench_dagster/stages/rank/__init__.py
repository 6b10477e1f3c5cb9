"""The leaderboard: ranking, the page that shows it, and the feeds that gateways read.

Belongs here: what is published about all suppliers at once. Does not: how scores come about.
"""

from testbench_dagster.ranking.entry import ALL_TASKS, Board, Entry
from testbench_dagster.stages.rank.ranking import leaderboard, make_board, refresh_leaderboard

__all__ = ["ALL_TASKS", "Board", "Entry", "leaderboard", "make_board", "refresh_leaderboard"]
