"""Which member stands for a group: the most available and most reliable one, changed at random times."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from testbench_dagster.identity.groups import Assignment
from testbench_dagster.identity.kernel import moment
from testbench_dagster.identity.settings import IdentityError, IdentitySettings


@dataclass(frozen=True, slots=True)
class Election:
    """A group's proxy until ``rotates_at``; ``changed`` says whether it is another than before."""

    proxy: str
    rotates_at: datetime
    changed: bool
    reason: Literal["kept", "elected", "rotated", "dead"]


def stays(
    members: Sequence[str], *, alive: Collection[str], previous: Assignment | None, now: datetime
) -> bool:
    """Whether the proxy of a group stays without an election: :func:`elect` then looks at no one's worth.

    Raises IdentityError for times without a zone.
    """
    last = previous.proxy if previous and previous.proxy in members else None
    if last is None or previous is None:
        return False
    if last in alive:
        return previous.rotates_at is not None and now < moment("rotates_at", previous.rotates_at)
    return not any(member in alive for member in members)


def elect(
    members: Sequence[str],
    *,
    availability: Mapping[str, float],
    self_agreement: Mapping[str, float | None],
    alive: Collection[str],
    previous: Assignment | None,
    now: datetime,
    rng: random.Random,
    settings: IdentitySettings | None = None,
) -> Election:
    """The proxy of a group, ``previous`` being any member's last assignment.

    Best is the largest availability (share of relays answered, 0 where unknown) times self-agreement (that of
    ``split_agreement`` where unknown); members within ``election_tie`` of it are drawn by lot, so that who
    will be measured cannot be foreseen. A proxy stays until its date, drawn from an exponential distribution,
    and then makes room for another member within the tie, if there is one; one that is not ``alive``, or no
    member any more, is replaced at once. With nobody alive the previous proxy stays, if it is a member.

    Raises IdentityError without members, or for times without a zone.
    """
    settings = settings or IdentitySettings()
    moment("now", now)
    if not members:
        raise IdentityError("members is empty; a group has at least one")
    last = previous.proxy if previous and previous.proxy in members else None
    due = previous.rotates_at if previous else None
    candidates = [m for m in sorted(set(members)) if m in alive]
    if last is not None and stays(members, alive=alive, previous=previous, now=now):
        until = due or _drawn(now, rng, settings)
        return Election(last, until, changed=False, reason="kept" if candidates else "dead")

    def worth(member: str) -> float:
        reliable = self_agreement.get(member)
        return availability.get(member, 0.0) * (settings.split_agreement if reliable is None else reliable)

    choice = candidates or sorted(set(members))
    best = max(worth(member) for member in choice)
    near = [m for m in choice if worth(m) >= best * (1 - settings.election_tie)]
    if last in candidates:
        near = [m for m in near if m != last] or near
        reason: Literal["elected", "rotated", "dead"] = "rotated"
    else:
        reason = "elected" if last is None and candidates else "dead"
    proxy = rng.choice(near)
    return Election(proxy, _drawn(now, rng, settings), changed=proxy != last, reason=reason)


def _drawn(now: datetime, rng: random.Random, settings: IdentitySettings) -> datetime:
    return now + timedelta(days=rng.expovariate(1 / settings.rotation_days))
