"""Finding out in which form a supplier takes requests for texts: what to try next, and when to stop.

Pure: whoever sends says what came of each trial (:meth:`Search.tell`). A refusal that names a parameter is
believed first. Where none is named, or that does not help, everything is left out at once, and what need not
be left out is put back, one setting at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from testbench_dagster.core.generation import SupplierGeneration
from testbench_dagster.transports.payload import Api, build_payload
from testbench_dagster.transports.refusals import named_parameters

#: Most requests a search may take, those that began it included.
MAX_TRIALS = 8
#: How many stop strings are tried where a supplier refuses as many as were sent.
STOPS = (4, 2, 1, "client")
#: After so many trials one parameter at a time no longer fits into what may be sent.
_HINTED_TRIALS = 5
_LIMITS = ("max_tokens", "max_completion_tokens")


@dataclass
class Search:
    """Looks for settings with which a supplier answers some requests; each trial is told what came of it.

    ``requests`` are what it has to answer, one after the other. ``wanted`` are the settings as far as known,
    and at the end those found; ``done`` and then ``found`` tell how it ended.
    """

    requests: Sequence[Mapping[str, Any]]
    api: Api
    wanted: SupplierGeneration
    done: bool = False
    found: bool = False
    trials: int = 0
    _answered: int = 0  # requests that are answered with what is wanted
    _trying: SupplierGeneration | None = None
    _base: SupplierGeneration | None = None  # as it was configured, to put back from
    _blind: Iterator[SupplierGeneration] | None = None
    _restoring: list[str] = field(default_factory=list)
    _refused: list[SupplierGeneration] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._base = self.wanted
        self._trying = self.wanted

    @property
    def next(self) -> tuple[Mapping[str, Any], SupplierGeneration] | None:
        """What to send next, with which settings; None once it is done."""
        if self.done or self._trying is None:
            return None
        return self.requests[min(self._answered, len(self.requests) - 1)], self._trying

    def tell(self, *, answered: bool, refused: bool, body: bytes) -> None:
        """What came of the last trial: an answer, a refusal of its form, or something else, which ends it."""
        if self.done or self._trying is None:
            raise RuntimeError("the search is over")
        self.trials += 1
        tried = self._trying
        if not answered and not refused:
            self._end(found=False)
        elif answered:
            self._accept(tried)
        else:
            self._refuse(tried, body)
        if not self.done and self.trials >= MAX_TRIALS:
            self._end(found=self._answered >= len(self.requests))

    def _end(self, *, found: bool) -> None:
        self.done, self.found, self._trying = True, found, None

    def _accept(self, tried: SupplierGeneration) -> None:
        self.wanted = tried
        if self._answered < len(self.requests):
            self._answered += 1
        if self._blind is not None:  # everything was left out: what need not be is put back in the end
            self._blind = None
            self._restoring = ["stop", "seed", "temperature", "token_field"]
        if self._answered < len(self.requests):
            self._trying = tried
        else:
            self._restore()

    def _restore(self) -> None:
        """Put the next setting back, as it was or nearly so; once all were tried it is over."""
        while self._restoring:
            name = self._restoring.pop(0)
            before = getattr(self._base, name)
            if name == "stop" and before is None:
                before = STOPS[0]  # never an empty list, which is what may have been refused
            back = replace(self.wanted, **{name: before})
            if back != self.wanted and back not in self._refused:
                self._trying = back
                return
        self._end(found=True)

    def _refuse(self, tried: SupplierGeneration, body: bytes) -> None:
        self._refused.append(tried)
        if self._answered >= len(self.requests):  # what was put back is refused
            self._restore()
            return
        if self._blind is None:
            in_time = self._answered or self.trials < _HINTED_TRIALS
            for changed in self._hinted(tried, body):
                if in_time and changed not in self._refused:
                    self._trying = changed
                    return
            self._blind = _left_out(tried)
        for changed in self._blind:
            if changed not in self._refused:
                self._trying = changed
                return
        self._end(found=False)

    def _hinted(self, tried: SupplierGeneration, body: bytes) -> Iterator[SupplierGeneration]:
        """Settings without what a refusal names."""
        request = self.requests[self._answered]
        sent = build_payload(request, self.api, "", tried)[1]
        named = named_parameters(body, [*_LIMITS, "temperature", "seed", "stop"])
        # of several limits the one that was sent is meant; a message may name both
        named = [name for name in named if name in sent] or named
        if self._answered and not named:
            named = ["stop"]  # the one thing in which this request differs from the one that was answered
        for name in named:
            if name in _LIMITS:
                yield from _other_limits(tried, sent)
            elif name in ("temperature", "seed") and name in sent:
                yield replace(tried, **{name: "omit"})  # type: ignore[arg-type]  # both may be omitted
            elif name == "stop" and name in sent:
                if self.trials == MAX_TRIALS - 1:  # the last one: none is certainly few enough
                    yield replace(tried, stop="client")
                yield from _fewer_stops(tried, sent["stop"])


def _left_out(tried: SupplierGeneration) -> Iterator[SupplierGeneration]:
    """Settings that leave out all that may be refused; of the limit first the name, then all of it."""
    bare = replace(tried, temperature="omit", seed="omit", stop="client")
    yield bare
    for name in ("max_completion_tokens", "max_tokens", "omit"):
        if name != bare.token_field:
            yield replace(bare, token_field=name)


def _other_limits(tried: SupplierGeneration, sent: Mapping[str, Any]) -> Iterator[SupplierGeneration]:
    if "max_tokens" in sent:
        yield replace(tried, token_field="max_completion_tokens")  # noqa: S106  no secret
    elif "max_completion_tokens" in sent and tried.budget == 0:
        yield replace(tried, token_field="max_tokens")  # noqa: S106  no secret
    yield replace(tried, token_field="omit")  # noqa: S106  no secret


def _fewer_stops(tried: SupplierGeneration, sent: Sequence[str]) -> Iterator[SupplierGeneration]:
    """With fewer stop strings than were sent; of none at all, with no empty list."""
    for stops in STOPS:
        if stops == "client" or not sent or int(stops) < len(sent):
            yield replace(tried, stop=stops)  # type: ignore[arg-type]  # a number, or client
