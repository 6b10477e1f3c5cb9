"""deploy/k8s: what is set in values has an effect, or is refused with what to do instead."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

for needed, extra in (
    ("helm_python", "deploy"),
    ("kubernetes_validate", "deploy"),
    ("dagster_k8s", "k8s"),
    ("celery", "celery"),
):
    pytest.importorskip(needed, reason=f"the extra {extra} is not installed")

from helm_python import HelmError  # noqa: E402

from testbench_dagster_tests.deploy import charts  # noqa: E402
from testbench_dagster_tests.deploy.charts import CHART, Object, example, merged, rendered  # noqa: E402

USUAL = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
KUBERNETES = example("minimal")
CELERY = merged(KUBERNETES, {"launcher": "celery", "stores": {"redisUrl": "redis://redis:6379/0"}})
#: Where what nothing uses by default is in use.
RICHER = {
    "everything": example("everything"),
    "existing-secrets": example("existing-secrets"),
    "more": merged(KUBERNETES, {"feed": {"enabled": True}, "board": {"autoscaling": {"enabled": True}}}),
}
#: What means something else with Celery is set in both.
OF_LAUNCHERS = ("launcher", "stores", "keys", "runs", "worker")

SHA = f"sha256:{'1' * 64}"
PLACES: Object = {"weight": 1, "preference": {"matchExpressions": [{"key": "pool", "operator": "Exists"}]}}
#: By their last key what else they could be, where one cannot tell from what they are.
OTHERS: dict[str, Any] = {
    "affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [PLACES]}},
    "annotations": {"example.org/a": "b"},
    "computeLogs": {"module": "dagster.core.storage.local_compute_log_manager", "class": "A"},
    "dagsterPostgresUrl": "postgresql://other/dagster",
    "digest": SHA,
    "env": {"ANOTHER": "b"},
    "extraVolumeMounts": [{"name": "data", "mountPath": "/elsewhere"}],
    "extraVolumes": [{"name": "more", "emptyDir": {}}],
    "files": {"another.json": "{}"},
    "from": [{"podSelector": {}}],
    "mongoUri": "mongodb://other/testbench",
    "nodeSelector": {"pool": "other"},
    "postgresUri": "postgresql://other/testbench",
    "pullPolicy": "Always",
    "pullSecrets": ["other"],
    "redisUrl": "redis://other:6379/0",
    "replicas": 7,
    "startTimeoutSeconds": 4000,
    "testbenchYaml": "installation: other\n",
    "tolerations": [{"key": "other", "operator": "Exists"}],
    "type": "NodePort",
    "values": {"ANOTHER_KEY": "b"},
}


def leaves(node: Object, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Where every value is that somebody sets by itself."""
    for key, value in node.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, (*path, key))
        else:
            yield (*path, key)


def at(values: Object, path: tuple[str, ...]) -> Any:
    for key in path:
        values = values.get(key, {})
    return values


def other(base: Object, path: tuple[str, ...]) -> Object:
    """Values that set one to something else than these do."""
    usual = at(merged(USUAL, base), path)
    changed: Any
    if path == ("daemon", "replicas"):
        changed = 0
    elif path == ("launcher",):
        changed = "kubernetes" if usual == "celery" else "celery"
    elif path[-1] in OTHERS:
        changed = OTHERS[path[-1]]
    elif isinstance(usual, bool):
        changed = not usual
    elif isinstance(usual, int):
        changed = usual + 1
    elif path[-1] in ("cpu", "memory"):
        changed = "123m" if path[-1] == "cpu" else "123Mi"
    else:
        assert isinstance(usual, str), path
        changed = "other"
    for key in reversed(path):
        changed = {key: changed}
    made: Object = changed
    if path[-2:] == ("ingress", "enabled"):
        return merged(
            made, {path[0]: {"ingress": {"enabled": made[path[0]]["ingress"]["enabled"], "host": "h"}}}
        )
    return made


