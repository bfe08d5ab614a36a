"""Blocks: which schedules and which seeds one job does together, and what is on disk of them.

A job does a block of schedules times a block of seeds of one *chain* (target, horizon,
score; then sampler, time grid, number of steps). A block of schedules is named by its labels,
joined by commas, one of seeds by its first and last seed. Both stand in paths; what is on
disk stays as it is, and what is new goes to new blocks, so that a study grows without
recomputing. The cut is stable: cut again when some of the new blocks are on disk, the
others come out as before.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from string import Formatter

__all__ = [
    "CELLS",
    "OUTPUTS",
    "PATTERNS",
    "fields",
    "found",
    "most_schedules",
    "schedule_blocks",
    "seed_blocks",
    "stage_of",
]

#: Files of a study below its results folder, by kind; the fields are labels.
PATTERNS = {
    "data": "data/{target}/seeds_{seeds}.npz",
    "network": "networks/{target}/{schedules}/T={horizon}/{score}/seeds_{seeds}.safetensors",
    "training": "cells/training/{target}/{schedules}/T={horizon}/{score}/seeds_{seeds}.npz",
    "reference": "reference/{target}/{schedule}/T={horizon}/{sampler}/{time_grid}-{n_steps}.npz",
    "samples": "samples/{target}/{schedules}/T={horizon}/{score}"
    "/{sampler}/{time_grid}-{n_steps}/seeds_{seeds}.npz",
    "divergences": "cells/divergences/{target}/{schedules}/T={horizon}/{score}"
    "/{sampler}/{time_grid}-{n_steps}/seeds_{seeds}.npz",
    "bounds": "cells/bounds/{target}/{schedules}/T={horizon}/{score}"
    "/{time_grid}-{n_steps}/seeds_{seeds}.npz",
    "likelihood": "cells/likelihood/{target}/{schedules}/T={horizon}/{score}/seeds_{seeds}.npz",
    "floors": "cells/floors/{target}/seeds_{seeds}.npz",
    "pictures": "cells/pictures/{target}/{schedule}/{score}.npz",
    "exact": "cells/exact/{target}.npz",
    "priors": "cells/priors/{target}/seeds_{seeds}.npz",
    "learned": "cells/learned/{target}/seeds_{seeds}.npz",
    "axes": "cells/axes.npz",
}

#: Kinds of files that a stage makes, where there are more than the one of its name.
OUTPUTS = {"network": ("network", "training")}

#: Kinds of files that the grid is gathered from.
CELLS = tuple(kind for kind, pattern in PATTERNS.items() if pattern.startswith("cells/"))

#: Longest name of a block of schedules: file systems allow 255 bytes.
LONGEST_NAME = 200


@cache
def fields(kind: str) -> tuple[str, ...]:
    """Labels that stand in the path of a kind of file."""
    return tuple(name for _, name, _, _ in Formatter().parse(PATTERNS[kind]) if name)


def stage_of(kind: str) -> str:
    """The stage that makes a kind of file."""
    return next((stage for stage, kinds in OUTPUTS.items() if kind in kinds), kind)


def found(root: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Kind and labels of every file of a block of seeds below a study's folder."""
    numbers = {"seeds": r"\d+-\d+", "n_steps": r"\d+"}
    for kind, pattern in PATTERNS.items():
        if "seeds" not in fields(kind):
            continue
        parts = [
            re.escape(text) + (f"(?P<{name}>{numbers.get(name, '[^/]+')})" if name else "")
            for text, name, _, _ in Formatter().parse(pattern)
        ]
        expression = re.compile("".join(parts))
        for folder, _, names in os.walk(root / pattern.partition("/{")[0]):
            for name in names:
                match = expression.fullmatch(f"{folder[len(str(root)) + 1 :]}/{name}")
                if match:
                    yield kind, match.groupdict()


def seed_blocks(n_seeds: int, size: int, on_disk: Iterable[str]) -> tuple[str, ...]:
    """Seed ranges that cover 0 … n − 1: those on disk first, new ones for the rest."""
    wanted = set(range(n_seeds))
    chosen = []
    for first, last in sorted((int(a), int(b)) for a, b in (name.split("-") for name in on_disk)):
        covered = wanted & set(range(first, last + 1))
        if covered:
            chosen.append((first, last))
            wanted -= covered
    while wanted:
        first = last = min(wanted)
        while last + 1 in wanted and last + 1 - first < size:
            last += 1
        chosen.append((first, last))
        wanted -= set(range(first, last + 1))
    return tuple(f"{first}-{last}" for first, last in sorted(chosen))


def most_schedules(labels: Sequence[str]) -> int:
    """How many schedules a block can have, for its name must not be too long."""
    return max(1, (LONGEST_NAME + 1) // (max(map(len, labels)) + 1))


def schedule_blocks(
    labels: Sequence[str], size: int, on_disk: Collection[str], is_current: Callable[[str], bool]
) -> tuple[str, ...]:
    """Blocks of one chain that cover the schedules of a study.

    Parameters
    ----------
    labels : sequence of str
        The study's schedules.
    size : int
        How many a new block has, at most: as many as its name has room for.
    on_disk : collection of str
        Blocks of the chain that are on disk.
    is_current : callable
        Whether nothing of a block on disk would run again. Asked only of blocks that hold a
        schedule that the study lacks, or one that another block holds too.

    Returns
    -------
    tuple of str
        What is on disk first. A block with a schedule that the study lacks is kept while it
        is current, and given up when it would run again.
    """
    members = {name: set(name.split(",")) for name in sorted(on_disk)}
    known, taken = set(labels), set[str]()
    held = [label for own in members.values() for label in own]
    doubtful = not known.issuperset(held) or len(set(held)) < len(held)
    current = {name for name in members if doubtful and is_current(name)}
    chosen = []
    for name in sorted(members, key=lambda name: name not in current):
        own = members[name]
        if own & known - taken and (name in current or (own <= known and not own & taken)):
            chosen.append(name)
            taken |= own
    rest = [label for label in labels if label not in taken]
    # not cut where a name happens to get too long: that would depend on what is on disk already
    size = min(size, most_schedules(labels))
    chosen += [",".join(rest[i : i + size]) for i in range(0, len(rest), size)]
    return tuple(chosen)
