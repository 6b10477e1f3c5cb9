"""The ways into Dagster: the one name of their code location, and switches that hold whichever way one takes.

``testbench up``, ``dagster dev -w workspace.yaml``, ``dg dev`` and a plain ``dagster dev`` in a checkout
serve a code location of one name, :data:`LOCATION`. Dagster keeps by that name what was switched on the
Automation page. Under ``-m MODULE`` it calls the location after the module, and nothing can name it
otherwise: then what was switched under the shared name holds for it too, and people are told.

Belongs here: what differs by how the code is served. Does not: settings of the instance
(:mod:`.local_runs`), and where it stores (:mod:`.storage`).
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from testbench_dagster.config.settings import Settings

LOCATION = "testbench"
"""What Dagster calls the code location, in `workspace.yaml`, `pyproject.toml` and by `testbench up`."""
CODE = "testbench_dagster.definitions"
"""The module that it serves."""
WORKSPACE: dict[str, Any] = {
    "load_from": [{"python_module": {"module_name": CODE, "location_name": LOCATION}}]
}
"""What `workspace.yaml` holds; a test keeps both alike."""

_FIELDS = {"summaries_automation": "summaries_sensor"}
"""Sensors whose setting has another name."""
_TEMPORARY = ".tmp_dagster_home_"
"""How Dagster begins the name of the folder that it makes where it was told of none."""


def serves(arguments: Sequence[str]) -> bool:
    """Whether a process with this command line is a code server, under whatever name it serves the code."""
    return list(arguments[1:3]) == ["api", "grpc"]


def served_as(arguments: Sequence[str]) -> str | None:
    """What Dagster calls the code location that a process with this command line serves; None: no server."""
    return _after("--location-name", arguments)


def remarks(arguments: Sequence[str], home: object) -> list[str]:
    """What people should know who serve the code as a process with this command line does.

    ``home`` is where the installation keeps what it measured.
    """
    found = []
    name = served_as(arguments)
    if name == CODE:
        found.append(
            f"this code location is called {name}, as -m has it. What is switched on its Automation page "
            f"holds for it alone, while `testbench up` and workspace.yaml go by {LOCATION}, whose switches "
            f"were taken over just now; better serve it with -w {home}/dagster/workspace.yaml, or by "
            "`testbench up`"
        )
    instance = _after("--instance-ref", arguments) or ""
    if _TEMPORARY in instance and "TestbenchStorage" not in instance:
        found.append(
            "Dagster was told of no home and forgets these runs when it ends; those of `testbench run` and "
            f"`testbench up` are in {home}/dagster: export DAGSTER_HOME={home}/dagster"
        )
    return found


def shared_switches(arguments: Sequence[str]) -> dict[str, bool]:
    """What was switched by hand under the shared name, where the code is served by that of its module.

    On or off, by the name of the sensor or schedule. Empty where the location has the shared name, since
    Dagster then knows by itself, and where the instance cannot be read.
    """
    reference = _after("--instance-ref", arguments)
    if served_as(arguments) != CODE or reference is None:
        return {}
    from testbench_dagster.defs import dagster_internals as internals  # with Dagster's storages, 0.5 s

    try:
        with dg.DagsterInstance.from_ref(
            internals.deserialize_value(reference, internals.InstanceRef)
        ) as instance:
            return _switched(instance)
    except Exception:  # a store that is away: whatever needs it says so
        return {}


def with_switches(settings: Settings, switched: Mapping[str, bool]) -> Settings:
    """Settings under which sensors and schedules begin as they were switched."""
    automation = settings.automation
    changes = {
        field: getattr(automation, field).model_copy(update={"enabled": on})
        for name, on in switched.items()
        if hasattr(getattr(automation, field := _FIELDS.get(name, name), None), "enabled")
    }
    own = [
        schedule.model_copy(update={"enabled": switched.get(schedule.name, schedule.enabled)})
        for schedule in settings.schedules
    ]
    return settings.model_copy(update={"automation": automation.model_copy(update=changes), "schedules": own})


def take_over_switches(instance: dg.DagsterInstance) -> list[str]:
    """Have what was switched under the module's name hold for the shared one, cursors of sensors included.

    Earlier versions of `testbench up` served the code by the module's name. What has a state of the shared
    name keeps it. Returns the names of what was taken over, sorted.
    """
    from testbench_dagster.defs import dagster_internals as internals  # with Dagster's storages, 0.5 s

    states = instance.all_instigator_state()
    known = {state.instigator_name for state in states if _location(state) == LOCATION}
    taken = []
    for state in states:
        if _location(state) != CODE or state.instigator_name in known:
            continue
        repository = internals.RemoteRepositoryOrigin(
            code_origin(), state.origin.repository_origin.repository_name
        )
        origin = internals.RemoteInstigatorOrigin(repository, state.instigator_name)
        instance.add_instigator_state(
            internals.InstigatorState(origin, state.instigator_type, state.status, state.instigator_data)
        )
        taken.append(state.instigator_name)
    return sorted(taken)


def code_origin() -> Any:
    """Where Dagster finds the code of the shared name, as it notes that of runs and of switches."""
    from testbench_dagster.defs import dagster_internals as internals  # with Dagster's storages, 0.5 s

    target = internals.LoadableTargetOrigin(executable_path=sys.executable, module_name=CODE)
    return internals.ManagedGrpcPythonEnvCodeLocationOrigin(target, LOCATION)


def _switched(instance: dg.DagsterInstance) -> dict[str, bool]:
    from testbench_dagster.defs.dagster_internals import InstigatorStatus  # with Dagster's storages, 0.5 s

    by_hand = {InstigatorStatus.RUNNING: True, InstigatorStatus.STOPPED: False}
    return {
        state.instigator_name: by_hand[state.status]
        for state in instance.all_instigator_state()
        if _location(state) == LOCATION and state.status in by_hand
    }


def _location(state: Any) -> str:
    return str(state.origin.repository_origin.code_location_origin.location_name)


def _after(option: str, arguments: Sequence[str]) -> str | None:
    """What follows an option on a command line."""
    for place, argument in enumerate(arguments[:-1]):
        if argument == option:
            return arguments[place + 1]
    return None