def waits(base: Object, path: tuple[str, ...]) -> bool:
    """Whether the value is of something that is switched off, which says so beside it."""
    values = merged(USUAL, base)
    switches = [at(values, (*path[:end], "enabled")) for end in range(1, len(path))]
    return path[-1] != "enabled" and False in switches


def texts(values: Object) -> dict[str, str]:
    """What the chart makes of values, but for what it says at the end."""
    made = charts.chart().render(dict(values), name=charts.RELEASE, namespace=charts.NAMESPACE)
    return {name: text for name, text in made.items() if name.endswith(".yaml")}


def effect(base: Object, usual: dict[str, str], path: tuple[str, ...]) -> str:
    """What becomes of another value: "changes" something, is "ignored", or is "refused"."""
    try:
        return "changes" if texts(merged(base, other(base, path))) != usual else "ignored"
    except HelmError as error:
        said = str(error)
        # it is named with what to do; another launcher needs another store
        assert "; " in said and (path[0] if path != ("launcher",) else "stores") in said, said
        return "refused"


def test_whatever_is_set_changes_something_or_is_refused() -> None:
    bases = {"kubernetes": KUBERNETES, "celery": CELERY, **RICHER}
    usual = {name: texts(base) for name, base in bases.items()}
    ignored, useless = [], []
    for path in leaves(USUAL):
        found = {"kubernetes": effect(KUBERNETES, usual["kubernetes"], path)}
        if path[0] in OF_LAUNCHERS:
            found["celery"] = effect(CELERY, usual["celery"], path)
        for name in RICHER:
            if "changes" not in found.values():
                found[name] = effect(bases[name], usual[name], path)
        ignored += [
            (".".join(path), name)
            for name, what in found.items()
            if what == "ignored" and not waits(bases[name], path)
        ]
        if "changes" not in found.values():
            useless.append((".".join(path), found))
    assert ignored == []
    assert useless == []


@pytest.mark.parametrize("base", [KUBERNETES, CELERY], ids=["kubernetes", "celery"])
def test_no_default_is_refused_whatever_is_switched(base: Object) -> None:
    off = {"enabled": False}
    texts(merged(base, dict.fromkeys(("webserver", "board", "feed", "migration"), off)))
    on = {"enabled": True, "autoscaling": {"enabled": True}, "ingress": {"enabled": True, "host": "h"}}
    texts(
        merged(
            base,
            {**dict.fromkeys(("webserver", "board", "feed"), on), "networkPolicy": {"enabled": True}},
        )
    )


def test_a_sandbox_is_that_of_what_executes_runs_and_nothing_else() -> None:
    kept: Object = {"runtimeClassName": "gvisor", "hostUsers": False}
    marked = {"annotations": {"example.org/team": "evaluation"}}
    made = charts.render(merged(CELERY, {"worker": {**kept, **marked}}))
    having = {
        where: template
        for where, template in charts.pods(made)
        if template["spec"].keys() & kept.keys() or "example.org/team" in str(template)
    }
    (worker,) = having
    assert worker == "Deployment eval-testbench-worker"
    spec = having[worker]["spec"]
    assert {key: spec[key] for key in kept} == kept
    assert marked["annotations"].items() <= having[worker]["metadata"]["annotations"].items()
    assert "checksum/config" in having[worker]["metadata"]["annotations"]
    for name in ("celery", "minimal"):  # nobody asked for one
        assert not any(template["spec"].keys() & kept.keys() for _, template in charts.pods(rendered(name)))


def test_a_run_has_the_sandbox_that_is_set(tmp_path: Path) -> None:
    run = charts.run_pod(charts.dagster_yaml(rendered("everything")), tmp_path)["spec"]["template"]["spec"]
    assert (run["runtimeClassName"], run["hostUsers"]) == ("gvisor", False)


TWICE = "cluster-autoscaler.kubernetes.io/safe-to-evict"
OURS = {"stores": {"existingSecret": "ours", "mongoUri": "", "postgresUri": "", "dagsterPostgresUrl": ""}}


