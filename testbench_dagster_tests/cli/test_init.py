"""``testbench init``: a first configuration that is read as it is meant, and no file lost over it."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from testbench_dagster.cli import cli
from testbench_dagster.cli.init import starter_text
from testbench_dagster.config import Config, load_config, load_config_text
from testbench_dagster.core.errors import ConfigError

WHERE = Path("/nowhere/testbench.yaml")


def initialized(*arguments: str, config: str | None = None) -> str:
    """What the command says on stderr."""
    named = [] if config is None else ["-c", config]
    done = CliRunner().invoke(cli, [*named, "init", *arguments], standalone_mode=False)
    if done.exception is not None:
        raise done.exception
    assert done.stdout == ""
    return done.stderr


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TESTBENCH_CONFIG", raising=False)


def test_it_writes_what_is_given_and_says_what_follows(tmp_path: Path) -> None:
    said = initialized("--base-url", "https://api.deep.example/v1", "--model", "m-1", "--key-env", "DEEP_KEY")
    [supplier] = load_config(tmp_path / "testbench.yaml").settings.suppliers
    assert (supplier.address, supplier.base_url) == ("deep-example", "https://api.deep.example/v1")
    assert (supplier.model, supplier.api_key_env) == ("m-1", "DEEP_KEY")
    assert said.splitlines() == [
        f"written: {tmp_path / 'testbench.yaml'}",
        "export DEEP_KEY with the key of the endpoint",
        "then: testbench check, testbench plan, testbench run",
    ]


def test_what_is_not_given_is_an_example_to_edit(tmp_path: Path) -> None:
    said = initialized(config="mine.yaml")
    [supplier] = load_config(tmp_path / "mine.yaml").settings.suppliers
    assert (supplier.model, supplier.api_key_env) == ("some-model", None)
    assert "put in your base_url and model; they are examples" in said
    assert said.endswith(
        "then: testbench -c mine.yaml check, testbench -c mine.yaml plan, testbench -c mine.yaml run\n"
    )
    text = (tmp_path / "mine.yaml").read_text(encoding="utf-8")
    assert "# api_key_env: MY_SUPPLIER_KEY" in text


def test_it_overwrites_nothing(tmp_path: Path) -> None:
    path = tmp_path / "testbench.yaml"
    path.write_text("mine", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"testbench\.yaml exists and is left as it is; remove it, or name"):
        initialized()
    assert path.read_text(encoding="utf-8") == "mine"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--base-url", "nonsense"], r"suppliers\[0\]\.base_url: 'nonsense' is no http\(s\) URL"),
        (["--base-url", "http://[/v1"], r"suppliers\[0\]\.base_url"),
        (["--base-url", "http://u:p@host/v1"], "may not hold credentials"),
        (["--key-env", "sk-1234"], "--key-env is the name of a variable"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_written(tmp_path: Path, arguments: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as error:
        initialized(*arguments)
    assert "sk-1234" not in str(error.value), "it may be the key itself"
    assert list(tmp_path.iterdir()) == []


def configured(base_url: str | None, model: str | None) -> Config:
    return load_config_text(starter_text(base_url, model, None), WHERE)


@given(st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="$"), min_size=1))
def test_any_name_of_a_model_is_read_as_it_was_given(model: str) -> None:
    [supplier] = configured(None, model).settings.suppliers
    assert supplier.model == model


@given(
    st.from_regex(
        r"https?://[a-z0-9][a-z0-9-]{0,20}(\.[a-z0-9]{1,8}){0,3}(:[1-9][0-9]{0,3})?/[a-z0-9_/-]{0,9}",
        fullmatch=True,
    )
)
def test_any_url_gives_an_address_that_can_be_a_key(base_url: str) -> None:
    [supplier] = configured(base_url, None).settings.suppliers
    assert supplier.base_url.rstrip("/") == base_url.rstrip("/") and supplier.key.endswith("@external")
