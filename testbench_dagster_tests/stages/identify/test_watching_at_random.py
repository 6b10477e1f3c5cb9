"""A comparison that looks only where something is new finds what one finds that looks at everything."""

from __future__ import annotations

import random
import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from testbench_dagster.config import load_config
from testbench_dagster.stages.discover.roster import refresh_roster
from testbench_dagster.stages.identify import identify
from testbench_dagster.stages.identify.identify import detect_changes, refresh_identity
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.stores.documents.collections import IDENTITY_GROUPS, SPLITS
from testbench_dagster_tests.stages.identify.answers import HOUR, NOW, key, stored
from testbench_dagster_tests.stages.identify.town import TASKS, Town, withheld

pytestmark = pytest.mark.slow(minutes=2)


def wrong(task: str, doc: int) -> bool:
    return False


@pytest.mark.parametrize("seed", range(4))
def test_the_same_is_found_as_when_all_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """At random some answer, alike or not, some leave docs out, some scores come late, some are detected."""
    for name in ("TESTBENCH_HOME", "TESTBENCH_MONGO_URI", "TESTBENCH_POSTGRES_URI"):
        monkeypatch.delenv(name, raising=False)
    rng, names = random.Random(seed), [f"a{n}" for n in range(8)]
    home = tmp_path / "one"
    home.mkdir()
    suppliers = [{"address": name, "base_url": "http://127.0.0.1:9/v1", "model": "m"} for name in names]
    (home / "testbench.yaml").write_text(yaml.safe_dump({"tasks": TASKS, "suppliers": suppliers}), "utf-8")
    liars = rng.sample(names, 3)
    docs, found = dict.fromkeys(names, 50), 0
    for round_ in range(9):
        now = NOW - (60 - 6 * round_) * HOUR
        with Workspace(load_config(home / "testbench.yaml")) as workspace:
            if round_ == 0:
                refresh_roster(workspace)
            place = Town(workspace)
            for name in names if round_ == 0 else rng.sample(names, 4):
                if round_ == 0:
                    place.probes(name, "a", now - 30 * HOUR)
                    place.docs(name, range(50), now - 20 * HOUR)
                    continue
                upto = docs[name] + rng.randrange(4, 15)
                lies = name in liars and round_ > 2
                late = rng.choice([None, now - timedelta(minutes=rng.randrange(1, 200))])
                at = now - rng.randrange(2, 5) * HOUR
                if name in liars and rng.random() < 0.2:
                    withheld(place, name, range(docs[name], upto), at)
                else:
                    sure: dict[str, Any] = (
                        {"right": wrong, "text": "other"} if lies and rng.random() < 0.8 else {}
                    )
                    place.docs(name, range(docs[name], upto), at, scored_at=late, **sure)
                docs[name] = upto
            if round_ and rng.random() < 0.5:
                detect_changes(workspace, [key(name) for name in rng.sample(names, 2)], now - HOUR)
        copy = tmp_path / f"copy-{round_}"
        shutil.copytree(home, copy)
        made = []
        for folder in (home, copy):
            with Workspace(load_config(folder / "testbench.yaml")) as workspace:
                if folder == copy:
                    nothing = {"watched_at": None, "watched_as": None}
                    workspace.documents.amend(IDENTITY_GROUPS, {key(name): nothing for name in names})
                monkeypatch.setattr(identify.random, "SystemRandom", lambda: random.Random(7))
                refresh_identity(workspace, now=now)
                fields = ("supplier", "proxy", "at", "apart_from", "docs", "log_e")
                split = sorted(tuple(one[f] for f in fields) for one in workspace.documents.find(SPLITS))
                groups = {name: (one["members"], one["proxy"]) for name, one in stored(workspace).items()}
                made.append((split, groups))
        assert made[0] == made[1], round_
        found = len(made[0][0])
    assert found, "somebody is split off"
