"""What an operator sees and does in the Dagster UI, driven in headless Chromium against a running platform.

One platform for all of it, in order: other pages are looked at while the backfill runs. What a page says is
compared with what GraphQL and the simulated suppliers say. With ``TESTBENCH_SCREENSHOTS=folder`` the pictures
in ``docs/images`` are taken anew on the way.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.remote.webelement import WebElement

from testbench_dagster_tests.conftest import server_or_skip
from testbench_dagster_tests.operations.browser import Browser, chromium
from testbench_dagster_tests.operations.harness import Platform, platform, wait_until

pytestmark = pytest.mark.slow(minutes=4)

SUPPLIERS_N = 6
SUPPLIER_ASSETS = ("relay_responses", "supplier_scores", "taxonomy_summaries")
CHOSEN = ("sim-02@simulation", "sim-05@simulation")
"""Not neighbours: Dagster's runs carry contiguous ranges, so this backfill takes two of them."""
TASKS = [f"starter_{name}" for name in ("arithmetic", "calendar", "logic", "reading", "strings", "units")]
DOCS = 40
"""Of each task for each supplier."""
EVALUATED_WITHIN_S = 600.0
FRESHNESS_WITHIN_S = 600.0
"""The daemon evaluates freshness policies every 30 s."""
DIALOG = "//*[@role='dialog']"
RECT = attrgetter("rect")

_NODES = "{ assetNodes { assetKey { path } groupName } }"
_NEWEST = """
query Newest($key: AssetKeyInput!, $partitions: [String!]) {
  assetOrError(assetKey: $key) {
    ... on Asset {
      assetMaterializations(partitions: $partitions, limit: 1) {
        runId timestamp metadataEntries { label ... on IntMetadataEntry { intValue } }
      }
    }
  }
}
"""
_BACKFILLS = """
{
  partitionBackfillsOrError(limit: 50) {
    ... on PartitionBackfills {
      results { id status partitionNames assetSelection { path } tags { key value } }
    }
  }
}
"""
_AUTOMATION = """
{
  repositoriesOrError {
    ... on RepositoryConnection {
      nodes { sensors { name sensorState { status } } schedules { name scheduleState { status } } }
    }
  }
}
"""


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    with server_or_skip(chromium(tmp_path_factory.mktemp("profile"))) as found:
        yield found


