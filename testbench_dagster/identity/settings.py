"""The constants of identity, each with its unit and where it comes from.

"Measured" refers to 227 models x 795 common prompts of AlpacaEval: pairs of distinct models agree on the
first 20 characters of .106 of prompts at the median, .44 at the 99.9th percentile, .85 at most (derivatives
of each other).
"""

from __future__ import annotations

from dataclasses import dataclass

from testbench_dagster.core.errors import TestbenchError


class IdentityError(TestbenchError):
    """Answers, settings or groups given to identity are unusable."""


@dataclass(frozen=True, slots=True)
class IdentitySettings:
    """How answers are compared and how much evidence a claim takes. IdentityError when out of range."""

    #: Characters of an answer that are compared, white space collapsed. About 5 to 8 tokens. Measured: longer
    #: prefixes split twins that differ by one unlucky token, shorter ones agree by chance.
    prefix_chars: int = 20
    #: Rate of agreement that distinct models are granted before evidence counts (q0). Measured: 0 false
    #: merges of 25,651 pairs at .75, 1 at .60.
    null_floor: float = 0.75
    #: Alternatives to the null rate, as shares of the way from it to 1: .75 -> .85, .90, .95 and .99.
    merge_shares: tuple[float, ...] = (0.4, 0.6, 0.8, 0.96)
    #: Probability that any two distinct models of a service are ever merged.
    merge_alpha: float = 0.01
    #: Highest rate of agreement that one model behind two suppliers must show (q1): T=0 endpoints agree with
    #: themselves on .95 to .9965 of prompts.
    split_agreement: float = 0.95
    #: Alternatives to the split rate, as parts of it.
    split_ratios: tuple[float, ...] = (0.1, 0.3, 0.5, 0.7, 0.85)
    #: False discovery rate of splits. A false split costs relays only.
    split_alpha: float = 0.05
    #: Common scored docs, and the share of equal answers to them, that a group takes besides beginnings.
    form_docs: int = 30
    form_share: float = 0.8
    #: Probability that a member which answers like its proxy is ever split off.
    divergence_alpha: float = 0.01
    #: New common docs before who was split off may be grouped again.
    apart_docs: int = 100
    #: Weight, in repeats, of the assumption that a supplier repeats itself at ``split_agreement``.
    self_prior: float = 10.0
    #: Quantile of a supplier's self-agreement that a split is tested at.
    self_quantile: float = 0.1
    #: Suppliers whose self-agreement lies below with 97.5 % confidence are noisy and never merged.
    noisy_below: float = 0.9
    #: Other groups' answer prefixes are counted as if so many more groups had answered ...
    prior_groups: float = 2.0
    #: ... and given the same prefix at this rate: caution while few suppliers are known.
    prior_collision: float = 0.25
    #: Leading characters that are a template of a family when a tenth of a supplier's answers start so.
    template_chars: int = 12
    template_share: float = 0.1
    #: Rate of agreement a pair leans towards one model at, against ``null_floor``; and how far (nats) it may
    #: lean the other way, by chance, inside a group that is held together by the others.
    lean_agreement: float = 0.9
    lean_slack: float = 2.0
    #: Fewest common informative prompts before a pair leans anywhere or has a relation.
    least_common: int = 8
    #: Rate of agreement from which two distinct suppliers are called one lineage. Measured: .45 is above
    #: 99.9 % of pairs of unrelated models.
    lineage_agreement: float = 0.45
    #: Share of answers that two groups must explain of a mixture, and that each must have, by lower bounds.
    mixture_explained: float = 0.9
    mixture_share: float = 0.1
    mixture_alpha: float = 0.05
    #: Share of one-sided order in time that makes a mixture a probable change instead.
    mixture_ordered: float = 0.95
    #: Mean observations between false alarms of one stream of a supplier: at 24 a day 11 years.
    arl: float = 1e5
    #: Error of the baseline that a stream is compared with.
    baseline_alpha: float = 0.01
    #: Days within which answers of a group's members to one prompt are compared.
    near_days: float = 3.0
    #: Mean days a proxy stands for its group; the dates are drawn exponentially, so nobody can foresee them.
    rotation_days: float = 7.0
    #: Proxies that differ by less than this share in availability x self-agreement are drawn by lot.
    election_tie: float = 0.02

    def __post_init__(self) -> None:
        shares = (
            "null_floor merge_alpha split_agreement split_alpha self_quantile noisy_below prior_collision "
            "form_share divergence_alpha "
            "template_share lean_agreement lineage_agreement mixture_explained mixture_share mixture_alpha "
            "mixture_ordered baseline_alpha election_tie"
        )
        for name in shares.split():
            value = getattr(self, name)
            if not 0 < value < 1:
                raise IdentityError(f"{name} must lie between 0 and 1, both excluded; got {value}")
        for name in ("merge_shares", "split_ratios"):
            values = getattr(self, name)
            if not values or not all(0 < v < 1 for v in values):
                raise IdentityError(f"{name} must be one or more numbers between 0 and 1; got {values}")
        for name in ("self_prior", "prior_groups", "near_days", "rotation_days"):
            if not getattr(self, name) > 0:
                raise IdentityError(f"{name} must be more than 0; got {getattr(self, name)}")
        for name in ("prefix_chars", "template_chars", "least_common", "form_docs", "apart_docs"):
            least = 1
            if getattr(self, name) < least:
                raise IdentityError(f"{name} must be at least {least}; got {getattr(self, name)}")
        if not self.arl > 1:
            raise IdentityError(f"arl must be more than 1 observation; got {self.arl}")
        if not self.null_floor < self.lean_agreement <= self.split_agreement:
            raise IdentityError(
                "want null_floor < lean_agreement <= split_agreement; got "
                f"{self.null_floor}, {self.lean_agreement}, {self.split_agreement}"
            )
