"""What a check of a bundle found."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from testbench_dagster.core.text import escaped
from testbench_dagster.core.wording import are, counted

#: Findings kept in full; of a bundle that is wrong everywhere the rest is counted.
MAX_FINDINGS = 1000
_MAX_CHARS = 120


@dataclass(frozen=True)
class Finding:
    """Something that is not as the bundle says.

    ``kind``: ``file``, ``doc``, ``definition``, ``prompt``, ``attempt``, ``answer``, ``state``,
    ``score`` or ``window``.
    ``stored`` and ``recomputed`` are what the bundle says and what follows from the rest of it.
    """

    kind: str
    what: str
    task: str | None = None
    doc_id: int | None = None
    stored: str | None = None
    recomputed: str | None = None

    def __str__(self) -> str:
        where = "".join(
            (
                f" {escaped(self.task, _MAX_CHARS)}" if self.task is not None else "",
                f" doc {self.doc_id}" if self.doc_id is not None else "",
            )
        )
        values = ""
        if self.stored is not None or self.recomputed is not None:
            values = f": stored {_shown(self.stored)}, recomputed {_shown(self.recomputed)}"
        return f"{self.kind}{where}: {escaped(self.what, 300)}{values}"


def _shown(value: str | None) -> str:
    return "nothing" if value is None else escaped(value, _MAX_CHARS)


@dataclass
class TaskVerdict:
    """Per task: scored docs whose every value is equal, or differs, or that cannot be scored here and why.

    ``windows`` is ``equal``, ``different`` or why they were not computed. ``failed`` counts docs without a
    score because their last attempt failed, ``unchecked_requests`` attempts whose request another version
    built otherwise. ``definition``: whether its hashes are ``equal`` or ``different``, or why these are
    not known.
    """

    task: str
    docs: int = 0
    equal: int = 0
    different: int = 0
    unchecked: int = 0
    failed: int = 0
    attempts: int = 0
    unchecked_requests: int = 0
    windows: str = ""
    why: str | None = None
    definition: str = "not computed"


@dataclass
class Report:
    """The outcome of a check; ``sha256`` is that of the manifest, by which both sides can name a bundle."""

    sha256: str
    supplier: str
    made_at: str
    product: str
    simulation: bool = False
    tasks: list[TaskVerdict] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    n_findings: int = 0
    notes: list[str] = field(default_factory=list)

    def add(self, finding: Finding) -> None:
        """Keep a finding, or count it where there are very many."""
        self.n_findings += 1
        if len(self.findings) < MAX_FINDINGS:
            self.findings.append(finding)

    @property
    def checked(self) -> bool:
        """Whether every request, score and window of the bundle was made again."""
        return all(
            not t.unchecked and not t.unchecked_requests and t.windows in ("equal", "different")
            for t in self.tasks
        )

    @property
    def equal(self) -> bool:
        """Whether everything was computed again, and all of it is as the bundle says."""
        return self.checked and not self.n_findings

    @property
    def verdict(self) -> str:
        """One sentence."""
        if self.n_findings:
            n = self.n_findings
            return f"DIFFERENT: {counted(n, 'thing')} {are(n)} not as the bundle says."
        if not self.checked:
            return "INCOMPLETE: what could be checked is as the bundle says, but not everything could be."
        undefined = sum(task.definition not in ("equal", "different") for task in self.tasks)
        if undefined:
            of = f"the hashes of the definition of {counted(undefined, 'task')} were not made again"
            return f"EQUAL: every answer, score and window is as the bundle says, but {of}: see the notes."
        return "EQUAL: every hash, answer, score and window is as the bundle says."

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, see docs/reference.md."""
        return {
            **{n: v for n, v in vars(self).items() if n not in ("tasks", "findings")},
            "verdict": self.verdict.partition(":")[0].lower(),
            "tasks": [vars(t) for t in self.tasks],
            "findings": [vars(f) for f in self.findings],
        }

    def lines(self, most: int = 20) -> Iterator[str]:
        """Notes, the first findings and the verdict, for people."""
        for note in self.notes:
            yield f"note: {escaped(note, 600)}"
        for finding in self.findings[:most]:
            yield str(finding)
        if self.n_findings > most:
            yield f"… and {self.n_findings - most} more (--format json lists up to {MAX_FINDINGS})"
        yield self.verdict
