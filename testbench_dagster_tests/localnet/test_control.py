"""The control API: who is there, what answers, what fails and how high the chain is, while it runs."""

import asyncio
import json
import time
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import aiohttp
import pytest
from click.testing import CliRunner

from testbench_dagster.cli import cli
from testbench_dagster.localnet.answers import Answers
from testbench_dagster.localnet.control import BlockClock
from testbench_dagster.localnet.personas import Backend, Persona
from testbench_dagster.localnet.run import LocalnetError, LocalnetProcess, control
from testbench_dagster.localnet.server import Localnet
from testbench_dagster.localnet.supplier import prompt_digest
from testbench_dagster.tasks.starter.loader import read_docs

GOOD = Backend("good", 1.0, latency_ms=0)
DOCS = read_docs("starter_reading", "test")[:8]


def question(doc):
    return f"Question: {doc['question']}\nAnswer:"


@asynccontextmanager
async def running(*personas, **options):
    async with Localnet(personas, Answers(0), **options) as net, aiohttp.ClientSession() as session:

        async def control(action, **fields):
            async with session.post(f"{net.url}/control/{action}", json=fields) as response:
                return response.status, await response.json()

        async def ask(address, doc=DOCS[0]):
            body = {"messages": [{"role": "user", "content": question(doc)}]}
            async with session.post(f"{net.url}/{address}/v1/chat/completions", json=body) as response:
                return response.status, await response.json()

        async def get(path):
            async with session.get(net.url + path) as response:
                return response.status, await response.json()

        yield net, control, ask, get


def text(answer):
    return answer[1]["choices"][0]["message"]["content"]


def test_joining_leaving_and_returning():
    async def scenario():
        async with running(Persona("a", GOOD)) as (net, control, ask, get):

            async def present():
                return [s["address"] for s in (await get("/roster"))[1]["suppliers"]]

            status, joined = await control("join")
            assert status == 200
            assert joined == {
                "address": "sim-02", "service": "simulation", "api": "chat", "simulation": True,
                "base_url": f"{net.url}/sim-02/v1", "model": "simulated-model-of-sim-02",
            }  # fmt: skip
            assert (await control("join", address="b", api="completions", latency_ms=0))[1][
                "api"
            ] == "completions"
            assert await present() == ["a", "sim-02", "b"]
            assert (await ask("sim-02"))[0] == 200

            assert (await control("leave", address="a"))[0] == 200
            assert await present() == ["sim-02", "b"]
            assert (await ask("a"))[0] == 503
            assert (await get("/a/v1/models"))[0] == 503
            stats = (await get("/stats"))[1]["suppliers"]
            assert (stats["a"]["present"], stats["a"]["requests"], stats["a"]["failed"]) == (
                False,
                2,
                {"left": 2},
            )
            assert (await control("return", address="a"))[0] == 200
            assert await present() == ["a", "sim-02", "b"]
            assert (await ask("a"))[0] == 200

    asyncio.run(scenario())


def test_a_known_backend_makes_a_twin():
    async def scenario():
        async with running(Persona("a", Backend("half", 0.5, latency_ms=0))) as (_, control, ask, _):
            await control("join", address="twin", backend="half", latency_ms=0)
            await control("join", address="other", accuracy=0.5, latency_ms=0)
            return [[text(await ask(who, doc)) for doc in DOCS] for who in ("a", "twin", "other")]

    own, twin, other = asyncio.run(scenario())
    assert own == twin != other


def test_silent_and_announced_swaps():
    async def scenario():
        async with running(Persona("a", GOOD), Persona("b", GOOD)) as (_, control, ask, get):
            seen = {}
            for step, fields in {
                "before": None,
                "silent": {"accuracy": 0.0},
                "announced": {"backend": "wrong", "accuracy": 0.0, "announce": True},
                "back": {"backend": "good", "announce": True},
            }.items():
                if fields:
                    assert (await control("swap", address="a", **fields))[0] == 200
                answers = [await ask("a", doc) for doc in DOCS]
                right = sum(d["answer"] in text(a) for d, a in zip(DOCS, answers, strict=True))
                listed = (await get("/roster"))[1]["suppliers"][0]["model"]
                seen[step] = (right, {a[1]["model"] for a in answers}, listed)
            backends = [r["backend"] for r in (await get("/requests?address=a"))[1]["requests"]]
            assert (await ask("b"))[1]["model"] == "simulated-good"
            return seen, backends

    seen, backends = asyncio.run(scenario())
    good, wrong = "simulated-good", "simulated-wrong"
    assert seen == {
        "before": (8, {good}, good), "silent": (0, {good}, good),
        "announced": (0, {wrong}, wrong), "back": (8, {good}, good),
    }  # fmt: skip
    assert backends == ["good"] * 8 + ["good-at-0"] * 8 + ["wrong"] * 8 + ["good"] * 8