@pytest.mark.parametrize(
    ("base", "values", "said"),
    [
        # of the other launcher
        (
            CELERY,
            {"runs": {"runtimeClassName": "gvisor"}},
            "runs.runtimeClassName has no effect with launcher: celery, .*; set worker.runtimeClassName",
        ),
        (CELERY, {"runs": {"hostUsers": False}}, "runs.hostUsers .*; set worker.hostUsers"),
        (
            CELERY,
            {"runs": {"resources": {"limits": {"memory": "9Gi"}}}},
            "runs.resources .*; set worker.resources",
        ),
        (CELERY, {"runs": {"keepFromDrains": False}}, "runs.keepFromDrains .*; leave it out"),
        (CELERY, {"runs": {"ttlSecondsAfterFinished": 99}}, "runs.ttlSecondsAfterFinished .*; leave it out"),
        (
            CELERY,
            {"runs": {"startTimeoutSeconds": 900}},
            "runs.startTimeoutSeconds has no effect below 3600 with launcher: celery, .*; raise it",
        ),
        (
            KUBERNETES,
            {"worker": {"hostUsers": False}},
            "worker.hostUsers has no effect with launcher: kubernetes, .*; set runs.hostUsers",
        ),
        (
            KUBERNETES,
            {"stores": {"redisUrl": "redis://r"}},
            "stores.redisUrl has no effect with launcher: kubernetes; set launcher: celery",
        ),
        # two sources
        (
            merged(KUBERNETES, OURS),
            {"stores": {"mongoUri": "mongodb://r"}},
            "stores.mongoUri has no effect beside stores.existingSecret; put it into that Secret",
        ),
        (KUBERNETES, {"keys": {"existingSecret": "ours"}}, "keys.values has no effect beside .*; put them"),
        (
            KUBERNETES,
            {"env": {"MY_SUPPLIER_KEY": "x"}},
            "env and keys.values both have MY_SUPPLIER_KEY; remove one of them",
        ),
        # behind a switch
        (
            KUBERNETES,
            {"feed": {"ingress": {"enabled": True, "host": "feed.example.org"}}},
            "feed.ingress.enabled has no effect while feed.enabled is false; set that to true",
        ),
        (KUBERNETES, {"board": {"enabled": False, "replicas": 3}}, "board.replicas has no effect while"),
        (KUBERNETES, {"feed": {"autoscaling": {"enabled": True}}}, "feed.autoscaling.enabled has no effect"),
        (
            KUBERNETES,
            {"board": {"autoscaling": {"enabled": True}, "replicas": 3}},
            "board.replicas has no effect with .*; set board.autoscaling.minReplicas instead",
        ),
        (
            KUBERNETES,
            {"networkPolicy": {"from": [{"podSelector": {}}]}},
            "networkPolicy.from has no effect while networkPolicy.enabled is false, and all ports are open",
        ),
        # names that are taken
        *(
            (KUBERNETES, {"env": {name: "x"}}, f"env.{name} is set by the chart, .*; leave it out")
            for name in ("DAGSTER_HOME", "TESTBENCH_HOME", "TESTBENCH_CONFIG", "DAGSTER_RUN_JOB_NAME")
        ),
        (
            KUBERNETES,
            {"keys": {"values": {"TESTBENCH_MONGO_URI": "x"}}},
            "keys.values.TESTBENCH_MONGO_URI is set by the chart; use stores instead",
        ),
        (KUBERNETES, {"env": {"DAGSTER_POSTGRES_URL": "x"}}, "env.DAGSTER_POSTGRES_URL .*; use stores"),
        (KUBERNETES, {"runs": {"annotations": {TWICE: "true"}}}, f"{TWICE}, .*; set runs.keepFromDrains"),
        (CELERY, {"worker": {"annotations": {"checksum/config": "1"}}}, "worker.annotations has checksum/"),
        (KUBERNETES, {"extraVolumes": [{"name": "home"}]}, "extraVolumes has home, .*; choose another name"),
        (KUBERNETES, {"extraVolumes": [{"name": "a"}, {"name": "a"}]}, "extraVolumes has a, .*; choose"),
        (
            KUBERNETES,
            {"extraVolumeMounts": [{"name": "data", "mountPath": "/data"}]},
            "extraVolumeMounts has data, and there is no such volume; add it to extraVolumes",
        ),
        (
            KUBERNETES,
            {
                "extraVolumes": [{"name": "a"}],
                "extraVolumeMounts": [{"name": "a", "mountPath": "/etc/testbench/"}],
            },
            "extraVolumeMounts has /etc/testbench/, .*; choose another mountPath",
        ),
        # names that objects cannot have
        (KUBERNETES, {"nameOverride": "a" * 64}, "nameOverride a+ is no DNS label; use .* 63 at most"),
        (KUBERNETES, {"nameOverride": "a.b"}, "nameOverride a.b is no DNS label"),
        (KUBERNETES, {"fullnameOverride": "a.b"}, "fullnameOverride a.b cannot begin .*; use a lower case"),
        (KUBERNETES, {"fullnameOverride": "1a"}, "fullnameOverride 1a cannot begin"),
        (KUBERNETES, {"fullnameOverride": "a" * 41}, "fullnameOverride a+ cannot begin .* 40 at most"),
    ],
)
def test_what_would_be_lost_is_refused_with_what_to_do(base: Object, values: Object, said: str) -> None:
    with pytest.raises(HelmError, match=said):
        texts(merged(base, values))


