"""Classes of a target's rows, and the law of the rows of one class.

Of a mixture of Gaussians the classes are its components. A row is labelled after it is drawn, by
c ~ p(c | x), which is the joint law of class and row whatever the way in which rows are drawn. A
data set has labels of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from sgm.densities.mixture import GaussianMixture
from sgm.gaussian import Gaussian
from sgm.registry import Index, register
from sgm.targets.base import LawTarget, Target
from sgm.targets.empirical import EmpiricalTarget
from sgm.targets.posteriors import _as_mixture

__all__ = [
    "ClassOfData",
    "ClassOfLaw",
    "LabelledTarget",
    "class_count",
    "conditional",
    "drawn_labels",
]

Labels = npt.NDArray[np.integer[Any]]


@dataclass(frozen=True, eq=False)
class LabelledTarget(EmpiricalTarget):
    """A data set of rows in classes.

    Parameters
    ----------
    labels : ndarray of int, shape (n,)
        One a row, from 0 to K − 1.
    """

    labels: Labels = field(kw_only=True)

    @classmethod
    def of(cls, target: EmpiricalTarget, labels: Labels) -> LabelledTarget:
        """A data set with the labels of its rows."""
        return cls(
            target.rows,
            target.heldout_fraction,
            target.coordinates,
            target.image_shape,
            target.levels,
            labels=labels,
        )


@dataclass(frozen=True, eq=False)
class ClassOfLaw(LawTarget):
    """The law of the rows of one class.

    Parameters
    ----------
    label : int
        c.
    """

    label: int = field(kw_only=True)


@dataclass(frozen=True, eq=False)
class ClassOfData(EmpiricalTarget):
    """The rows of one class of a data set.

    Parameters
    ----------
    prior : LabelledTarget
    label : int
        c.
    """

    prior: LabelledTarget = field(kw_only=True)
    label: int = field(kw_only=True)

    def partition(self, generator: np.random.Generator) -> tuple[Labels, Labels]:
        """As the data set's, of the same generator, restricted to the class.

        Their numbers are the same whatever the generator: where the data set holds out fewer of the
        class, the first of its training rows are held out too.
        """
        train, heldout = self.prior.partition(generator)
        order = np.concatenate([heldout, train])
        own = order[self.prior.labels[order] == self.label]
        numbers = np.searchsorted(np.flatnonzero(self.prior.labels == self.label), own)
        first, rest = np.split(numbers, [self._heldout_rows])
        return rest, first


def class_count(target: Target) -> int:
    """K, the number of classes of a target; 0 for one that has none."""
    if isinstance(target, LabelledTarget):
        return int(target.labels.max()) + 1
    mixture = _mixture(target)
    return 0 if mixture is None else len(mixture.weights)


def drawn_labels(target: Target, rows: npt.ArrayLike, generator: np.random.Generator) -> Labels:
    """Classes of draws of a mixture, each c ~ p(c | x).

    Parameters
    ----------
    target : Target
        A mixture of Gaussians.
    rows : array_like, shape (n, d)
    generator : numpy.random.Generator

    Returns
    -------
    ndarray of int, shape (n,)

    Raises
    ------
    ValueError
        If the target is no mixture.
    """
    mixture = _mixture(target)
    if mixture is None:
        raise ValueError("target: must be a mixture of Gaussians, whose components are its classes")
    joint = np.stack(
        [
            np.log(mixture.weights[c]) + _component(mixture, c).log_density(rows)
            for c in range(len(mixture.weights))
        ],
        axis=-1,
    )
    # the largest of logarithms and Gumbel draws is one of their class
    return np.asarray(np.argmax(joint + generator.gumbel(size=joint.shape), axis=-1))


@register("target", of_prior="conditional", axes={"label": "c"})
def conditional(prior: Target, label: Index) -> Target:
    """The law of X given its class: a component of a mixture, or the rows of a class of a data set.

    Parameters
    ----------
    prior : Target
        One of the mixtures of Gaussians, of any dimension, or a data set with labels, the digits:
        its keys as among `targets`.
    label : int
        c, from 0.

    Returns
    -------
    Target
        In the coordinates of the prior.

    Raises
    ------
    ValueError
        If the prior has no classes, or no such class, or too few rows of it.
    """
    classes = class_count(prior)
    if not classes:
        raise ValueError(
            "prior: must have classes: a mixture of Gaussians, digits or digits_images"
        )
    if not 0 <= label < classes:
        raise ValueError(f"label = {label!r}: must be from 0 to {classes - 1}")
    if isinstance(prior, LabelledTarget):
        return ClassOfData(
            prior.rows[prior.labels == label],
            prior.heldout_fraction,
            prior.coordinates,
            prior.image_shape,
            prior.levels,
            prior=prior,
            label=label,
        )
    mixture = _mixture(prior)
    assert mixture is not None
    law = Gaussian.diagonal(mixture.means[label], mixture.variances[label])
    return ClassOfLaw(law, prior.coordinates, prior.image_shape, label=label)


def _mixture(target: Target) -> GaussianMixture | None:
    """The law of a target as a mixture; None for a Gaussian, or if it is none."""
    if target.law is None or isinstance(target.law, Gaussian):
        return None
    return _as_mixture(target.law)


def _component(mixture: GaussianMixture, label: int) -> GaussianMixture:
    chosen = [label]
    return GaussianMixture(np.ones(1), mixture.means[chosen], mixture.variances[chosen])
