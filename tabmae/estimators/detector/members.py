"""The members that judge rows: distances to the rows of fit, the surprise of network and forests at their cells, and
relations between columns that they break, values where there must be none; and what judges cells.

Contract: what says how odd a value is was fixed by rows other than those that p-values compare with, or by the ranks of
these alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor

from tabmae.estimators.detector.completion import Completion
from tabmae.estimators.detector.evidence import Evidence
from tabmae.estimators.detector.explanation import blame
from tabmae.estimators.detector.forests import CellForests
from tabmae.estimators.detector.linear import CellGaussian
from tabmae.estimators.detector.network import CellNetwork, mean_of_rows
from tabmae.estimators.detector.normal_rows import NormalRows
from tabmae.estimators.detector.presence import PRESENCE, Presence
from tabmae.estimators.detector.relations import PROPORTIONS, RELATIONS, SUMS, Relations
from tabmae.estimators.detector.slips import bounded, without_slips
from tabmae.experts.neighbours import Neighbours
from tabmae.saving import part_of

DISTANCES = {"distance": "standard", "log_distance": "log", "rank_distance": "rank"}
"""Members by the distance to the nearest rows, each with the scaling of its numbers."""
SURPRISES = ("network", "forests")
"""Members that are surprised at cells given the others of their row. They count as one, by their mean."""
FORESTS_WEIGHT = 2.0
"""How far the forests count in that mean beside the network, as they judge numbers on two scales."""
MEMBERS = (*DISTANCES, *SURPRISES, *RELATIONS, PRESENCE)
MEMBERS_AMONG_OUTLIERS = (*DISTANCES, *SURPRISES)
"""Members where the rows of fit may be odd themselves."""
N_ADDED = 2
"""Members whose evidence against a row is added, those that find it oddest: one that sees nothing tells nothing."""
SURPRISE_WEIGHT = 2.0
"""How far surprise counts beside distances where a member explains nothing of the columns, and none where it explains
all: what is left of columns that nearly follow from each other is noise, and its smallest parts are surprising. Beside
outliers it counts as far whatever is explained: such columns tell which cells are foreign, and a distance hardly."""
MAX_CALIBRATED = 2_000
"""Learnt rows whose values say what is normal."""


class Members:
    """Members in the order of `names`, each with the evidence that its values make.

    Parameters
    ----------
    names : out of `MEMBERS`.
    neighbours, network, forests, relations, presence : what they ask; None where no member does. The last three have
        learnt.
    all_normal : whether the rows of fit are normal ones. Then distances are measured by the spacing of the rows about,
        while outliers would be near others of their kind, as widely spaced as they are; network and forests count by
        what they leave unexplained; and the two members that find a row oddest judge it. Otherwise the distances count
        as one, by their mean, to which that of network and forests is added, twice.

    Attributes
    ----------
    linear : the Gaussian that judges cells beside the network; None without one, or where a table is too wide.
    """

    def __init__(
        self,
        names: Sequence[str],
        neighbours: Neighbours | None,
        network: CellNetwork | None,
        forests: CellForests | None,
        relations: Relations | None,
        presence: Presence | None,
        all_normal: bool,
    ) -> None:
        self.names, self.all_normal = tuple(names), all_normal
        self.neighbours, self.network, self.forests = neighbours, network, forests
        self.relations, self.presence = relations, presence
        self.linear: CellGaussian | None = None
        self.evidence: dict[str, Evidence] = {}

    def fit(self, values: Tensor, observed: Tensor, normal: NormalRows) -> Tensor:
        """Learn what is normal from the cells (n, F) of rows of which network and forests saw those that were learnt.

        Distances of the rows that were learnt, to the near ones among them, say how odd a distance is; then the near
        ones that were held out are remembered, too. A held-out row is compared with n - 1 others and a new one with n,
        so that a new one never looks odder for it; the spacing that either is measured by is that of the learnt rows.
        Of rows that equal it, a new row leaves out one: a held-out row leaves out one more, itself. The held-out rows
        give the ranks of surprise, which the network would underrate on the others.

        Returns
        -------
        Scores of the held-out rows, (m,).
        """
        rows = torch.nonzero(normal.learnt)[:, 0]
        sample = rows[:: max(1, -(-len(rows) // MAX_CALIBRATED))]
        others = values[normal.held_out], observed[normal.held_out]
        found: dict[str, Tensor] = {}
        if self.neighbours is not None:
            n_levels = self.neighbours.n_levels
            near, cells = normal.near & normal.learnt, bounded(values, n_levels)
            completion = Completion.fit(cells[near], observed[near], n_levels)
            whole = None if completion is None else completion.complete(cells, observed)
            spread = normal.near & ~normal.held_out
            self.neighbours.learn_scales(without_slips(values[spread], observed[spread], n_levels), observed[spread])
            self.neighbours.remember(values[near], observed[near], None if whole is None else whole[near])
            if self.all_normal:
                self.neighbours.learn_spacing()
            for name, column in self._distances(values[sample], observed[sample]).items():
                self.evidence[name] = Evidence.fit(column)
            near = normal.near & (normal.learnt | normal.held_out)
            self.neighbours.remember(values[near], observed[near], None if whole is None else whole[near])
            if self.all_normal:
                self.neighbours.learn_spacing(normal.learnt[near])
            found = self._distances(*others, n_equal=2)
        if self.network is not None:
            of_sample, of_others = self.network.judge((values[sample], observed[sample]), others)
            self.linear = CellGaussian.fit((values[sample], observed[sample]), self.network.schema_.n_levels)
            found["network"] = mean_of_rows(of_others, others[1])
            self.evidence["network"] = Evidence.fit(mean_of_rows(of_sample, observed[sample]), found["network"])
        if self.forests is not None:
            found["forests"] = mean_of_rows(self.forests.surprise(*others), others[1])
            self.evidence["forests"] = Evidence.fit(self.forests.of_fit, found["forests"])
        if self.relations is not None:
            found |= self.relations.evidence(*others)
        if self.presence is not None:
            found[PRESENCE] = self.presence.evidence(*others)
        return self.added(self._nats(found))

    def scores(self, values: Tensor, observed: Tensor) -> Tensor:
        """Evidence of each member against rows (B, F), in nats, surprise by its weight; float64 (B, M)."""
        found = self._distances(values, observed)
        if self.network is not None:
            found["network"] = mean_of_rows(self.network.surprise(values, observed), observed)
        if self.forests is not None:
            found["forests"] = mean_of_rows(self.forests.surprise(values, observed), observed)
        if self.relations is not None:
            found |= self.relations.evidence(values, observed)
        if self.presence is not None:
            found[PRESENCE] = self.presence.evidence(values, observed)
        return self._nats(found)

    def blame(self, values: Tensor, observed: Tensor) -> Tensor:
        """By how many nats rows (B, F) are less surprising without each cell; float64 (B, F), not negative.

        Single precision rounds off what the other rows of a batch do to the last digits.
        """
        forbidden = None if self.presence is None else self.presence.surprise(values, observed)
        return blame(self._surprise, values, observed, forbidden).float().double()

    def _surprise(self, values: Tensor, observed: Tensor, wanted: Tensor) -> Tensor:
        """What surprises network, Gaussian and the column's forest on the mean at each wanted cell, and how far it
        breaks a relation, (B, F), in nats."""
        assert self.network is not None
        parts = [self.network.surprise(values, observed, wanted)]
        n_judges = torch.ones(values.shape[1], dtype=torch.float64)
        if self.linear is not None:
            strange = self.network.strange_cells(values, observed)
            parts.append(self.linear.surprise(values, observed, wanted, strange))
            n_judges += 1
        if self.forests is not None:
            parts.append(self.forests.surprise(values, observed, wanted))
            n_judges[list(self.forests.forests)] += 1
        found = torch.stack(parts).sum(0) / n_judges
        return found if self.relations is None else found + self.relations.surprise(values, observed, wanted)

    def _nats(self, found: dict[str, Tensor]) -> Tensor:
        nats = {
            name: self.evidence[name].nats(found[name]) if name in self.evidence else found[name] for name in self.names
        }
        if self.neighbours is not None:
            for name, skill in self._skills().items():
                weight = SURPRISE_WEIGHT * (1 - skill) if self.all_normal else torch.tensor(SURPRISE_WEIGHT)
                nats[name] = torch.where(found[name].isnan(), 1, weight) * nats[name]
        return torch.stack(list(nats.values()), 1)

    def _skills(self) -> dict[str, Tensor]:
        """How much network and forests explain, of those that judge rows."""
        skills = {} if self.network is None else {"network": self.network.skill_}
        if self.forests is not None:
            skills["forests"] = self.forests.skill
        return {name: skill for name, skill in skills.items() if name in self.names}

    def added(self, nats: Tensor) -> Tensor:
        """The members' evidence against rows, (B, M), as one score (B,): of the two that find a row oddest, or of all
        where the rows of fit may be odd themselves, and of proportions and presence; a broken relation is
        enough by itself.

        Network and forests count as one, the forests less by the share of columns that have none. Where all are added,
        so do the distances, and forests find no row odder than the network does: they err at the ends of the data.
        """
        members = dict(zip(self.names, nats.unbind(1), strict=True))
        nothing = torch.zeros(len(nats), dtype=nats.dtype)
        relation, *rest = (members.pop(name, nothing) for name in (SUMS, PROPORTIONS, PRESENCE))
        score = rest[0] + rest[1]
        if self.forests is not None and set(SURPRISES) <= set(members):
            network, forests = (members.pop(name) for name in SURPRISES)
            forests = forests if self.all_normal else forests.minimum(network)
            weight = FORESTS_WEIGHT * self.forests.share
            members["surprise"] = (network + weight * forests) / (1 + weight)
        if not self.all_normal and self.neighbours is not None:
            apart = [members.pop(name) for name in DISTANCES if name in members]
            members["distance"] = torch.stack(apart, 1).mean(1)
        if members:
            n_added = min(N_ADDED, len(members)) if self.all_normal else len(members)
            score = score + torch.stack(list(members.values()), 1).topk(n_added).values.sum(1)
        return score.maximum(relation)

    def _distances(self, values: Tensor, observed: Tensor, n_equal: int = 1) -> dict[str, Tensor]:
        scalings = {name: scaling for name, scaling in DISTANCES.items() if name in self.names}
        if self.neighbours is None:
            return {}
        measure = self.neighbours.relative_distances if self.all_normal else self.neighbours.distances
        columns = measure(values, observed, tuple(scalings.values()), n_equal).unbind(1)
        return dict(zip(scalings, columns, strict=True))

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """What `restored` needs."""
        state: dict[str, Any] = {"names": list(self.names), "all_normal": self.all_normal, "network": None}
        tensors: dict[str, Tensor] = {}
        if self.neighbours is not None:
            tensors |= {f"neighbours.{name}": tensor for name, tensor in self.neighbours.state_dict().items()}
        for member, evidence in self.evidence.items():
            tensors |= {f"evidence.{member}.{name}": tensor for name, tensor in evidence._asdict().items()}
        if self.linear is not None:
            tensors |= {f"linear.{name}": tensor for name, tensor in self.linear.state().items()}
        if self.network is not None:
            state["network"], of_network = self.network._get_state()
            state["feature_shape"] = self.network.feature_shape
            tensors |= {f"network.{name}": tensor for name, tensor in of_network.items()}
        if self.forests is not None:
            tensors |= {f"forests.{name}": tensor for name, tensor in self.forests.state().items()}
        if self.relations is not None:
            tensors |= {f"relations.{name}": tensor for name, tensor in self.relations.state().items()}
        if self.presence is not None:
            tensors |= {f"presence.{name}": tensor for name, tensor in self.presence.state().items()}
        return state, tensors

    @classmethod
    def restored(
        cls,
        state: dict[str, Any],
        tensors: dict[str, Tensor],
        n_levels: Sequence[int],
        parameters: dict[str, Any],
    ) -> Self:
        """Members from their state; `parameters` are those of the network's estimator."""
        network, neighbours = None, None
        if state["network"] is not None:
            network = CellNetwork(**parameters | {"feature_shape": state["feature_shape"]})
            network._set_state(state["network"], part_of(tensors, "network."))
        remembered = part_of(tensors, "neighbours.")
        if remembered:
            neighbours = Neighbours.restored(n_levels, remembered)
        of_forests = part_of(tensors, "forests.")
        forests = CellForests.restored(n_levels, of_forests) if of_forests else None
        relations = None
        if set(RELATIONS) & set(state["names"]):
            relations = Relations.restored(n_levels, part_of(tensors, "relations."))
        of_presence = part_of(tensors, "presence.")
        presence = Presence.restored(n_levels, of_presence) if of_presence else None
        members = cls(state["names"], neighbours, network, forests, relations, presence, state["all_normal"])
        of_linear = part_of(tensors, "linear.")
        if of_linear:
            members.linear = CellGaussian.restored(n_levels, of_linear)
        members.evidence = {
            name: Evidence(**part_of(tensors, f"evidence.{name}."))
            for name in members.names
            if name not in (*RELATIONS, PRESENCE)
        }
        return members


def new_members(
    names: Sequence[str],
    network: CellNetwork | None,
    forests: CellForests | None,
    relations: Relations | None,
    presence: Presence | None,
    n_levels: Sequence[int],
    device: torch.device,
    all_normal: bool,
) -> Members:
    """Members that are still to be fitted, with the neighbours that they need."""
    neighbours = Neighbours(n_levels).to(device) if set(names) & set(DISTANCES) else None
    return Members(names, neighbours, network, forests, relations, presence, all_normal)