def test_every_variable_that_the_chart_sets_is_refused_as_one_of_the_users(tmp_path: Path) -> None:
    """Read from pods: a variable that is added to them is refused too, or stands there twice."""
    objects = charts.render(CELERY)
    run = charts.run_pod(charts.dagster_yaml(rendered("minimal")), tmp_path)
    ours = {
        variable["name"]
        for _, template in charts.pods([*objects, run])
        for one in charts.containers(template)
        for variable in one["env"]
    }
    assert len(ours) >= 8
    for name in ours:
        with pytest.raises(HelmError, match=f"env.{name} is set by the chart"):
            texts(merged(CELERY, {"env": {name: "x"}}))


def test_every_volume_of_a_pod_is_refused_as_one_of_the_users(tmp_path: Path) -> None:
    values = merged(KUBERNETES, {"keyFiles": {"existingSecret": "ours"}})
    objects = charts.render(values)
    run = charts.run_pod(charts.dagster_yaml(objects), tmp_path)
    specs = [template["spec"] for _, template in charts.pods([*objects, run])]
    names = {volume["name"] for spec in specs for volume in spec["volumes"]}
    paths = {
        mount["mountPath"]
        for _, template in charts.pods([*objects, run])
        for one in charts.containers(template)
        for mount in one["volumeMounts"]
    }
    for name in names:
        with pytest.raises(HelmError, match=f"extraVolumes has {name}, "):
            texts(merged(values, {"extraVolumes": [{"name": name, "emptyDir": {}}]}))
    for path in paths:
        mount = {"name": "a", "mountPath": path}
        with pytest.raises(HelmError, match=f"extraVolumeMounts has {path}, where"):
            texts(merged(values, {"extraVolumes": [{"name": "a"}], "extraVolumeMounts": [mount]}))


@pytest.mark.parametrize("release", ["a.b", "eval.testbench.x"])
def test_a_dot_in_the_name_of_a_release_is_none_in_names(release: str) -> None:
    made = charts.chart().render(dict(KUBERNETES), name=release, namespace=charts.NAMESPACE)
    for file, text in made.items():
        for one in yaml.safe_load_all(text) if file.endswith(".yaml") else ():
            assert one is None or "." not in one["metadata"]["name"]


def test_a_release_whose_name_begins_with_a_digit_is_told_what_to_do() -> None:
    with pytest.raises(HelmError, match="of the release does not: 1a-testbench; set fullnameOverride"):
        charts.chart().render(dict(KUBERNETES), name="1a", namespace=charts.NAMESPACE)
