"""Texts that must not come through as they are: keys in the wrong place, ids no chain would hold."""

from __future__ import annotations

import pytest

from testbench_dagster.config import load_config
from testbench_dagster.core.errors import ConfigError
from testbench_dagster.transports.pocket.chain.errors import BadAnswer
from testbench_dagster.transports.pocket.chain.reading import read_application

KEY = "b167cbcf42fb3ed6c586cd422bb8995b3df07f5ccaced5f13c8503836be66138"
APP = "pokt1mrqt5f7qh8uxs27cjm9t7v9e74a9vvdnq5jva4"

CONFIGURATION = """
services:
  svc:
    transport: shannon
    model: m
    nodes: {{rest: ["http://127.0.0.1:1"]}}
    apps: {apps}
    {more}
tasks: [{{name: starter_units}}]
"""


@pytest.mark.parametrize(
    "apps",
    [
        f"[{KEY}]",
        f"{KEY}",
        f'[{{address: {APP}, key_env: "{KEY[:62]}"}}]',  # lost two digits when it was copied
        f"[{{address: {APP}, key_env: K{KEY}}}]",
        f'[{{address: {APP}, key_env: "{KEY}{KEY}"}}]',
        f'[{{address: {APP}, key_file: "{KEY[:63]}"}}]',
        f'[{{address: {APP}, key_file: "{KEY.upper()}{KEY}"}}]',
        f'[{{address: "{KEY[:60]}", key_env: K}}]',
        f"[{{address: \"'{KEY}'\", key_env: K}}]",
        f"[{{address: {APP}, {KEY}: key}}]",
        f"[{{address: {APP}, {KEY}: a, {KEY}: b}}]",
        f"[{{address: {APP}, key_env: K}}, 0x{KEY}]",
    ],
)
def test_a_key_anywhere_under_apps_is_refused_and_not_shown(tmp_path, apps):
    _refused(tmp_path, CONFIGURATION.format(apps=apps, more=""))


@pytest.mark.parametrize("more", [f"ring: {KEY}", f"prefix: {KEY}", f"stream: {KEY}", f"rpc_types: [{KEY}]"])
def test_a_key_as_another_value_is_not_shown(tmp_path, more):
    _refused(tmp_path, CONFIGURATION.format(apps=f"[{{address: {APP}, key_env: K}}]", more=more))


def _refused(folder, text):
    path = folder / "testbench.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    said = str(caught.value).removeprefix(str(path)).lower()
    assert KEY[:16] not in said
    assert str(int(KEY, 16))[:16] not in said


@pytest.mark.parametrize("name", ["", "a b", "x\nFAIL  all", "<b>", "\x1b[31m", "s" * 43])
def test_an_application_staked_for_what_is_no_service_id_is_a_broken_answer(name):
    application = {"address": APP, "stake": None, "service_configs": [{"service_id": name}]}
    with pytest.raises(BadAnswer, match="is no service id") as caught:
        read_application({"application": application}, APP)
    assert str(caught.value).isprintable()
