"""Registers, asks and signs the signature tasks; in this process, for it imports nothing heavy."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from testbench_dagster.core.answer_prefix import answer_prefix
from testbench_dagster.core.errors import TaskError
from testbench_dagster.core.ids import content_hash
from testbench_dagster.core.prompt import Answered, BuiltPrompt, DocScore, Registered, TaskData
from testbench_dagster.core.task import TaskSpec
from testbench_dagster.core.task_flags import MetricFlags, TaskFlags
from testbench_dagster.tasks.adapter import TaskAdapter
from testbench_dagster.tasks.signatures.pages import page_signature
from testbench_dagster.tasks.signatures.probes import (
    DESCRIPTION,
    REQUEST,
    RESPONSE,
    UNTIL,
    draw_examples,
    draw_probes,
)
from testbench_dagster.tasks.signatures.version import SIGNATURES_VERSION

METRIC, FILTER = "signature", "none"
#: Paths of the pages, relative to where a supplier's API begins (its base URL without ``/v1``).
PAGES = {"tokenizer": "/pokt/tokenizer", "config": "/pokt/config"}


class Signatures(TaskAdapter):
    """The framework's adapter."""

    def register(self, spec: TaskSpec) -> Registered:
        """Describe a signature: its docs are the page, or the numbers of the probes of an epoch."""
        docs = self._docs(spec)
        hashes = [content_hash(doc) for doc in docs]
        fingerprint = content_hash([hashes, []])
        flags = TaskFlags(
            output_type="get" if spec.leaf in PAGES else "generate_until",
            features=[],
            multiple_input=False,
            multiple_target=False,
            repeats=1,
            num_fewshot=0,
            version=SIGNATURES_VERSION,
            metrics={METRIC: MetricFlags(aggregation="none", higher_is_better=True)},
            filters=[FILTER],
            questions_of_epoch=spec.leaf not in PAGES,
        )
        task_hash, config_hash = self._hashes(spec, flags, fingerprint)
        return Registered(
            task_hash=task_hash,
            config_hash=config_hash,
            fingerprint=fingerprint,
            eval_split="test",
            splits={"test": len(docs)},
            doc_hashes=hashes,
            fewshot_hashes=[],
            data=TaskData(dict(enumerate(docs)), [], flags),
        )

    def identify(self, spec: TaskSpec, data: TaskData, fingerprint: str) -> tuple[str, str]:
        """The hashes that a registration of docs with this fingerprint gets here."""
        # what storing it added is no part of what was registered
        flags = replace(data.flags, metric_order=None, source=None, definition=None)
        return self._hashes(spec, flags, fingerprint)

    @staticmethod
    def _hashes(spec: TaskSpec, flags: TaskFlags, fingerprint: str) -> tuple[str, str]:
        # the questions themselves come from the epoch's seed, which therefore is no part of them
        asked = ["signatures", SIGNATURES_VERSION, spec.leaf, spec.probe_tokens, fingerprint]
        return content_hash(asked)[:40], content_hash([*asked, flags.to_document()])

    def build_prompts(
        self, spec: TaskSpec, data: TaskData, doc_ids: Sequence[int], api: str, seed: str
    ) -> list[BuiltPrompt]:
        """Build the requests of some docs; probes are drawn by ``seed``."""
        if spec.leaf in PAGES:
            request = {"type": "get", "idx": 0, "path": PAGES[spec.leaf]}
            return [BuiltPrompt(doc_id, [dict(request)], None, 0, True) for doc_id in doc_ids]
        questions = draw_probes(seed, _probes(spec))
        return [
            self._probe(spec, doc_id, questions[doc_id], draw_examples(seed, doc_id), api)
            for doc_id in doc_ids
        ]

    def score(self, spec: TaskSpec, data: TaskData, answers: Sequence[Answered]) -> Iterator[DocScore]:
        """Sign answered docs, in the order given; a page that is empty has no signature."""
        return (self._sign(spec, answer) for answer in answers)

    def aggregate(self, spec: TaskSpec, flags: TaskFlags, metric: str, values: Sequence[Any]) -> float | None:
        """None: signatures are compared, not averaged."""
        return None

    def signed(self, spec: TaskSpec, text: str) -> tuple[str, str]:
        """Return the signature of an answer and what it is the SHA-256 of.

        Raises:
            ValueError: a page that is no JSON object.
        """
        if spec.leaf in PAGES:
            return page_signature(text)
        prefix = answer_prefix(text)
        return hashlib.sha256(prefix.encode("utf-8", "surrogatepass")).hexdigest(), prefix

    def _sign(self, spec: TaskSpec, answer: Answered) -> DocScore:
        try:
            signature, _ = self.signed(spec, answer.responses[0][0])
        except ValueError as error:
            return DocScore(answer.doc_id, error=str(error)[:300])
        return DocScore(answer.doc_id, {FILTER: {METRIC: signature}})

    @staticmethod
    def _docs(spec: TaskSpec) -> list[str]:
        if spec.leaf in PAGES:
            return [json.dumps({"path": PAGES[spec.leaf]})]
        return [json.dumps({"probe": number}) for number in range(_probes(spec))]

    @staticmethod
    def _probe(
        spec: TaskSpec, doc_id: int, question: str, examples: Sequence[tuple[str, str]], api: str
    ) -> BuiltPrompt:
        def put(request: str) -> str:
            return f"{REQUEST} {request}\n{RESPONSE}"

        if api == "chat":
            turns = [{"role": "system", "content": DESCRIPTION}]
            for asking, response in examples:
                turns.append({"role": "user", "content": put(asking)})
                turns.append({"role": "assistant", "content": response})
            turns.append({"role": "user", "content": put(question)})
            asked: dict[str, Any] = {"messages": turns}
            chars = sum(len(turn["content"]) for turn in turns)
        else:
            before = "".join(f"{put(asking)} {response}\n\n" for asking, response in examples)
            prompt = f"{DESCRIPTION}{before}{put(question)}"
            asked, chars = {"prompt": prompt}, len(prompt)
        generation: dict[str, Any] = {
            "until": list(UNTIL),
            "do_sample": False,
            "temperature": 0.0,
            "max_gen_toks": spec.probe_tokens,
        }
        request = {"type": "generate_until", "idx": 0, **asked, "generation": generation}
        return BuiltPrompt(doc_id, [request], None, chars, True)


def _probes(spec: TaskSpec) -> int:
    if spec.probes is None:
        raise TaskError(f"task {spec.name!r} has no number of probes; give probes in testbench.yaml")
    return spec.probes
