"""The collections the stages exchange, with the fields that queries may name.

Facts (never changed once written): ``prompts``, ``attempts``, ``scores``, ``empty_scores``, ``epochs``,
``changes``, ``splits``, ``signatures``, ``supplier_snapshots``, ``lane_ends``, ``void_docs``,
``service_probes``, ``body_places``.
Views (rebuilt from facts): ``windows``, ``health``, ``taxonomy_summaries``, ``leaderboards``,
``ranking_parts``, ``plans``, ``identity_groups``, ``score_streams``, ``set_aside``, ``scorer_outages``,
``service_quality``.
Roster: ``suppliers``, ``installations``, ``source_losses``, ``heights``, ``sessions``. Coordination of
processes: ``heartbeats``, ``statements``, ``leases``, ``budgets``, ``paces``, ``probe_seeds``.
"""

from __future__ import annotations

from testbench_dagster.core.records.attempts import AttemptRecord
from testbench_dagster.core.records.bodies import BodyPlaceRecord
from testbench_dagster.core.records.chains import HeightRecord, SessionRecord
from testbench_dagster.core.records.coordination import (
    BudgetRecord,
    HeartbeatRecord,
    LeaseRecord,
    PaceRecord,
    StatementRecord,
)
from testbench_dagster.core.records.health import HealthRecord
from testbench_dagster.core.records.identity import ChangeRecord, IdentityGroupRecord, ScoreStreamRecord
from testbench_dagster.core.records.lanes import LaneEndRecord
from testbench_dagster.core.records.plans import PlanRecord
from testbench_dagster.core.records.probe_seeds import ProbeSeedRecord
from testbench_dagster.core.records.prompts import EpochRecord, PromptRecord
from testbench_dagster.core.records.public_gaps import PublicGapRecord
from testbench_dagster.core.records.rankings import (
    GroupScoresRecord,
    LeaderboardRecord,
    RankingPartRecord,
    SupplierSnapshotRecord,
    TaxonomySummaryRecord,
)
from testbench_dagster.core.records.references import ReferenceRecord
from testbench_dagster.core.records.scores import EmptyScoreRecord, ScoreRecord
from testbench_dagster.core.records.service_probes import ServiceProbeRecord
from testbench_dagster.core.records.service_quality import ServiceQualityRecord
from testbench_dagster.core.records.set_aside import ScorerOutageRecord, SetAsideRecord, VoidDocRecord
from testbench_dagster.core.records.signatures import SignatureRecord
from testbench_dagster.core.records.sources import InstallationRecord, SourceLossRecord
from testbench_dagster.core.records.splits import SplitRecord
from testbench_dagster.core.records.suppliers import SupplierRecord
from testbench_dagster.core.records.suspicions import SuspicionRecord
from testbench_dagster.core.records.windows import WindowAnswersRecord, WindowRecord

SUPPLIERS = SupplierRecord.collection
HEIGHTS = HeightRecord.collection
INSTALLATIONS = InstallationRecord.collection
SOURCE_LOSSES = SourceLossRecord.collection
SESSIONS = SessionRecord.collection
EPOCHS = EpochRecord.collection
PROMPTS = PromptRecord.collection
VOID_DOCS = VoidDocRecord.collection
SET_ASIDE = SetAsideRecord.collection
ATTEMPTS = AttemptRecord.collection
BODY_PLACES = BodyPlaceRecord.collection
SCORES = ScoreRecord.collection
EMPTY_SCORES = EmptyScoreRecord.collection
SCORER_OUTAGES = ScorerOutageRecord.collection
LANE_ENDS = LaneEndRecord.collection
SERVICE_PROBES = ServiceProbeRecord.collection

WINDOWS = WindowRecord.collection
WINDOW_ANSWERS = WindowAnswersRecord.collection

HEALTH = HealthRecord.collection

TAXONOMY_SUMMARIES = TaxonomySummaryRecord.collection

LEADERBOARDS = LeaderboardRecord.collection
GROUP_SCORES = GroupScoresRecord.collection
RANKING_PARTS = RankingPartRecord.collection

SUPPLIER_SNAPSHOTS = SupplierSnapshotRecord.collection

SERVICE_QUALITY = ServiceQualityRecord.collection

PLANS = PlanRecord.collection

IDENTITY_GROUPS = IdentityGroupRecord.collection
REFERENCES = ReferenceRecord.collection
PUBLIC_GAPS = PublicGapRecord.collection

SIGNATURES = SignatureRecord.collection

CHANGES = ChangeRecord.collection
SCORE_STREAMS = ScoreStreamRecord.collection

SPLITS = SplitRecord.collection

SUSPICIONS = SuspicionRecord.collection

HEARTBEATS = HeartbeatRecord.collection
STATEMENTS = StatementRecord.collection
LEASES = LeaseRecord.collection
BUDGETS = BudgetRecord.collection
PACES = PaceRecord.collection
PROBE_SEEDS = ProbeSeedRecord.collection

ALL = (
    SUPPLIERS,
    INSTALLATIONS,
    SOURCE_LOSSES,
    HEIGHTS,
    SESSIONS,
    EPOCHS,
    PROMPTS,
    VOID_DOCS,
    SET_ASIDE,
    ATTEMPTS,
    BODY_PLACES,
    SCORES,
    EMPTY_SCORES,
    SCORER_OUTAGES,
    LANE_ENDS,
    SERVICE_PROBES,
    WINDOWS,
    WINDOW_ANSWERS,
    HEALTH,
    TAXONOMY_SUMMARIES,
    LEADERBOARDS,
    GROUP_SCORES,
    RANKING_PARTS,
    SUPPLIER_SNAPSHOTS,
    SERVICE_QUALITY,
    PLANS,
    IDENTITY_GROUPS,
    REFERENCES,
    PUBLIC_GAPS,
    SIGNATURES,
    CHANGES,
    SCORE_STREAMS,
    SPLITS,
    SUSPICIONS,
    HEARTBEATS,
    STATEMENTS,
    LEASES,
    BUDGETS,
    PACES,
    PROBE_SEEDS,
)