def test_answers_are_kept_back_by_a_rule_until_that_is_taken_back():
    async def scenario():
        async with running(Persona("a", Backend("bad", 0.0, latency_ms=0))) as (_, control, ask, _):
            rule = {"how": ["500", "answer"], "only": "starter_reading"}
            statuses = [(await control("withhold", address="a", **rule))[0]]
            statuses += [(await ask("a", DOCS[0]))[0] for _ in range(3)]
            await control("withhold", address="a")
            return [*statuses, (await ask("a", DOCS[0]))[0]]

    assert asyncio.run(scenario()) == [200, 500, 200, 500, 200]


def test_failures_begin_and_end_and_all_is_logged():
    async def scenario():
        async with running(Persona("a", GOOD)) as (_, control, ask, get):
            statuses = [(await ask("a", DOCS[0]))[0]]
            await control("fail", address="a", mode="429", rate=1)
            statuses.append((await ask("a", DOCS[1]))[0])
            await control("fail", address="a", rate=0)
            statuses.append((await ask("a", DOCS[1]))[0])
            await control("leave", address="a")
            statuses.append((await ask("a", DOCS[1]))[0])
            return statuses, (await get("/requests?address=a"))[1], (await get("/stats"))[1]["suppliers"]["a"]

    statuses, log, stats = asyncio.run(scenario())
    assert statuses == [200, 429, 200, 503]
    assert [r["outcome"] for r in log["requests"]] == ["ok", "429", "ok", "left"]
    expected = [prompt_digest([question(DOCS[n])]).hex() for n in (0, 1, 1)]
    assert [r["digest"] for r in log["requests"]] == [*expected, ""]
    assert log["forgotten"] == 0
    times = [datetime.fromisoformat(r["at"]) for r in log["requests"]]
    assert times == sorted(times) and datetime.now(UTC) - times[0] < timedelta(minutes=1)
    hours = [f"{at:%Y-%m-%dT%H}" for at in times]
    assert stats["by_hour"] == {hour: hours.count(hour) for hour in hours}
    assert stats["by_day"] == {hour[:10]: sum(h[:10] == hour[:10] for h in hours) for hour in hours}
    assert stats["requests"] == sum(stats["by_day"].values()) == 4


def test_heights_are_told_once_there_are_any():
    async def scenario():
        async with running(Persona("a", GOOD)) as (_, control, _, get):
            assert "height" not in (await get("/roster"))[1]
            for height in (90, 70):
                assert await control("height", height=height) == (200, {"height": height})
                assert (await get("/roster"))[1]["height"] == height

    asyncio.run(scenario())


def test_a_block_clock_counts_up(monkeypatch):
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    clock = BlockClock(2.0)
    seen = [clock.height]
    now = 103.9
    seen.append(clock.height)
    clock.set(50)
    now = 106.0
    seen.append(clock.height)
    assert seen == [1, 2, 51]
    with pytest.raises(ValueError, match="want more than 0"):
        BlockClock(0)


def test_all_models_learn_questions_and_answer_them_as_well_as_others():
    async def scenario():
        bad = Backend("bad", 0.0, latency_ms=0)
        async with running(Persona("a", GOOD), Persona("b", bad)) as (_, control, ask, _get):
            drawn = {"question": "What was drawn just now?"}
            before = text(await ask("a", drawn))
            known = {
                "text": question(drawn),
                "answer": "<answer>this</answer>",
                "wrong": ["<answer>that</answer>"],
            }
            assert await control("learn", questions=[known]) == (200, {"learnt": 1})
            assert "<answer>" not in before
            assert "<answer>this</answer>" in text(await ask("a", drawn))
            assert "<answer>that</answer>" in text(await ask("b", drawn))
            other = text(await ask("a", {"question": "What was drawn before?"}))
            assert "<answer>" not in other

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("action", "fields", "said"),
    [
        ("explode", {}, "no action 'explode'; there are: join, leave"),
        ("join", {"address": "a"}, "address 'a' is taken; choose another"),
        ("join", {"address": "gone"}, "address 'gone' is taken; let it return"),
        ("join", {"address": "stats"}, "address 'stats' is a page"),
        ("join", {"address": "a/b"}, "address must be 1 to 64 letters"),
        ("join", {"address": 7}, "address must be"),
        ("join", {"api": "grpc"}, "api must be one of: chat, completions"),
        ("join", {"accuracy": 1.5}, "accuracy must be a number from 0 to 1"),
        ("join", {"accuracy": True}, "accuracy must be a number"),
        ("join", {"latency_ms": -1}, "latency_ms must be"),
        ("join", {"backend": "good", "accuracy": 0.2}, "accuracy 0.2 differs from that of backend 'good', 1"),
        ("join", {"colour": 1}, "colour is no field of this action; it takes: address, backend"),
        ("leave", {}, "address must be given"),
        ("return", {"address": "nobody"}, "address 'nobody' is nobody's"),
        ("swap", {"address": "a"}, "backend or accuracy must be given"),
        ("swap", {"address": "a", "accuracy": 0.5, "announce": "yes"}, "announce must be true or false"),
        ("fail", {"address": "a", "mode": "boom"}, "mode must be one of: 500, 503, 429"),
        ("fail", {"address": "a", "rate": 2}, "rate must be a number from 0 to 1"),
        ("withhold", {"address": "a", "how": ["boom"]}, "how must be a list of: 500, 503, 429"),
        ("withhold", {"address": "a", "how": ["500"], "when": "ever"}, "when must be one of: always, wrong"),
        ("withhold", {"address": "a", "how": ["400"], "when": "parameter"}, "names it"),
        ("learn", {}, "questions must be given"),
        ("learn", {"questions": "x"}, "questions must be a list of objects"),
        ("learn", {"questions": [{}] * 1001}, "questions has 1001 objects; give at most 1000"),
        ("learn", {"questions": [{"answer": "1", "wrong": ["2"]}]}, "each needs a text"),
        ("learn", {"questions": [{"text": "?", "answer": "1"}]}, "each needs wrong, a list"),
        ("height", {"height": 1.5}, "height must be a whole number"),
        ("height", {}, "height must be given"),
    ],
)
def test_bad_input_names_the_field_and_changes_nothing(action, fields, said):
    async def scenario():
        async with running(Persona("a", GOOD), Persona("gone", GOOD)) as (net, control, _, get):
            await control("leave", address="gone")
            before = await get("/roster")
            status, body = await control(action, **fields)
            assert await get("/roster") == before
            async with aiohttp.ClientSession() as session:
                for raw in (b"[]", b"{"):
                    post = session.post(
                        f"{net.url}/control/leave", data=raw, headers={"Content-Type": "application/json"}
                    )
                    async with post as response:
                        assert response.status == 400
                async with session.post(f"{net.url}/control/leave", data=b'{"address": "a"}') as response:
                    assert response.status == 400, "a form of a browser"
                async with session.get(f"{net.url}/requests?address=nobody") as response:
                    assert response.status == 400
            assert await get("/roster") == before
            return status, body["error"]["message"]

    status, message = asyncio.run(scenario())
    assert status == 400
    assert said in message


