"""Why a bound is no theorem somewhere: a number for the grid, and a reason in words."""

from __future__ import annotations

from enum import IntEnum
from typing import Self

__all__ = ["Objection"]


class Objection(IntEnum):
    """Base of the objections to a bound; a member is ``NAME = number, reason``, and 0 is none.

    Attributes
    ----------
    reason : str
        The objection in a few words.
    """

    reason: str

    def __new__(cls, code: int, reason: str) -> Self:
        member = int.__new__(cls, code)
        member._value_ = code
        member.reason = reason
        return member
