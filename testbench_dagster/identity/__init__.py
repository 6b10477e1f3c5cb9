"""Identity: which suppliers answer alike, who of them can stand for the others, and who changed.

Relative and from answers only: suppliers of a group answer like each other. What runs behind them nobody can
see, and nothing here says so. Evidence are the answers that suppliers give to common prompts at temperature
0, and how their scores move; no reference model is needed. Pure functions, numpy and scipy imported on use.

Belongs here: how alike answers are, groups, proxies and change detection, as functions of values. Does not:
reading answers, and recording or acting on what is found.
"""

from testbench_dagster.identity.answers import AnswerTable
from testbench_dagster.identity.cached import Cached, find_cached
from testbench_dagster.identity.changes import Change, find_changes
from testbench_dagster.identity.content import Content, GradedAnswer
from testbench_dagster.identity.copies import Call, Copy, CopySettings, find_copies, stretch
from testbench_dagster.identity.evidence import Evidence
from testbench_dagster.identity.folded_scores import FoldedScores
from testbench_dagster.identity.groups import Assignment, Group, Grouping, Profile, find_groups
from testbench_dagster.identity.kernel import Answer
from testbench_dagster.identity.mixtures import Suspect
from testbench_dagster.identity.pairs import PairFinding
from testbench_dagster.identity.power import needed_prompts
from testbench_dagster.identity.proxies import Election, elect, stays
from testbench_dagster.identity.routers import Router, RouterSettings, find_routers
from testbench_dagster.identity.score_changes import OF_SCORES, score_change
from testbench_dagster.identity.score_differences import ScoreStream
from testbench_dagster.identity.score_folding import fold_scores
from testbench_dagster.identity.settings import IdentityError, IdentitySettings
from testbench_dagster.identity.splits import Divergence, find_divergence

__all__ = [
    "OF_SCORES",
    "Answer",
    "AnswerTable",
    "Assignment",
    "Cached",
    "Call",
    "Change",
    "Content",
    "Copy",
    "CopySettings",
    "Divergence",
    "Election",
    "Evidence",
    "FoldedScores",
    "GradedAnswer",
    "Group",
    "Grouping",
    "IdentityError",
    "IdentitySettings",
    "PairFinding",
    "Profile",
    "Router",
    "RouterSettings",
    "ScoreStream",
    "Suspect",
    "elect",
    "find_cached",
    "find_changes",
    "find_copies",
    "find_divergence",
    "find_groups",
    "find_routers",
    "fold_scores",
    "needed_prompts",
    "score_change",
    "stays",
    "stretch",
]
