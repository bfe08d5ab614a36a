"""What became of a property: it holds, it fails, or it does not apply."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from sgm.study.registry import line_of

__all__ = [
    "Finding",
    "InapplicableError",
    "Property",
    "PropertyError",
    "findings",
    "judge",
    "require_mean",
    "require_where",
]

Array = npt.NDArray[np.float64]

#: Standard errors that a Monte-Carlo mean may be off, for each of the few thousand of a check.
SIGMAS = 5.0


class PropertyError(ValueError):
    """A property that does not hold; the message has the first offending value."""


class InapplicableError(Exception):
    """A property that says nothing of this subject; the message says why.

    Without a message the property is not of its kind at all, and nothing is said of it.
    """


class Finding(NamedTuple):
    """A property and what became of it."""

    statement: str
    verdict: Literal["holds", "fails", "open"]
    sentence: str


Property = Callable[[Any], str]


def require_where(holds: npt.ArrayLike, sentence: Callable[..., str]) -> None:
    """Raise `PropertyError` with the sentence of the first index at which `holds` is false."""
    holds = np.asarray(holds)
    if not holds.all():
        raise PropertyError(sentence(*np.argwhere(~holds)[0]))


def require_mean(name: str, expected: npt.ArrayLike, draws: Array) -> float:
    """Refuse an expectation that independent draws contradict by `SIGMAS` standard errors.

    Parameters
    ----------
    name : str
        Of the expectation, in the message.
    expected : array_like, shape (...)
    draws : ndarray, shape (n, ...)

    Returns
    -------
    float
        The largest gap, in standard errors.
    """
    expected = np.asarray(expected, dtype=np.float64)
    mean, error = draws.mean(axis=0), draws.std(axis=0) / np.sqrt(len(draws))
    # a mean of equal numbers has no error but rounding
    error = error + 1e-11 * (np.abs(expected) + np.abs(draws).max(axis=0)) + 1e-300
    gap = np.abs(mean - expected) / error

    def sentence(*index: int) -> str:
        place = f"[{', '.join(map(str, index))}]" if index else ""
        return (
            f"{name}{place} = {expected[index]:.6g}, but {len(draws)} draws have mean "
            f"{mean[index]:.6g} ± {error[index]:.2g}"
        )

    require_where(gap <= SIGMAS, sentence)
    return float(gap.max())


def statement(prop: Property) -> str:
    """What a property says: the first line of its docstring."""
    return (inspect.getdoc(prop) or prop.__name__).splitlines()[0].removesuffix(".")


def judge(prop: Property, subjects: Mapping[str, Any]) -> Finding:
    """Test a property on some subjects, until it fails.

    Parameters
    ----------
    prop : callable
    subjects : mapping
        Where each one stands, such as ``"T = 1"``, to the subject.

    Returns
    -------
    Finding
        With the words of the first subject to which it applies if it holds.
    """
    words, reason = "", ""
    for where, subject in subjects.items():
        try:
            with np.errstate(all="ignore"), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the numbers are looked at, not their way
                found = prop(subject)
        except InapplicableError as error:
            reason = reason or str(error)
        except MemoryError:
            raise
        except Exception as error:
            return Finding(statement(prop), "fails", f"{where}: {in_words(error)}")
        else:
            words = words or found
    if not words:
        return Finding(statement(prop), "open", reason)
    return Finding(statement(prop), "holds", words)


def in_words(error: Exception) -> str:
    """An error in one line, with the line of the user's file in which it arose."""
    text = " ".join(str(error).split())
    where = line_of(error)
    named = text if isinstance(error, ValueError) else f"{type(error).__name__}: {text}"
    return f"{named} ({where})" if where else named


def findings(
    properties: Iterable[Property], builders: Mapping[str, Callable[[], Any]]
) -> Iterator[Finding]:
    """Build the subjects, and test all properties on those that could be built."""
    subjects, lost, refused = {}, "", ""
    for where, build in builders.items():
        try:
            with np.errstate(all="ignore"), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                subjects[where] = build()
        except InapplicableError as error:
            refused = refused or f"; refused: {where}: {error}"
        except MemoryError:
            raise
        except Exception as error:
            lost = lost or f"{where}: {in_words(error)}"
    built, others = "It can be built", f", and {len(subjects) - 1} more" * (len(subjects) > 1)
    words = f"{next(iter(subjects), 'nothing')}{others}{refused}"
    yield Finding(built, "fails", lost) if lost else Finding(built, "holds", words)
    for prop in properties if subjects else ():
        found = judge(prop, subjects)
        if found.sentence:
            yield found
