"""Data sets that scikit-learn ships: features, and labels of the digits; π_data is unknown.

    digits          1797 rows of 8×8 pixels, 61 of which vary
    digits_images   the same with all 64, scaled to [−1, 1)
    breast_cancer   569 rows of 30 measurements of cell nuclei
    diabetes        442 rows of 10 measurements of patients
    wine            178 rows of 13 chemical measurements

Columns of whole numbers (pixels, age, sex, …) are dequantised, see
`EmpiricalTarget.from_rows`: a column that takes two values has no score. Columns with
decimals keep the ties of their two to four digits, which are finer than what a few
hundred rows resolve.

Sources
-------
Pixels: E. Alpaydin, C. Kaynak, Optical recognition of handwritten digits, UCI (1998).
Tables: W. Wolberg et al., Breast cancer Wisconsin (diagnostic), UCI (1993); B. Efron et al.,
Least angle regression, Annals of Statistics 32 (2004); S. Aeberhard, M. Forina, Wine, UCI
(1992).
"""

from __future__ import annotations

from importlib.metadata import distribution

import numpy as np
import numpy.typing as npt

from sgm.registry import Fraction, register
from sgm.targets.base import LawTarget
from sgm.targets.classes import LabelledTarget
from sgm.targets.empirical import EmpiricalTarget

__all__ = ["breast_cancer", "diabetes", "digits", "digits_gaussian", "digits_images", "wine"]


@register("target", law="unknown")
def digits(heldout_fraction: Fraction, standardise: bool = True) -> LabelledTarget:
    """Scikit-learn's 1797 handwritten digits, 8×8 pixels of 17 grey levels.

    Three pixels are constant and dropped, 61 remain; these are dequantised.

    Parameters
    ----------
    heldout_fraction : float
        In (0, 1).
    standardise : bool
        See `EmpiricalTarget.from_rows`.

    Returns
    -------
    LabelledTarget
        Of dimension 61, images of 8×8 pixels and ten classes.
    """
    rows = _shipped("digits", heldout_fraction, standardise, image_shape=(8, 8))
    return LabelledTarget.of(rows, _digit_labels())


@register("target", law="unknown")
def digits_images(heldout_fraction: Fraction, standardise: bool) -> LabelledTarget:
    """The digits as 8×8 images: all 64 pixels are kept and dequantised, constant ones too.

    Parameters
    ----------
    heldout_fraction : float
        In (0, 1).
    standardise : bool
        Whether the pixels are centred and divided by their standard deviations; else all
        are scaled alike from [0, 17) to [−1, 1).

    Returns
    -------
    LabelledTarget
        Of dimension 64, 17 levels and ten classes: a likelihood has bits per dimension.
    """
    rows = EmpiricalTarget.from_levels(_rows("digits"), heldout_fraction, standardise, 17, (8, 8))
    return LabelledTarget.of(rows, _digit_labels())


@register("target")
def digits_gaussian() -> LawTarget:
    """The Gaussian with the mean and covariance of the standardised digits.

    Returns
    -------
    LawTarget
        Of dimension 61; its draws are restored to images as the digits are.
    """
    data = digits(heldout_fraction=0.5)
    return LawTarget(data.reference, data.coordinates, data.image_shape)


@register("target", law="unknown")
def breast_cancer(heldout_fraction: Fraction, standardise: bool) -> EmpiricalTarget:
    """Scikit-learn's breast cancer table: 569 rows of 30 columns, all with decimals.

    The columns are nearly collinear (radius, perimeter and area of the same nuclei): their
    correlation has eigenvalues from 1.3e-4 to 13.3. Nothing is dequantised.

    Parameters
    ----------
    heldout_fraction : float
        In (0, 1).
    standardise : bool
        See `EmpiricalTarget.from_rows`; the raw variances run from 7e-6 to 3e5.

    Returns
    -------
    EmpiricalTarget
        Of dimension 30.
    """
    return _shipped("breast_cancer", heldout_fraction, standardise)


@register("target", law="unknown")
def diabetes(heldout_fraction: Fraction, standardise: bool) -> EmpiricalTarget:
    """Scikit-learn's diabetes table in its own units: 442 rows of 10 columns.

    Age, sex, s1 and s6 are whole numbers and dequantised; sex takes two values.

    Parameters
    ----------
    heldout_fraction : float
        In (0, 1).
    standardise : bool
        See `EmpiricalTarget.from_rows`.

    Returns
    -------
    EmpiricalTarget
        Of dimension 10.
    """
    return _shipped("diabetes", heldout_fraction, standardise)


@register("target", law="unknown")
def wine(heldout_fraction: Fraction, standardise: bool) -> EmpiricalTarget:
    """Scikit-learn's wine table: 178 rows of 13 columns, three cultivars mixed.

    Magnesium and proline are whole numbers and dequantised.

    Parameters
    ----------
    heldout_fraction : float
        In (0, 1).
    standardise : bool
        See `EmpiricalTarget.from_rows`.

    Returns
    -------
    EmpiricalTarget
        Of dimension 13.
    """
    return _shipped("wine", heldout_fraction, standardise)


def _shipped(
    name: str,
    heldout_fraction: float,
    standardise: bool,
    image_shape: tuple[int, int] | None = None,
) -> EmpiricalTarget:
    return EmpiricalTarget.from_rows(
        _rows(name), heldout_fraction, standardise, dequantise=True, image_shape=image_shape
    )


#: By name: scikit-learn's file, its delimiter, lines of header, and columns that are features.
_FILES: dict[str, tuple[str, str | None, int, int]] = {
    "digits": ("digits.csv.gz", ",", 0, 64),
    "breast_cancer": ("breast_cancer.csv", ",", 1, 30),
    "diabetes": ("diabetes_data_raw.csv.gz", None, 0, 10),
    "wine": ("wine_data.csv", ",", 1, 13),
}


def _rows(name: str) -> npt.NDArray[np.float64]:
    """Features of a data set as they stand in scikit-learn's file.

    Its loaders give the same numbers, but importing it takes each job a second.
    """
    file, delimiter, header, columns = _FILES[name]
    path = distribution("scikit-learn").locate_file(f"sklearn/datasets/data/{file}")
    return np.loadtxt(str(path), delimiter=delimiter, skiprows=header, usecols=range(columns))


def _digit_labels() -> npt.NDArray[np.int64]:
    """Which digit each row is, the column after its pixels."""
    file, delimiter, header, columns = _FILES["digits"]
    path = distribution("scikit-learn").locate_file(f"sklearn/datasets/data/{file}")
    return np.loadtxt(str(path), np.int64, delimiter=delimiter, skiprows=header, usecols=columns)