@pytest.fixture(scope="module")
def running(driver: webdriver.Chrome, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """Six suppliers, evaluated once; automation goes on beside what the browser does."""
    tasks = [{"name": name, "samples": {"min": DOCS, "max": DOCS, "half_width": None}} for name in TASKS]
    with platform(tmp_path_factory.mktemp("ui"), SUPPLIERS_N, tasks=tasks) as made:
        made.start()
        wait_until(
            "the first evaluation", lambda: len(made.materialized()) == SUPPLIERS_N, EVALUATED_WITHIN_S
        )
        yield made


@pytest.fixture(scope="module")
def browser(driver: webdriver.Chrome, running: Platform, tmp_path_factory: pytest.TempPathFactory) -> Browser:
    return Browser(driver, f"http://127.0.0.1:{running.port}", tmp_path_factory.mktemp("screenshots"))


def newest(made: Platform, asset: str, partition: str | None = None) -> dict[str, Any] | None:
    """The newest materialization of an asset or of one partition; its whole numbers under ``numbers``."""
    partitions = None if partition is None else [partition]
    data = made.graphql(_NEWEST, key={"path": [asset]}, partitions=partitions)
    for found in data["assetOrError"].get("assetMaterializations", []):
        numbers = {e["label"]: e["intValue"] for e in found["metadataEntries"] if "intValue" in e}
        return {**found, "numbers": numbers}
    return None


def made_at(made: Platform, asset: str, partition: str | None = None) -> int:
    """When the newest materialization was made, in milliseconds since 1970; 0 before the first."""
    found = newest(made, asset, partition)
    return int(found["timestamp"]) if found else 0


def test_partitions_page_lists_suppliers_with_their_metadata(running: Platform, browser: Browser) -> None:
    keys = running.partitions()
    assert len(keys) == SUPPLIERS_N
    browser.open("/assets/relay_responses?view=partitions")
    browser.read(*keys, f"Materialized ({SUPPLIERS_N})", "Failed (0)", "Missing (0)")
    browser.click(f"//*[text()='{CHOSEN[0]}']")
    made = newest(running, "relay_responses", CHOSEN[0])
    assert made is not None
    assert made["numbers"]["sent"] >= len(TASKS) * DOCS
    browser.read(
        made["runId"][:8],
        *(f"{label}\n{value}" for label, value in made["numbers"].items()),
        f"outcomes\nok {made['numbers']['sent']}",
        "relays_per_s",
        "p95_ms",
    )
    browser.picture("partitions")


@dataclass(frozen=True)
class Before:
    """What there was before the backfill: when each (asset, supplier) was made, requests by address."""

    made_at: dict[tuple[str, str], int]
    requests: dict[str, int]


def requests(made: Platform) -> dict[str, int]:
    return {address: stats["requests"] for address, stats in made.localnet.stats().items()}


def backfills(made: Platform) -> list[dict[str, Any]]:
    return list(made.graphql(_BACKFILLS)["partitionBackfillsOrError"]["results"])


@pytest.fixture(scope="module")
def before(running: Platform) -> Before:
    return Before(
        {(a, k): made_at(running, a, k) for a in SUPPLIER_ASSETS for k in CHOSEN}, requests(running)
    )


def test_the_dialog_launches_a_backfill_of_two_suppliers_apart(
    running: Platform, browser: Browser, before: Before
) -> None:
    assert all(before.made_at.values())
    assert backfills(running) == []
    browser.open("/assets")
    for asset in SUPPLIER_ASSETS:
        browser.click(f"//label[.//input[@data-testid='checkbox-{asset}']]")
    browser.click("//button[contains(., 'Materialize selected (3)')]")
    browser.read("Launch runs to materialize 3 assets")
    browser.click(f"{DIALOG}//*[@aria-label='expand_more']")
    for key in CHOSEN:
        browser.click(f"//*[@role='menuitem'][.//*[@title='{key}']]")
    browser.escape()
    browser.read("2 partitions")
    # without it nothing is asked: the scores are fresh
    browser.click(f"{DIALOG}//*[text()='Tags']")
    browser.click(f"{DIALOG}//button[contains(., 'Add tags')]")
    browser.write(f"{DIALOG}//input[@placeholder='Tag Key']", "testbench/force")
    browser.write(f"{DIALOG}//input[@placeholder='Tag Value']", "true")
    browser.click(f"{DIALOG}//button[normalize-space(.)='Apply']")
    browser.read("testbench/force: true")
    browser.picture("backfill")
    browser.click(f"{DIALOG}//button[contains(., 'Launch backfill')]")

    [launched] = wait_until("the backfill", lambda: backfills(running), 30)
    assert sorted(launched["partitionNames"]) == sorted(CHOSEN)
    assert sorted(key["path"][-1] for key in launched["assetSelection"]) == sorted(SUPPLIER_ASSETS)
    tags = {tag["key"]: tag["value"] for tag in launched["tags"]}
    assert tags["dagster/from_ui"] == "true"
    assert tags["testbench/force"] == "true"


def test_automation_page_shows_everything_switched_on(running: Platform, browser: Browser) -> None:
    [repository] = running.graphql(_AUTOMATION)["repositoriesOrError"]["nodes"]
    states = {s["name"]: s["sensorState"]["status"] for s in repository["sensors"]}
    states |= {s["name"]: s["scheduleState"]["status"] for s in repository["schedules"]}
    assert {"new_suppliers", "stale_scores", "nightly_evaluation", "daily_snapshots"} <= set(states)
    assert states.pop("service_probes") == "STOPPED", "which nothing has switched on here"
    assert set(states.values()) == {"RUNNING"}
    with browser.sized(1500, 1190):  # all rows: the page renders only those in sight
        browser.open("/automation")
        for name in states:
            # the first box of a row selects it, the second is its switch
            row = f"//a[contains(@href, '/{name}')]/ancestor::*[.//input[@type='checkbox']][1]"
            switch = f"({row}//input[@type='checkbox'])[2]"
            # the UI draws its switches itself and hides the real ones
            browser.until(
                f"the switch of {name} to be on",
                lambda at=switch: browser.get(at, WebElement.is_selected, hidden=True),
            )
        browser.picture("automation")


def test_the_backfill_asks_these_two_suppliers_anew(
    running: Platform, browser: Browser, before: Before
) -> None:
    [launched] = backfills(running)

    def ended() -> str | None:
        status = running.backfill_status(launched["id"])
        return status if status.startswith(("COMPLETED", "FAILED", "CANCELED")) else None

    assert wait_until("its end", ended, EVALUATED_WITHIN_S) == "COMPLETED_SUCCESS"
    for (asset, key), at in before.made_at.items():
        assert made_at(running, asset, key) > at, (asset, key)
    asked = {a: n - before.requests[a] for a, n in requests(running).items() if n != before.requests[a]}
    assert asked == {key.partition("@")[0]: len(TASKS) * DOCS for key in CHOSEN}
    browser.open(f"/runs/b/{launched['id']}")
    page = browser.read(*CHOSEN, *SUPPLIER_ASSETS, "Succeeded")
    assert page.count("100% completed") == len(SUPPLIER_ASSETS)


def test_checks_tab_shows_what_passed(browser: Browser) -> None:
    browser.open("/assets/supplier_scores?view=checks")
    page = browser.read(
        "Checks (8)",
        *(
            f"{name}\nSucceeded"
            for name in (
                "answers_in_time",
                "answers_have_text",
                "requests_taken",
                "models_unchanged",
                "alike_with_reference",
                "scores_fresh",
                "scores_reproducible",
                "windows_tight",
            )
        ),
    )
    assert "Failed" not in page
    browser.click("//*[text()='scores_reproducible']")
    browser.read("Evaluation result\nPassed", "n_offenders 0", "scores_compared")
    browser.picture("checks")


def test_the_leaderboard_is_made_at_a_click_and_is_fresh(running: Platform, browser: Browser) -> None:
    browser.open("/assets/leaderboard")
    browser.read("Freshness policy", "Fails if more than 36 hours since last materialization")
    before = made_at(running, "leaderboard")
    browser.click("//button[normalize-space(.)='Materialize']")

    def made() -> bool:
        # it reads the identity groups, which were perhaps never made: then the UI asks first
        for button in browser.all(f"{DIALOG}//button[normalize-space(.)='Confirm']"):
            button.click()
        return made_at(running, "leaderboard") > before

    wait_until("the leaderboard", made, EVALUATED_WITHIN_S)

    def fresh() -> bool:
        browser.open("/assets/leaderboard")
        page = browser.read("Row count")
        return "Freshness policy\nPassing" in page

    browser.until("its freshness", fresh, FRESHNESS_WITHIN_S)
    browser.read(f"Row count\n{SUPPLIERS_N}", *running.partitions())
    with browser.sized(1900, 1510):  # all columns of the ranking
        browser.picture("leaderboard")


def test_lineage_shows_every_asset_inside_its_group(running: Platform, browser: Browser) -> None:
    nodes = running.graphql(_NODES)["assetNodes"]
    groups = {node["assetKey"]["path"][-1]: node["groupName"] for node in nodes}
    assert {*SUPPLIER_ASSETS, "leaderboard", "sampled_prompts", "suppliers"} <= set(groups)
    # the graph renders only what is in sight; with its groups open from the start it fits itself in
    page = "/asset-groups?expanded=" + ",".join(f"global@global:{g}" for g in sorted(set(groups.values())))
    with browser.sized(1900, 1500):
        browser.open(page)
        browser.read(*groups, *groups.values())
        box = "//*[local-name()='foreignObject'][normalize-space(.)='{}']"
        for asset, group in groups.items():
            inner = browser.get(box.format(asset), RECT)
            outer = browser.get(f"{box.format(group)}[contains(@class, 'group')]", RECT)
            for place, length in (("x", "width"), ("y", "height")):
                assert outer[place] <= inner[place], (asset, group)
                assert inner[place] + inner[length] <= outer[place] + outer[length], (asset, group)
        browser.picture("lineage")
