"""The leaderboard (Summarizer): all suppliers ranked, and the values behind it.

Belongs here: one board of all suppliers as of one instant, and the item matrix. Does not: how scores come
about, and the files that show a board.
"""

from testbench_dagster.ranking.entry import ALL_TASKS, Board, Entry
from testbench_dagster.stages.rank.ranking import leaderboard, make_board, store_board, stored_entries
from testbench_dagster.stages.rank.task_ranking import task_board

__all__ = [
    "ALL_TASKS",
    "Board",
    "Entry",
    "leaderboard",
    "make_board",
    "store_board",
    "stored_entries",
    "task_board",
]
