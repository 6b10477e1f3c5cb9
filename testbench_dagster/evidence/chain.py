"""The chain of hashes and ids that ties a bundle together, checked record by record.

Doc text → doc hash → fingerprint of the dataset → task hash → prompt id → attempt id → answer id → score id;
the request as sent → its hash; the raw answer → what it was classified as; of a relay on a Pocket network the
raw answer → the supplier's signature, by the key its address was made from. A record that was changed,
dropped or made up breaks a link and is named.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import orjson

from testbench_dagster.core.answer_hash import answer_hash
from testbench_dagster.core.answer_prefix import is_deterministic, prefix_of_answer
from testbench_dagster.core.faults import Fault
from testbench_dagster.core.generation import AS_THE_TASK_SAYS, generation_of
from testbench_dagster.core.records.attempts import AttemptRecord
from testbench_dagster.core.records.prompts import PromptRecord
from testbench_dagster.core.records.scores import ScoreRecord
from testbench_dagster.core.sampling import asked_order
from testbench_dagster.core.versions import CLASSIFIER, PAYLOADS
from testbench_dagster.evidence.facts import SupplierFacts, TaskFacts
from testbench_dagster.evidence.report import Finding
from testbench_dagster.stores.documents import content_hash, document_id
from testbench_dagster.stores.migrations import FIRST_CLASSIFIER
from testbench_dagster.transports.payload import RequestError, as_stream, build_payload
from testbench_dagster.transports.readings import reading_of
from testbench_dagster.transports.registry import shown, signature
from testbench_dagster.transports.stored import BadSignature, Unsigned

#: Version of what built the requests of attempts that do not name it.
FIRST_PAYLOADS = 1
_FAULTS = frozenset(fault.value for fault in Fault)

Add = Callable[[Finding], None]


class Chain:
    """Checks the records of a bundle; hand it docs, prompts, attempts and scores in this order."""

    def __init__(self, supplier: SupplierFacts, tasks: Mapping[str, TaskFacts], add: Add) -> None:
        self._supplier = supplier
        self._tasks = tasks
        self._add = add
        self._orders: dict[tuple[str, int], list[int] | None] = {}
        self._seen = {name: (Counter[int](), Counter[int]()) for name in tasks}
        self._numbers: dict[tuple[str, int, str, int, int, int], set[int]] = {}
        self.unproven_requests = 0
        self.witnessed = 0
        #: Attempts that another classifier judged: by its number how many, and by task which.
        self.otherwise_classified: Counter[int] = Counter()
        #: Of these, by its number, the fault it gave and the one that the answer shows here, how many differ.
        self.classified_anew: Counter[tuple[int, str, str]] = Counter()
        self.unjudged: dict[str, set[str]] = {name: set() for name in tasks}
        #: Attempts whose request another version built, otherwise than here: by its number, and by task.
        self.otherwise_built: Counter[int] = Counter()
        self.unbuilt: Counter[str] = Counter()
        #: Attempts that were asked otherwise than their task says: by the settings, as JSON.
        self.asked_otherwise: Counter[str] = Counter()
        self.signed = 0

    # --------------------------------------------------------------------------------------- docs, prompts

    def dataset(self, task: TaskFacts) -> None:
        """The list of doc hashes belongs to the registered dataset."""
        name, registration = task.spec.name, task.registration
        if len(task.doc_hashes) != registration.n_docs:
            self._say("doc", "number of docs", name, None, registration.n_docs, len(task.doc_hashes))
        found = content_hash([task.doc_hashes, task.fewshot_hashes])
        if found != registration.fingerprint:
            self._say("doc", "fingerprint of the dataset", name, None, registration.fingerprint, found)

    def doc(self, task: TaskFacts, doc_id: int, body: str) -> None:
        """A doc, its target in it, is the registered one."""
        found = content_hash(body)
        listed = task.doc_hashes[doc_id] if 0 <= doc_id < len(task.doc_hashes) else None
        if found != listed:
            self._say("doc", "hash of question and target", task.spec.name, doc_id, listed, found)

    def prompt(self, prompt: PromptRecord) -> None:
        """A prompt's id follows from its requests, its doc is the registered one, its place from the seed."""
        task = self._task(prompt)
        name, doc_id = prompt.task, prompt.doc_id
        if task is None:
            self._say("prompt", "its task or task hash is not that of this bundle", name, doc_id)
            return
        identity = [
            name,
            prompt.task_hash,
            prompt.epoch,
            prompt.api,
            prompt.position,
            doc_id,
            prompt.requests,
        ]
        self._equal("prompt", "id", name, doc_id, prompt.id, document_id("prompt", *identity))
        listed = task.doc_hashes[doc_id] if 0 <= doc_id < len(task.doc_hashes) else None
        self._equal("prompt", "hash of its doc", name, doc_id, prompt.doc_hash, listed)
        calls = len(prompt.requests) * prompt.repeats
        self._equal("prompt", "number of calls", name, doc_id, prompt.calls, calls)
        order = self._order(task, prompt.epoch)
        if order is not None:
            found = order.index(doc_id) if doc_id in order else None
            self._equal("prompt", "position by the epoch's seed", name, doc_id, prompt.position, found)

    def _order(self, task: TaskFacts, epoch: int) -> list[int] | None:
        """The order of an epoch whose seed is known, and is the one committed to."""
        name = task.spec.name
        key = (name, epoch)
        if key not in self._orders:
            line = task.epochs.get(epoch)
            self._orders[key] = None
            if line is not None and line.seed is not None:
                committed, seed = line.seed_sha256, line.seed
                found = hashlib.sha256(seed.encode("utf-8", "surrogatepass")).hexdigest()
                self._equal("prompt", f"hash of the seed of epoch {epoch}", name, None, committed, found)
                self._orders[key] = asked_order(
                    seed, len(task.doc_hashes), line.doc_ids, pairs=bool(task.registration.flags.pairs)
                )
        return self._orders[key]

    # ------------------------------------------------------------------------------------------- attempts

    def attempt(self, attempt: AttemptRecord, body_sha256: Any, prompt: PromptRecord | None) -> None:
        """An attempt belongs to a prompt of the bundle and is what its request and its raw answer make it."""
        name, doc_id = attempt.task, attempt.doc_id
        if self._task(attempt) is None or attempt.supplier != self._supplier.key:
            self._say("attempt", "it is of another supplier, task or task hash", name, doc_id)
            return
        self._seen[name][0][doc_id] += 1
        number, body = attempt.attempt, attempt.body
        what = f"attempt {number}"
        self._equal(
            "attempt",
            f"hash of the raw answer of {what}",
            name,
            doc_id,
            body_sha256,
            hashlib.sha256(body).hexdigest(),
        )
        call = (attempt.prompt_id, attempt.round, attempt.idx, attempt.repeat)
        found = document_id("attempt", attempt.supplier, *call, number)
        if number == 0:  # stored under a lost lease, see stages.relay.writer.fenced_out
            original = attempt.evidence.get("disowned")
            first = original.get("attempt") if isinstance(original, Mapping) else None
            found = document_id("attempt", attempt.supplier, *call, first)
            found = document_id("disowned", found, attempt.lease)
        else:
            self._numbers.setdefault((name, doc_id, *call), set()).add(number)
        self._equal("attempt", f"id of {what}", name, doc_id, attempt.id, found)
        # which older bundles do not name
        classifier = FIRST_CLASSIFIER if attempt.classifier is None else attempt.classifier
        ours = classifier == CLASSIFIER.number
        if not ours:
            self.otherwise_classified[classifier] += 1
            self.unjudged[name].add(attempt.id)
        fault = Fault(attempt.fault) if attempt.fault in _FAULTS else None
        if ours and fault is None:
            self._say("attempt", f"fault of {what} is unknown", name, doc_id, attempt.fault)
            return
        if ours and fault is not None:
            self._equal("attempt", f"owner of {what}", name, doc_id, attempt.owner, fault.owner.value)
        if prompt is None:
            self._say("attempt", f"{what} has no prompt", name, doc_id, attempt.prompt_id)
            return
        for field in ("task", "task_hash", "epoch", "position", "doc_id"):
            stored, asked = getattr(attempt, field), getattr(prompt, field)
            self._equal("attempt", f"{field} of {what}", name, doc_id, stored, asked)
        if not 0 <= attempt.idx < len(prompt.requests):
            self._say("attempt", f"{what} names request {attempt.idx}, which its prompt lacks", name, doc_id)
            return
        request = prompt.requests[attempt.idx]
        self._request(attempt, request, prompt.api, what)
        if ours and fault is not None:
            self._answer(attempt, request, prompt.api, fault, body, what)
        elif not ours and "disowned" not in attempt.evidence:
            found_here = shown(attempt, request, prompt.api, attempt.error).answer
            if found_here is not None and found_here.fault.value != attempt.fault:
                self.classified_anew[classifier, attempt.fault, found_here.fault.value] += 1
        self._signature(attempt, fault, what)

    def _request(self, attempt: AttemptRecord, request: Mapping[str, Any], api: Any, what: str) -> None:
        """The request as sent is the stored one, under one of the supplier's model names.

        Where another version built it, it may come out otherwise here: then that is not known.
        """
        stored = attempt.payload_sha256
        if stored is None:
            self.unproven_requests += 1
            return
        bodies: list[bytes] = []
        try:
            generation = generation_of(attempt.evidence)
        except ValueError as error:
            said = f"settings that {what} was asked with: {error}"
            self._say("attempt", said, attempt.task, attempt.doc_id)
            return
        if generation is not AS_THE_TASK_SAYS:
            self.asked_otherwise[orjson.dumps(generation.settings()).decode()] += 1
        try:
            if request.get("type") == "get":
                bodies = [b""]
            else:
                models = self._supplier.models
                payloads = [build_payload(request, api, model, generation)[1] for model in models]
                bodies = [orjson.dumps(form) for p in payloads for form in (p, as_stream(p))]
        except (RequestError, TypeError, AttributeError, orjson.JSONEncodeError):
            pass
        found = [hashlib.sha256(body).hexdigest() for body in bodies]
        if stored in found:
            return
        built = FIRST_PAYLOADS if attempt.payload_version is None else attempt.payload_version
        if built != PAYLOADS.number:
            self.otherwise_built[built] += 1
            self.unbuilt[attempt.task] += 1
        else:
            known = found[0] if found else None
            self._say(
                "attempt",
                f"hash of the request as sent of {what}, under every known model name",
                attempt.task,
                attempt.doc_id,
                stored,
                known,
            )

    def _answer(
        self,
        attempt: AttemptRecord,
        request: Mapping[str, Any],
        api: Any,
        fault: Fault,
        body: bytes,
        what: str,
    ) -> None:
        """The raw answer is classified, counted and abbreviated as stored."""
        name, doc_id, evidence = attempt.task, attempt.doc_id, attempt.evidence
        error = attempt.error
        fenced_out = evidence.get("disowned")
        if (
            fenced_out is not None
        ):  # what it was before its lease was lost, see stages.relay.writer.fenced_out
            self._equal("attempt", f"fault of {what}", name, doc_id, fault.value, Fault.INTERNAL.value)
            was = fenced_out if isinstance(fenced_out, Mapping) else {}
            try:
                fault, error = Fault(str(was.get("fault"))), was.get("error")
            except ValueError:
                self._say("attempt", f"fault of {what} before its lease was lost is unknown", name, doc_id)
                return
        found = shown(attempt, request, api, error)
        answer = found.answer
        if fenced_out is not None or answer is None or fault is not answer.fault:
            self.witnessed += 1
        if fault not in found.faults:
            if answer is not None and answer.fault.answered:
                self._say(
                    "answer", f"{what} has a complete answer all the same", name, doc_id, fault.value, "ok"
                )
                return
            possible = ", ".join(sorted(each.value for each in found.faults)) or "an answer without a status"
            self._say("answer", f"fault of {what}", name, doc_id, fault.value, possible)
            return
        if fenced_out is not None or answer is None or fault is not answer.fault:
            return
        prefix = None
        deterministic = is_deterministic(request, reading_of(attempt)["generation"])
        if answer.text is not None and fault.answered and deterministic:
            prefix = prefix_of_answer(request, answer.text)
        values: dict[str, Any] = {
            "finish_reason": answer.finish_reason,
            "prompt_tokens": answer.prompt_tokens,
            "completion_tokens": answer.completion_tokens,
            "reasoning_tokens": answer.reasoning_tokens,
            "reasoning_chars": answer.reasoning_chars,
            "error": answer.error,
            "opening": prefix,
            "body_bytes": len(body),
        }
        if attempt.answer_hash is not None:  # earlier versions took none
            told = answer.text is not None and fault.answered
            values["answer_hash"] = answer_hash(answer.text or "") if told else None
        if evidence.get("redacted"):  # a key that the supplier quoted in its answer
            return
        if fault is Fault.SUPPLIER_PROTOCOL:
            del values["error"]  # in the words of the JSON parser, which may be of another version
        for field, value in values.items():
            self._equal("answer", f"{field} of {what}", name, doc_id, getattr(attempt, field), value)

    def _signature(self, attempt: AttemptRecord, fault: Fault | None, what: str) -> None:
        """Where answers are signed by their supplier, nobody else can have made them up."""
        name, doc_id = attempt.task, attempt.doc_id
        try:
            signed = signature(attempt, answered=fault is not None and fault.answered)
        except Unsigned:
            self._say("answer", f"{what} lacks the supplier's signature", name, doc_id)
            return
        except BadSignature as error:
            self._say("answer", f"signature of {what} does not hold", name, doc_id, None, str(error))
            return
        if signed is None:
            return
        self.signed += 1
        self._equal("answer", f"signer of {what}", name, doc_id, self._supplier.address, signed.signer)
        said = [attempt.app, attempt.session, attempt.session_start, attempt.session_end]
        found = [signed.app, signed.session, signed.session_start, signed.session_end]
        self._equal("answer", f"session of {what}", name, doc_id, said, found)

    # --------------------------------------------------------------------------------------------- scores

    def score(self, score: ScoreRecord, present: Callable[[Iterable[str]], set[str]]) -> None:
        """A score belongs to answers of the bundle; ``present`` tells which attempt ids it holds."""
        name, doc_id = score.task, score.doc_id
        task = self._task(score)
        if task is None or score.supplier != self._supplier.key:
            self._say("score", "it is of another supplier, task or task hash", name, doc_id)
            return
        self._seen[name][1][doc_id] += 1
        self._equal("score", "scorer version", name, doc_id, score.scorer_version, task.scorer_version)
        self._rests_on(score, present)

    def undecided(
        self, record: ScoreRecord, version: str, present: Callable[[Iterable[str]], set[str]]
    ) -> bool:
        """Whether what is said of an answer that was not digested is of the bundle's supplier and tasks.

        ``version`` is what such records have for a scorer's version.
        """
        name, doc_id = record.task, record.doc_id
        if self._task(record) is None or record.supplier != self._supplier.key:
            self._say("score", "it is of another supplier, task or task hash", name, doc_id)
            return False
        self._equal("score", "scorer version", name, doc_id, record.scorer_version, version)
        self._rests_on(record, present)
        return True

    def _rests_on(self, score: ScoreRecord, present: Callable[[Iterable[str]], set[str]]) -> None:
        name, doc_id = score.task, score.doc_id
        ids = [str(id_) for id_ in score.attempt_ids]
        answer = ids[0] if len(ids) == 1 else document_id("answer", *ids)
        self._equal("score", "id of its answer", name, doc_id, score.answer_id, answer)
        found = document_id("score", score.answer_id, score.filter, score.scorer_version)
        self._equal("score", "id", name, doc_id, score.id, found)
        for id_ in sorted(set(ids) - present(ids)):
            self._say("attempt", "an answer that was scored is missing", name, doc_id, id_)

    def finish(self) -> None:
        """What should be there and is not: by the numbers of attempts, and by the counts per doc."""
        for name, task in self._tasks.items():
            for place, kind in enumerate(("attempts", "scores")):
                seen = self._seen[name][place]
                for doc_id in sorted({*task.counts, *seen}):
                    wanted = task.counts.get(doc_id, {}).get(kind, 0)
                    self._equal(kind[:-1], f"number of {kind}", name, doc_id, wanted, seen[doc_id])
        for (name, doc_id, *_), numbers in self._numbers.items():
            for number in sorted(set(range(1, max(numbers))) - numbers if max(numbers) < 10_000 else ()):
                self._say("attempt", f"attempt {number} is missing, later ones are there", name, doc_id)

    # ------------------------------------------------------------------------------------------------ help

    def _task(self, record: PromptRecord | AttemptRecord | ScoreRecord) -> TaskFacts | None:
        task = self._tasks.get(record.task)
        return None if task is None or task.registration.task_hash != record.task_hash else task

    def _equal(self, kind: str, what: str, task: str, doc_id: int | None, stored: Any, found: Any) -> None:
        if type(stored) is not type(found) or stored != found:
            self._say(kind, what, task, doc_id, stored, found)

    def _say(
        self,
        kind: str,
        what: str,
        task: str,
        doc_id: int | None,
        stored: Any = None,
        found: Any = None,
    ) -> None:
        self._add(
            Finding(
                kind,
                what,
                task,
                doc_id,
                None if stored is None else str(stored)[:400],
                None if found is None else str(found)[:400],
            )
        )
