"""Members' means beside a proxy that leaves docs unanswered: unbiased, whichever docs these are."""

from __future__ import annotations

import numpy as np
import pytest

from testbench_dagster.scoring.delivered import DeliveredDoc
from testbench_dagster.stages.score.represented import represented_suppliers
from testbench_dagster.stages.score.windows import MeasuredSupplier
from testbench_dagster.statistics.control_variate import by_proxy
from testbench_dagster.statistics.task_score import TaskScore, combined_tasks
from testbench_dagster_tests.statistics.test_task_score import window

T, N, M = 14, 50, 15


def node(right: np.ndarray, lost: np.ndarray, drawn: np.ndarray, *, open_: bool) -> TaskScore:
    """The node of a twin that is asked the docs drawn, all of one proxy's that leaves those lost unanswered.

    Arrays are tasks x docs. Lost docs are ``open_``, or failed.
    """
    twin, proxy, own, scores, rows = {}, {}, {}, {}, []
    for t in range(T):
        name = f"t{t}"
        twin[name] = [DeliveredDoc(int(d), float(right[t, d]), False) for d in drawn[t]]
        proxy[name] = [
            DeliveredDoc(d, 0.0 if lost[t, d] else float(right[t, d]), bool(open_ and lost[t, d]))
            for d in range(N)
        ]
        own[name] = TaskScore(float(np.mean([doc.value for doc in twin[name]])), M)
        delivered = float(np.mean([doc.value for doc in proxy[name]]))
        ends = (max(0.0, delivered - 0.1), 1.0) if open_ and lost[t].any() else (None, None)
        n_lost = int(lost[t].sum())
        rows.append(window(name, n=N - n_lost, **{"n_open" if open_ else "n_failed": n_lost}))
        scores[name] = TaskScore(delivered, N, None, *ends, partial=bool(open_ and lost[t].any()))
    suppliers = {
        "twin": MeasuredSupplier("twin", [], {}, twin),
        "proxy": MeasuredSupplier("proxy", rows, {}, proxy),
    }
    known = represented_suppliers(suppliers, {"twin": own, "proxy": scores}, {"twin": "proxy"})
    weights = dict.fromkeys(own, 1 / T)
    return by_proxy(weights, own, known["twin"]) or combined_tasks(weights, own)


@pytest.mark.parametrize("open_", [False, True])
@pytest.mark.parametrize("withheld", ["any", "few", "hard", "easy"])
def test_a_proxy_that_leaves_docs_unanswered_neither_costs_nor_helps_its_member(
    withheld: str, open_: bool
) -> None:
    """Both would be right on .80; the proxy leaves .40 of its docs unanswered, or of those it gets wrong."""
    rng = np.random.default_rng(41)
    found = []
    for _ in range(60):
        right = rng.random((T, N)) < 0.8
        chance = {
            "any": 0.4,
            "few": 0.06,
            "hard": np.where(right, 0.0, 1.0),
            "easy": np.where(right, 0.5, 0.0),
        }[withheld]
        lost = rng.random((T, N)) < chance
        drawn = np.array([rng.permutation(N)[:M] for _ in range(T)])
        found.append(node(right, lost, drawn, open_=open_))
    assert abs(np.mean([one.score for one in found]) - 0.8) <= 0.012
    assert np.mean([one.interval[0] <= 0.8 <= one.interval[1] for one in found]) >= 0.9
    assert not any(one.partial for one in found), "what its proxy has open is not open for the member"
    assert np.mean([one.interval[1] - one.interval[0] for one in found]) <= 0.11