def test_the_process_is_controlled_from_python_and_from_the_command_line():
    with LocalnetProcess(suppliers=2, block_seconds=3600) as net:
        runner = CliRunner()

        def run(*arguments):
            return runner.invoke(cli, ["localnet", "control", *arguments, "--url", net.url])

        assert net.join("x", backend="mine", api="completions", accuracy=0.25, latency_ms=1)["address"] == "x"
        net.leave("sim-01")
        assert [s["address"] for s in net.roster()] == ["sim-02", "x"]
        net.return_("sim-01")
        assert net.swap("x", accuracy=0.9, announce=True)["model"] == "simulated-mine-at-0.9"
        net.fail("x", "500", 0.5)
        net.withhold("x", "500", "filter", when="ahead", after=5)
        net.withhold("x")
        net.set_height(12)
        assert net.requests("x") == []
        with pytest.raises(LocalnetError, match="HTTP 400: rate must be a number"):
            net.fail("x", "500", 3)

        done = run("swap", "address=x", "accuracy=0.1", "announce=true")
        assert (done.exit_code, json.loads(done.stdout)["model"]) == (0, "simulated-mine-at-0.9-at-0.1")
        # as the help says it: yaml reads 500 as a number
        done = run("fail", "address=x", "mode=500", "rate=0.5")
        assert (done.exit_code, json.loads(done.stdout)["failures"]) == (0, {"500": 0.5})
        done = run("withhold", "address=x", "how=[500, answer]", "when=wrong")
        assert (done.exit_code, json.loads(done.stdout)["withholds"]) == (0, ["500", "answer"])
        assert run("fail", "address=x", "mode=true").exit_code == 1
        assert run("leave", "x").exit_code == 2
        failed = run("leave", "address=nobody")
        assert failed.exit_code == 1 and "nobody's" in str(failed.exception)
        url = net.url
    with pytest.raises(LocalnetError, match="does not answer"):
        control(url, "join", {})


def test_tools_are_used_as_told_and_a_quantised_twin_may_join():
    async def scenario():
        async with running(Persona("a", GOOD)) as (net, control, _, _):
            assert (await control("join", address="b", tools="no_tools"))[0] == 200
            assert net.suppliers["b"].persona.tool_use == "no_tools"
            status, told = await control("tools", address="b", kind="bad_json")
            assert (status, told["tools"]) == (200, "bad_json")
            assert net.suppliers["b"].persona.tool_use == "bad_json"
            status, told = await control("join", address="c", backend="good", quantised=True)
            assert (status, told["model"]) == (200, "simulated-good")
            assert net.suppliers["c"].persona.backend.base == GOOD
            for action, fields, said in (
                ("tools", {"address": "b", "kind": "great"}, "kind must be one of: good, no_tools"),
                ("join", {"tools": "great"}, "tools must be one of"),
                ("join", {"backend": "good-quantised", "quantised": True}, "name the one that it is made of"),
            ):
                status, told = await control(action, **fields)
                assert status == 400 and said in told["error"]["message"]

    asyncio.run(scenario())
