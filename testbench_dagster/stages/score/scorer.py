"""Scores a batch of answers whatever one of them, or the service that a metric asks, does to the scorer.

An answer may keep a filter busy for ever, kill the worker, or be more than a metric can digest: then it is
looked at alone, and whether it is its doing shows the scorer at an empty answer to the same doc.

A metric may also ask a service (a judge, an embedding server), which may be gone. Whether it is must not be
for an answer to say: it is believed gone where answers that nobody gave meet the same, at two docs. Else it
is that answer's doing: it is tried again, and counts as open until it is scored.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from testbench_dagster.core.prompt import Answered, DocScore, TaskData
from testbench_dagster.core.records.scores import UNSCORABLE
from testbench_dagster.core.task import TaskSpec
from testbench_dagster.tasks.frameworks import Framework
from testbench_dagster.tasks.worker import WorkerStopped, WorkerTimeout

SECONDS_PER_CALL = 30.0  # includes starting the worker on a busy machine
_SECONDS_PER_DOC = 0.5
_PARTS = 8  # into which a batch is cut when it cannot be scored in time
_STRIKES = 3  # answers of one supplier and task that had to be stopped before the rest is put off
_DOCS_WITHOUT_SERVICE = 2  # at so many docs it has to be gone for answers that nobody gave

Item = tuple[int, str, Answered]
"""An answer with its number in the batch and its supplier."""


class Service:
    """What was seen of the service that a metric asks, if it asks one."""

    def __init__(self, framework: Framework, spec: TaskSpec, data: TaskData) -> None:
        self._framework, self._spec, self._data = framework, spec, data
        self._at: dict[int, bool | None] = {}
        self.reason: str | None = None
        #: It was waited for in vain, which took minutes; else it fails at once.
        self.hangs = False

    @property
    def gone(self) -> bool:
        """Whether it is gone for everybody."""
        return sum(seen is False for seen in self._at.values()) >= _DOCS_WITHOUT_SERVICE

    def there(self, answer: Answered, error: str) -> bool | None:
        """Whether answers to a doc that no supplier gave find it there; None where they say nothing.

        ``error`` is what the supplier's answer met.
        """
        if answer.doc_id not in self._at:
            self._at[answer.doc_id] = self._seen(answer)
        if self._at[answer.doc_id] is not True:
            self.reason = error
        return self._at[answer.doc_id]

    def _seen(self, answer: Answered) -> bool | None:
        try:
            probes = self._framework.score_probes(self._spec, self._data, answer, timeout_s=SECONDS_PER_CALL)
        except WorkerStopped as error:
            waited = isinstance(error, WorkerTimeout) and error.waited
            self.hangs = self.hangs or waited
            return False if waited else None
        if any(probe.unavailable for probe in probes):
            return False
        return True if any(probe.error is None for probe in probes) else None


class Scorer:
    """Scores one batch of a task.

    ``found`` are the scores by number, ``again`` the outcomes of answers that are to be tried again and count
    as open meanwhile, ``open`` the errors of which it remains open whose fault they are. ``waiting`` are the
    numbers that wait for the service. ``strikes`` counts the answers of a supplier that had to be stopped.
    ``hangs`` says why the scorer is given up: it comes to no end at empty answers either.
    """

    def __init__(self, framework: Framework, spec: TaskSpec, data: TaskData, strikes: Counter[str]) -> None:
        self._framework, self._spec, self._data, self._strikes = framework, spec, data, strikes
        self._provokers: set[str] = set()
        self._hanging = 0  # docs at which an empty answer stops the worker, too
        self._looked = False  # at empty answers, when a batch was stopped for the first time
        self.hangs: str | None = None
        self.service = Service(framework, spec, data)
        self.found: dict[int, DocScore] = {}
        self.again: dict[int, DocScore] = {}
        self.open: dict[int, str] = {}
        self.waiting: list[int] = []

    def score(self, items: Sequence[Item]) -> None:
        """Score some answers; each ends in one of the results, or is left to a later call."""
        left = list(items)
        while left := self._not_struck(left):
            if self._hanging >= _DOCS_WITHOUT_SERVICE:
                told = "put off: the scorer does not come to an end at empty answers either"
                self.hangs = self.hangs or told.removeprefix("put off: ")
                self.open |= {number: told for number, _, _ in left}
                return
            if self.service.gone:
                self.waiting += [number for number, _, _ in left]
                return
            limit = SECONDS_PER_CALL + _SECONDS_PER_DOC * len(left)
            try:
                scores = self._framework.score(
                    self._spec, self._data, [answer for _, _, answer in left], timeout_s=limit
                )
            except WorkerStopped as error:
                if not error.parts and not self._looked:
                    self._looked = True
                    self._look(left, error)
                    if self._hanging >= _DOCS_WITHOUT_SERVICE or self.service.gone:
                        continue
                self._take(left, error.parts)
                rest = left[len(error.parts) :]
                if isinstance(error, WorkerTimeout) and error.waited and rest:
                    innocent = self._unavailable(rest[0], str(error))
                    rest = rest[1:]
                    if innocent and not error.parts:
                        self._in_parts(rest)
                        return
                elif len(rest) == 1:
                    self._alone(rest[0], str(error))
                    return
                elif error.parts:
                    self.score(rest[:1])  # what the results stopped before
                    rest = rest[1:]
                else:
                    self._in_parts(rest)
                    return
                left = rest
            else:
                left = self._take(left, scores)

    def _not_struck(self, items: list[Item]) -> list[Item]:
        """Without those of suppliers whose answers were stopped too often."""
        kept = []
        for item in items:
            number, supplier, answer = item
            if self._strikes[supplier] < _STRIKES:
                kept.append(item)
            elif supplier in self._provokers:
                told = "put off: others of its supplier make the service of the scorer fail"
                self.again[number] = DocScore(answer.doc_id, error=told)
        return kept

    def _look(self, items: Sequence[Item], error: WorkerStopped) -> None:
        """Whether no answer at all can be scored, before each is tried: that would take minutes and more.

        At the first two docs, by answers that no supplier gave.
        """
        docs = {item[2].doc_id: item[2] for item in items}
        waited = isinstance(error, WorkerTimeout) and error.waited
        for answer in list(docs.values())[:_DOCS_WITHOUT_SERVICE]:
            if waited:
                if self.service.there(answer, str(error)) is not False:
                    return
            elif self._digests_empty(answer):
                return
            else:
                self._hanging += 1

    def _digests_empty(self, answer: Answered) -> bool:
        """Whether scoring an empty answer comes to an end."""
        try:
            self._framework.score_empty(self._spec, self._data, [answer], timeout_s=SECONDS_PER_CALL)
        except WorkerStopped:
            return False
        return True

    def _in_parts(self, items: Sequence[Item]) -> None:
        """Score the answers in smaller batches: by supplier, then an eighth each."""
        suppliers = dict.fromkeys(supplier for _, supplier, _ in items)
        if len(suppliers) > 1:
            parts = [[item for item in items if item[1] == supplier] for supplier in suppliers]
        else:
            size = max(1, -(-len(items) // _PARTS))
            parts = [list(items[start : start + size]) for start in range(0, len(items), size)]
        for part in parts:
            self.score(part)

    def _take(self, items: Sequence[Item], scores: Sequence[DocScore]) -> list[Item]:
        """Note what came of the first of some answers; return those of them that were not tried."""
        untried = []
        for item, score in zip(items, scores, strict=False):
            if score.error is None:
                self.found[item[0]] = score
            elif not score.tried:
                untried.append(item)
            elif score.unavailable:
                self._unavailable(item, score.error)
            else:
                self._alone(item, score.error)
        return untried

    def _unavailable(self, item: Item, error: str) -> bool:
        """An answer for which the service was not there; returns whether it was scored on a second try."""
        number, _, answer = item
        there = None if self.service.gone else self.service.there(answer, error)
        if there is not True:
            self.waiting.append(number)
            return False
        again = self._once_more(answer)
        if again.error is None:
            self.found[number] = again
            return True
        if again.unavailable:
            self._provoked(item, again.error)
        else:
            self._alone(item, again.error)
        return False

    def _provoked(self, item: Item, error: str) -> None:
        """An answer that makes the service fail, which is there for others.

        It is open, and this alone never closes it: a service that comes and goes looks the same.
        """
        number, supplier, answer = item
        self._strikes[supplier] += 1
        self._provokers.add(supplier)
        told = "the service of the scorer fails at this answer and at no other to the doc"
        self.again[number] = DocScore(answer.doc_id, error=f"{told}: {error}")

    def _once_more(self, answer: Answered) -> DocScore:
        try:
            (again,) = self._framework.score(self._spec, self._data, [answer], timeout_s=SECONDS_PER_CALL)
        except WorkerStopped as stopped:
            waited = isinstance(stopped, WorkerTimeout) and stopped.waited
            return DocScore(answer.doc_id, error=str(stopped), unavailable=waited, stopped=not waited)
        return again

    def _alone(self, item: Item, error: str) -> None:
        """What an answer comes to that could not be scored by itself; a worker it killed is a fresh one now.

        ``unscorable`` is what cannot be scored again, although the same scorer digests an empty answer. Where
        it does not digest that either, the trouble may be the doc's or the scorer's: it is left open. A page
        is what a supplier says of itself, and has no such second try.
        """
        number, supplier, answer = item
        # without any answer the worker must be well, or the trouble is not the answer's and fails the task
        self._framework.score(self._spec, self._data, [], timeout_s=SECONDS_PER_CALL)
        if self._spec.signs:
            self.found[number] = DocScore(answer.doc_id, error=error)
            return
        try:
            (empty,) = self._framework.score_empty(
                self._spec, self._data, [answer], timeout_s=SECONDS_PER_CALL
            )
        except WorkerStopped:
            self.open[number] = error
            self._hanging += 1
            return
        if empty.error is not None:
            self.open[number] = error
            return
        again = self._once_more(answer)
        if again.unavailable and again.error is not None:
            if self.service.there(answer, again.error) is True:
                self._provoked(item, again.error)
            else:
                self.waiting.append(number)
            return
        self._strikes[supplier] += again.stopped
        if again.error is not None:
            again = DocScore(answer.doc_id, error=f"{UNSCORABLE}{again.error}")
        self.found[number] = again
