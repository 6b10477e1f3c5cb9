"""Probes, pages and the framework itself, without a network."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from math import prod
from pathlib import Path
from typing import Any

import pytest
import yaml

from testbench_dagster.config import load_config
from testbench_dagster.core.answer_prefix import is_deterministic
from testbench_dagster.core.errors import ConfigError
from testbench_dagster.core.prompt import Answered
from testbench_dagster.core.task import MOST_PROBES, TaskSpec
from testbench_dagster.stages.configured_tasks import task_specs
from testbench_dagster.tasks.signatures import PAGES, Signatures, page_signature
from testbench_dagster.tasks.signatures.probes import (
    TEMPLATES,
    UNTIL,
    WORDS,
    draw_probes,
)
from testbench_dagster.tasks.sources import definition_state, source_state
from testbench_dagster.transports.payload import build_payload
from testbench_dagster_tests.tasks.layouts import REPOSITORY


def specs(folder: Path, *tasks: dict[str, Any], **blocks: Any) -> list[TaskSpec]:
    path = folder / "testbench.yaml"
    path.write_text(yaml.safe_dump({"tasks": list(tasks), **blocks}), encoding="utf-8")
    return task_specs(load_config(path))


def signature(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "framework": "signatures", **more}


# ------------------------------------------------------------------------------------------------ probes


def test_probes_follow_from_the_seed_alone() -> None:
    probes = draw_probes("seed", 200)
    assert probes == draw_probes("seed", 200) and len(set(probes)) == 200
    assert draw_probes("seed", 24) == probes[:24]
    assert not set(probes) & set(draw_probes("other", 200))


def test_there_are_over_a_hundred_million_probes() -> None:
    names = [set(re.findall(r"{(\w+)}", template)) for template in TEMPLATES]
    assert sum(prod(len(WORDS[name]) for name in each) for each in names) > 100_000_000
    assert all(len(set(words)) == len(words) for words in WORDS.values())
    assert set().union(*names) == WORDS.keys(), "every list is used"


def test_probes_are_spread_over_families_and_ordinary_to_read() -> None:
    probes = draw_probes("spread", 8_000)
    starts = [re.split(r" an? {|{", template)[0] for template in TEMPLATES]
    assert len(set(starts)) == len(TEMPLATES)
    families = Counter(start for probe in probes for start in starts if probe.startswith(start))
    assert len(families) == len(TEMPLATES) and min(families.values()) > 350
    for probe in probes:
        assert 40 < len(probe) < 180 and probe == probe.strip() and "{" not in probe
        assert not re.search(r"\b[Aa] [aeiou]|\b[Aa] hour|\ban [^aeiouh]", probe), probe


# ------------------------------------------------------------------------------------------------- pages


def test_what_says_nothing_about_the_model_is_left_out() -> None:
    here = {"config": {"_name_or_path": "/a/b", "size": 1}, "_name_or_path": "x"}
    there = {"config": {"size": 1, "_name_or_path": "hub/name"}, "_name_or_path": None}
    assert page_signature(json.dumps(here))[0] == page_signature(json.dumps(there))[0]
    other = {"config": {"size": 2, "_name_or_path": "/a/b"}, "_name_or_path": "x"}
    assert page_signature(json.dumps(here))[0] != page_signature(json.dumps(other))[0]


def test_the_huge_default_length_has_one_spelling() -> None:
    """transformers writes int(1e30); what re-serialises it may write 1e+30."""
    spellings = ["1000000000000000019884624838656", "1e30", "1e+30", "1.0E30"]
    found = {page_signature(f'{{"tokenizer_config": {{"model_max_length": {s}}}}}') for s in spellings}
    assert len(found) == 1
    assert json.loads(found.pop()[1]) == {"tokenizer_config": {"model_max_length": "1e+30"}}
    assert page_signature('{"model_max_length": 4096}')[1] == '{"model_max_length":"4096"}'


def test_signatures_are_the_sha256_of_what_is_shown() -> None:
    digest, canonical = page_signature('{"b": 1, "a": "\\u00e9"}')
    assert canonical == '{"a":"é","b":1}' and digest == hashlib.sha256(canonical.encode()).hexdigest()
    with pytest.raises(ValueError, match="no JSON object"):
        page_signature("[1]")


# --------------------------------------------------------------------------------------------- framework


def test_hashes_depend_on_what_is_asked_and_on_nothing_else(tmp_path: Path) -> None:
    def identity(**block: int) -> TaskSpec:
        (spec,) = specs(tmp_path, signature("identity"), identity=block)
        return spec

    usual = Signatures().register(identity())
    assert usual.splits == {"test": MOST_PROBES} and usual.data.flags.output_type == "generate_until"
    assert Signatures().register(identity(probe_days=9)) == usual
    hashes = {usual.task_hash}
    for block in ({"probes": 30}, {"probe_tokens": 20}):
        changed = identity(**block)
        hashes.add(Signatures().register(changed).task_hash)
        assert source_state(changed) != source_state(identity())
        assert definition_state(changed) == definition_state(identity())
    assert len(hashes) == 3
    pages = specs(tmp_path, signature("tokenizer"), signature("config"))
    assert len({Signatures().register(spec).task_hash for spec in pages} | hashes) == 5


@pytest.mark.parametrize(("api", "key"), [("chat", "messages"), ("completions", "prompt")])
def test_probes_are_short_deterministic_generations(tmp_path: Path, api: Any, key: str) -> None:
    (spec,) = specs(tmp_path, signature("identity"), identity={"probe_tokens": 9})
    data = Signatures().register(spec).data
    prompts = Signatures().build_prompts(spec, data, [5, 2], api, "seed")
    questions = draw_probes("seed", 24)
    assert [p.doc_id for p in prompts] == [5, 2]
    for prompt in prompts:
        (request,) = prompt.requests
        assert is_deterministic(request) and questions[prompt.doc_id] in str(request[key])
        _, payload = build_payload(request, api, "m")
        assert (payload["max_tokens"], payload["temperature"], payload["stop"]) == (9, 0.0, list(UNTIL))
        assert prompt.relayable and prompt.context_chars >= len(questions[prompt.doc_id])


def test_answers_are_signed_by_how_they_begin(tmp_path: Path) -> None:
    (spec,) = specs(tmp_path, signature("identity"))
    data = Signatures().register(spec).data
    texts = ["One  two\n" + "x" * 80, "One two " + "x" * 56 + "y", "One two", "  "]
    answers = [Answered(i, [{}], [[text]]) for i, text in enumerate(texts)]
    scores = list(Signatures().score(spec, data, answers))
    one, same, other, blank = (s.metrics["none"]["signature"] for s in scores)
    assert one == same == hashlib.sha256(b"One two " + b"x" * 56).hexdigest()
    assert len({one, other, blank}) == 3
    assert Signatures().aggregate(spec, data.flags, "signature", [one, other]) is None


def test_an_unreadable_page_is_an_error_of_its_doc(tmp_path: Path) -> None:
    (spec,) = specs(tmp_path, signature("config"))
    data = Signatures().register(spec).data
    bad, good = Signatures().score(
        spec, data, [Answered(0, [{}], [["no"]]), Answered(0, [{}], [['{"a":1}']])]
    )
    assert bad.error and not bad.metrics and good.error is None


# ----------------------------------------------------------------------------------------- configuration


def test_signatures_are_configured_by_name_and_framework(tmp_path: Path) -> None:
    found = specs(
        tmp_path,
        signature("identity"),
        signature("config", alias="mine"),
        {"name": "starter_logic"},
        identity={"probes": 12, "probe_tokens": 10, "probe_days": 2.5},
        planning={"max_age_days": 20},
        sampling={"window": 100},
    )
    identity, mine, logic = found
    assert (identity.framework, identity.leaf, identity.samples) == ("signatures", "identity", None)
    assert (identity.probes, identity.probe_tokens, identity.planning.max_age_days) == (12, 10, 2.5)
    assert (mine.name, mine.leaf, mine.probes, mine.planning.max_age_days) == ("mine", "config", None, 20)
    assert (logic.framework, logic.signs, identity.signs) == ("lm_eval", False, True)
    own = signature("identity", planning={"max_age_days": 1})
    assert specs(tmp_path, own)[0].planning.max_age_days == 1
    assert set(PAGES) == {"tokenizer", "config"}


@pytest.mark.parametrize(
    ("task", "said"),
    [
        (signature("gsm8k"), "'gsm8k' is no task of framework 'signatures'; name one of tokenizer, "),
        (
            {"name": "config", "framework": "helm"},
            "framework 'helm' is unknown; there are: lm_eval, ",
        ),
        (
            signature("config", num_fewshot=0),
            "num_fewshot means nothing to 'config' of framework",
        ),
        (signature("config", metric="acc"), "metric means nothing"),
        (signature("config", filter="none"), "filter means nothing"),
        (signature("config", data={"test": "x.jsonl"}), "data means nothing"),
        (signature("config", where={"a": "b"}), "where means nothing"),
        (signature("config", only=["x"]), "only means nothing"),
        (signature("identity", samples=10), "identity.probes says how many"),
        (signature("identity", samples="all"), "samples means nothing"),
        (signature("config", alias="a|b"), "cannot be a partition key"),
    ],
)
def test_what_cannot_be_is_refused_with_its_place(tmp_path: Path, task: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        specs(tmp_path, {"name": "starter_logic"}, task)
    assert said in str(raised.value)


def test_without_its_framework_a_signature_is_an_unknown_task(tmp_path: Path) -> None:
    _, unknown = specs(tmp_path, {"name": "starter_logic"}, {"name": "tokenizer"})
    assert unknown.problem is not None and unknown.problem.startswith("unknown task 'tokenizer'")


@pytest.mark.parametrize(
    ("gate", "said"),
    [
        ({"task": "config", "is": "equal", "value": 3}, "3 is a number, but 'config' is a signature"),
        ({"task": "config", "pass": 0.9, "fail": 0.7}, "the signature 'config' has no score to test"),
        ({"task": "starter_units", "is": "equal", "value": "abc"}, "is scored by a number"),
    ],
)
def test_gates_compare_signatures_with_texts_and_scores_with_numbers(
    tmp_path: Path, gate: dict[str, Any], said: str
) -> None:
    tasks = [signature("config"), {"name": "starter_units"}]
    with pytest.raises(ConfigError) as raised:
        specs(tmp_path, *tasks, {"name": "starter_logic", "planning": {"gates": [gate]}})
    assert said in str(raised.value) and "gates[0]" in str(raised.value)


def test_gates_on_signatures_may_ask_for_any_or_for_one(tmp_path: Path) -> None:
    gates = [
        {"task": "config", "is": "ok"},
        {"task": "config", "is": "present"},
        {"task": "config", "is": "equal", "value": "12" * 32},
    ]
    *_, logic = specs(tmp_path, signature("config"), {"name": "starter_logic", "planning": {"gates": gates}})
    assert [gate.condition for gate in logic.planning.gates] == ["ok", "present", "equal"]


def test_the_documented_example_loads(tmp_path: Path) -> None:
    text = (REPOSITORY / "docs" / "reference.md").read_text(encoding="utf-8")
    section = text.split("## Signatures\n")[1].split("\n## ")[0]
    (example,) = re.findall(r"```yaml\n(.*?)```", section, re.DOTALL)
    path = tmp_path / "testbench.yaml"
    path.write_text(example, encoding="utf-8")
    identity, config, gsm8k = task_specs(load_config(path))
    assert identity.signs and config.signs and gsm8k.planning.gates[0].task == "config"
