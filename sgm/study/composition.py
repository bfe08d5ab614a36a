"""What a study is composed of: its axes, and which of its cells have which files and measures.

All of it follows from the config alone; what is on disk is the plan's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from sgm.axes import AXES, GRID, format_number
from sgm.registry import lookup
from sgm.study.config import Item, Study

__all__ = ["Composition"]


@dataclass(frozen=True)
class Composition:
    """Axes and cells of a study."""

    study: Study

    @cached_property
    def axes(self) -> dict[str, dict[str, Any]]:
        """Label → value on each axis of the grid but `seed`, in the order of the config."""
        return {
            name: {
                format_number(value) if AXES[name].of_numbers else value.label: value
                for value in getattr(self.study, AXES[name].key)
            }
            for name in GRID
        }

    def item(self, axis: str, labels: Mapping[str, str]) -> Any:
        """What stands on an axis at some labels."""
        return self.axes[axis][labels[axis]]

    def is_sampled(self, target: Item, score: Item) -> bool:
        """Whether replicates of a score are simulated for a target."""
        return self.study.runs(target, score) and getattr(score.parameters, "sampled", True)

    def learned(self, target: Item) -> list[Item]:
        """The scores of a target that are fitted to a seed's rows without a network."""
        return [s for s in self.study.scores if s.entry.learns and self.study.runs(target, s)]

    def filtered(self, target: Item) -> list[Item]:
        """The scores of a target that move particles which are weighed against each other."""
        return [s for s in self.study.scores if s.entry.interacts and self.study.runs(target, s)]

    def untrained(self, target: Item) -> list[Item]:
        """The scores of a target that no rows have a part in: exact or perturbed."""
        scores = (s for s in self.study.scores if not (s.entry.is_network or s.entry.learns))
        return [score for score in scores if self.study.runs(target, score)]

    def has_file(self, kind: str, labels: Mapping[str, str]) -> bool:
        """Whether a kind of file exists at some labels."""
        study = self.study
        target = self.axes["target"][labels["target"]] if "target" in labels else None
        score = self.axes["score"][labels["score"]] if "score" in labels else None
        if target is None:
            return True
        if score is None:
            scores = [score for score in study.scores if study.runs(target, score)]
            sampled = any(self.is_sampled(target, score) for score in scores)
            match kind:
                case "data":
                    return sampled or bool(self.learned(target)) or study.priors is not None
                case "priors":
                    return study.priors is not None
                case "exact":
                    return bool(self.untrained(target))
                case "learned":
                    return bool(self.learned(target))
                case "floors":
                    return sampled and bool(self.with_floor(target))
                case "reference":
                    return any(self.has_reference(target, score) for score in scores)
            return True
        match kind:
            case "network" | "training":
                return score.family == "trained" and study.runs(target, score)
            case "bounds":
                bounded = bool(self.measures("bounds", target))
                return bounded and score.entry.is_network and study.runs(target, score)
            case "samples" | "divergences":
                return self.is_sampled(target, score)
            case "likelihood":
                # guided networks have none, and what rows or particles make has none of its own
                without = score.entry.learns or score.entry.interacts
                without |= hasattr(score.parameters, "network")
                asked = study.likelihood is not None and not without
                return asked and study.runs(target, score)
            case "pictures":
                chosen = study.pictures is not None and labels["schedule"] in (
                    study.pictures.schedules
                )
                return chosen and self.is_sampled(target, score)
        return True

    def measures(self, kind: str, target: Item) -> tuple[Item, ...]:
        """Divergences or bounds of the study that a target has what it takes for."""
        items: tuple[Item, ...] = getattr(self.study, kind)
        return tuple(item for item in items if item.entry.suits(target.entry))

    def with_floor(self, target: Item) -> tuple[Item, ...]:
        """Divergences whose floor is measured between true samples."""
        return tuple(
            item
            for item in self.measures("divergences", target)
            if any(variable.measured_floor for variable in item.entry.variables)
        )

    def along_chain(self, target: Item, score: Item) -> tuple[Item, ...]:
        """Bounds that need a network's error along the generated chain."""
        if not score.entry.is_network:
            return ()
        return tuple(item for item in self.measures("bounds", target) if item.entry.along_chain)

    def is_coupled(self, target: Item, score: Item) -> bool:
        """Whether the exact-score chain runs beside a network's, for coupled estimates."""
        measures = self.measures("divergences", target)
        known = target.entry.law_known and score.entry.is_network
        return known and any(item.entry.coupled for item in measures)

    def has_reference(self, target: Item, score: Item) -> bool:
        """Whether a long run of the exact-score chain stands in for its law, which is not known."""
        known = target.entry.law == "gaussian" or self.study.n_reference is None
        return not known and self.is_coupled(target, score) and self.twin(score) is None

    def twin(self, score: Item) -> str | None:
        """Address of what guidance makes of exact scores, of a score that is guided by networks.

        It takes the place of the exact score in the chain beside the sampler: what is left between
        the two is the networks' share.
        """
        if not hasattr(score.parameters, "network") or score.entry.needs == "conditional":
            return None
        return lookup("score", score.family.removeprefix("trained_")).build

    def of_network(self, labels: Mapping[str, str]) -> dict[str, str]:
        """The labels with target and score at which the networks of a guided score are trained."""
        score = self.axes["score"].get(labels.get("score", ""))
        target = self.axes["target"].get(labels.get("target", ""))
        network = getattr(score.parameters, "network", None) if score else None
        prior = self.study.prior_of(target) if target else None
        if network is None or prior is None:
            return dict(labels)
        return {**labels, "target": prior.label, "score": network}

    def train_schedule(self, labels: Mapping[str, str]) -> str | None:
        """Label of the schedule under which all networks of a score are trained, if it has one."""
        score = self.axes["score"].get(self.of_network(labels).get("score", ""))
        label: str | None = getattr(score.parameters, "train_schedule", None) if score else None
        return label
