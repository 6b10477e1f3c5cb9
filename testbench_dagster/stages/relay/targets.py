"""Who of the wanted suppliers can be asked, at which endpoint, and why the others cannot."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from testbench_dagster.core.errors import ConfigError
from testbench_dagster.core.relay import Endpoint
from testbench_dagster.core.supplier import Supplier
from testbench_dagster.stages.discover.roster import TO_REFRESH_ROSTER, named_suppliers
from testbench_dagster.stages.workspace import Workspace
from testbench_dagster.transports.plug import TransportFactory
from testbench_dagster.transports.registry import supplier_endpoint


@dataclass(frozen=True)
class Target:
    """A supplier with the endpoint at which it is asked."""

    supplier: Supplier
    endpoint: Endpoint

    @property
    def key(self) -> str:
        """The supplier's key."""
        return self.supplier.key


class Targets:
    """Of wanted suppliers those that can be asked, and why the others cannot, by key.

    ``problems`` may end soon; ``unreachable`` are those of them that asking again soon will not end.
    ``departed`` left the roster.
    """

    def __init__(self, workspace: Workspace, keys: Iterable[str]) -> None:
        """Look the suppliers with these keys up in the roster."""
        self.problems: dict[str, str] = {}
        self.unreachable: dict[str, str] = {}
        self.departed: list[str] = []
        self._targets: list[Target] = []
        wanted = dict.fromkeys(keys)
        known = {supplier.key: supplier for supplier in named_suppliers(workspace, wanted)}
        for key in wanted:
            supplier = known.get(key)
            if supplier is None:
                self.problems[key] = f"is not on the roster: correct the key, or {TO_REFRESH_ROSTER}"
            elif supplier.left_at is not None:
                self.departed.append(key)
            else:
                try:
                    self._targets.append(Target(supplier, supplier_endpoint(workspace.config, supplier)))
                except ConfigError as error:
                    self.problems[key] = self.unreachable[key] = str(error)

    def __iter__(self) -> Iterator[Target]:
        """Those that can be asked, in the order of the keys."""
        return iter(self._targets)

    @property
    def keys(self) -> list[str]:
        """Their keys."""
        return [target.key for target in self._targets]

    @property
    def suppliers(self) -> list[Supplier]:
        """They themselves, with what is known of them."""
        return [target.supplier for target in self._targets]

    @property
    def endpoints(self) -> list[Endpoint]:
        """Where they are asked."""
        return [target.endpoint for target in self._targets]

    def keep(self, keys: Iterable[str]) -> None:
        """Leave out all but these."""
        kept = set(keys)
        self._targets = [target for target in self._targets if target.key in kept]

    def keep_reachable(self, transports: TransportFactory) -> None:
        """Leave out those that nothing can be sent to; say so where no node could be asked for sessions."""
        problems = {
            target.key: problem
            for target in self._targets
            if (problem := transports.problem(target.endpoint)) is not None
        }
        self.problems |= problems
        self.unreachable |= problems
        self.keep(key for key in self.keys if key not in problems)
        for service, problem in transports.unread.items():
            self.problems[f"service:{service}"] = f"its sessions could not be read: {problem}"

    def learn(self, echo_logprobs: Mapping[str, bool]) -> None:
        """Take note of which suppliers echo log-probabilities, by key."""
        self._targets = [
            replace(
                target,
                supplier=replace(
                    target.supplier,
                    echo_logprobs=echo_logprobs.get(target.key, target.supplier.echo_logprobs),
                ),
            )
            for target in self._targets
        ]
