"""What to put into ``testbench.yaml`` and into the environment to evaluate a simulated Pocket network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def services_block(description: Mapping[str, Any]) -> dict[str, Any]:
    """The block ``services`` for a network as ``/_sim/describe`` tells it; it holds no key."""
    urls = [node["rest"] for node in description["nodes"]]
    # a node on this machine may be asked several times a block
    poll_s = min(max((description["block_s"] or 1.0) / 2, 0.2), 10.0)
    return {
        app["service"]: {
            "transport": "shannon",
            "model": app["model"],
            "api": app["api"],
            "nodes": {"rest": list(urls), "rpc": list(urls), "poll_s": poll_s},
            "apps": [{"address": app["address"], "key_env": app["key_env"]}],
            "allow_private_networks": True,
        }
        for app in description["apps"]
        if any(supplier["service"] == app["service"] for supplier in description["suppliers"])
    }


def environment(description: Mapping[str, Any]) -> dict[str, str]:
    """The variables that hold the applications' keys. They are the simulation's, and worth nothing."""
    return {app["key_env"]: app["private_key"] for app in description["apps"]}


def how_to_use(description: Mapping[str, Any]) -> str:
    """What to put where, as shell commands and YAML."""
    import yaml

    exports = "".join(f"export {name}={key}\n" for name, key in environment(description).items())
    settings = {
        "simulation": True,
        "services": services_block(description),
        "tasks": [{"name": "starter_units", "samples": 20}],
    }
    url = description["nodes"][0]["rest"]
    return (
        "\nA simulated Pocket network: its keys are made up and worth nothing. Its applications' keys:\n\n"
        f"{exports}\nFor testbench.yaml:\n\n{yaml.safe_dump(settings, sort_keys=False, width=120)}"
        f"\nAll about it: {url}/_sim/describe; the same personas over plain HTTP: {url}/roster"
    )
