"""In which form a supplier takes requests is found within eight of them, whatever it refuses and says."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import product
from typing import Any

import pytest

from testbench_dagster.core.generation import AS_THE_TASK_SAYS, SupplierGeneration
from testbench_dagster.transports.payload import Api, build_payload
from testbench_dagster.transports.variants import MAX_TRIALS, Search

STOPS = ["A:", "B:", "C:", "D:", "E:", "F:"]


def questions(api: Api) -> list[dict[str, Any]]:
    prompt = {"messages": [{"role": "user", "content": "q"}]} if api == "chat" else {"prompt": "q"}
    return [
        {"type": "generate_until", "idx": 0, **prompt, "generation": {"until": until, "max_gen_toks": 8}}
        for until in ([], STOPS)
    ]


class Server:
    """Refuses parameters; ``says`` how: with the parameter's name as peers write it, or nothing."""

    def __init__(self, says: str, refuses: Mapping[str, Any]) -> None:
        self.says = says
        self.refuses = refuses

    def refusal(self, body: Mapping[str, Any]) -> bytes | None:
        """The error, or None where it answers."""
        wrong = next((name for name in self.refuses if self._is_wrong(name, body)), None)
        if wrong is None:
            return None
        if self.says == "param":
            return json.dumps({"error": {"message": "unsupported", "param": wrong}}).encode()
        if self.says == "detail":
            return json.dumps({"detail": [{"loc": ["body", wrong], "msg": "not permitted"}]}).encode()
        return b"bad request"

    def _is_wrong(self, name: str, body: Mapping[str, Any]) -> bool:
        if name == "temperature":
            return body.get("temperature", 1) != 1
        if name == "stop":
            stop = body.get("stop")
            most, takes_empty = self.refuses["stop"]
            return stop is not None and (len(stop) > most or (not stop and not takes_empty))
        return name in body


def searched(
    server: Server, api: Api, start: SupplierGeneration = AS_THE_TASK_SAYS
) -> tuple[Search, SupplierGeneration]:
    search = Search(questions(api), api, start)
    while (trial := search.next) is not None:
        request, generation = trial
        error = server.refusal(build_payload(request, api, "m", generation)[1])
        search.tell(answered=error is None, refused=error is not None, body=error or b"")
    assert search.trials <= MAX_TRIALS
    return search, search.wanted


LIMITS: list[dict[str, Any]] = [
    {},
    {"max_tokens": True},
    {"max_completion_tokens": True},
    {"max_tokens": True, "max_completion_tokens": True},
]
SINGLE: list[dict[str, Any]] = [
    {},
    {"temperature": True},
    {"seed": True},
    {"temperature": True, "seed": True},
]
STOP: list[dict[str, Any]] = [
    {},
    {"stop": (4, True)},
    {"stop": (4, False)},
    {"stop": (99, False)},
    {"stop": (1, False)},
    {"stop": (0, False)},
]


@pytest.mark.parametrize("says", ["param", "detail", "nothing"])
@pytest.mark.parametrize("api", ["chat", "completions"])
def test_every_server_is_understood(says: str, api: Api) -> None:
    for limit, single, stop in product(LIMITS, SINGLE, STOP):
        server = Server(says, {**limit, **single, **stop})
        search, wanted = searched(server, api)
        assert search.found, server.refuses
        for request in questions(api):
            assert server.refusal(build_payload(request, api, "m", wanted)[1]) is None, server.refuses
        if says != "nothing":  # then nothing is changed that was not refused
            assert (wanted.temperature == "omit") == ("temperature" in single), server.refuses
            assert (wanted.seed == "omit") == ("seed" in single), server.refuses
            assert (wanted.token_field != "max_tokens") == ("max_tokens" in limit), server.refuses
            assert stop or wanted.stop is None


@pytest.mark.parametrize(
    ("refuses", "wanted"),
    [
        ({"max_tokens": True}, SupplierGeneration(token_field="max_completion_tokens", stop=4)),
        ({"temperature": True}, SupplierGeneration(temperature="omit", stop=4)),
        ({"seed": True}, SupplierGeneration(seed="omit", stop=4)),
        ({"stop": (4, True)}, SupplierGeneration(stop=4)),
    ],
)
def test_where_a_refusal_names_nothing_what_need_not_be_left_out_is_put_back(
    refuses: dict[str, Any], wanted: SupplierGeneration
) -> None:
    assert searched(Server("nothing", refuses), "completions")[1] == wanted


def test_a_server_that_refuses_nothing_is_asked_twice_and_nothing_is_changed() -> None:
    search, wanted = searched(Server("nothing", {}), "chat")
    assert (search.trials, search.found, wanted) == (2, True, AS_THE_TASK_SAYS)


def test_one_question_does_where_no_more_may_be_asked() -> None:
    for refuses, wanted in (({}, {}), ({"seed": True}, {"seed": "omit"})):
        server = Server("param", refuses)
        search = Search(questions("chat")[:1], "chat", AS_THE_TASK_SAYS)
        while (trial := search.next) is not None:
            error = server.refusal(build_payload(trial[0], "chat", "m", trial[1])[1])
            search.tell(answered=error is None, refused=error is not None, body=error or b"")
        assert search.found and search.wanted.settings() == wanted
        assert search.trials == 1 + len(refuses)


def test_settings_that_are_there_stay() -> None:
    start = SupplierGeneration(budget=100, effort="low", extra_body={"a": 1}, temperature=0.6)
    search, wanted = searched(Server("param", {"max_tokens": True, "seed": True}), "chat", start)
    assert search.found
    assert wanted.settings() == {
        "token_field": "max_completion_tokens",
        "budget": 100,
        "effort": "low",
        "temperature": 0.6,
        "seed": "omit",
        "extra_body": {"a": 1},
    }


def test_who_refuses_everything_is_given_up_within_the_bound() -> None:
    class Never(Server):
        def refusal(self, body: Mapping[str, Any]) -> bytes | None:
            return b"'temperature' 'seed' 'stop' 'max_tokens'"

    search, _ = searched(Never("nothing", {}), "completions")
    assert not search.found and search.trials <= MAX_TRIALS


def test_what_is_no_refusal_of_the_form_ends_it() -> None:
    search = Search(questions("chat"), "chat", AS_THE_TASK_SAYS)
    search.tell(answered=False, refused=False, body=b"")
    assert search.done and not search.found and search.next is None
    with pytest.raises(RuntimeError):
        search.tell(answered=True, refused=False, body=b"")
