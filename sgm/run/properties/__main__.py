"""Test the properties of one family: ``python -m sgm.run.properties NAME``, as `make check` does.

A family of a user's `--file` with its `--parameters`, a built-in one, or those of a `--study`.
A line a property: it holds, it FAILS with the first offending value, or it is open, and why.
A file and the extensions of a study are imported, which is to execute them.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter

# more threads than one make nothing faster here; libraries read this when they are imported
for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

from sgm.run.properties.bounds import CELLS  # noqa: E402
from sgm.run.properties.kinds import examine, items_in, items_of  # noqa: E402
from sgm.study import Item  # noqa: E402

__all__ = ["main"]

WORDS = {"holds": "holds", "fails": "FAILS", "open": "open "}


def _items(options: argparse.Namespace) -> list[Item]:
    if options.study:
        for key in ("file", "parameters"):
            if getattr(options, key):
                raise ValueError(
                    f"STUDY and {key.upper()}: must be one of them, the study has both"
                )
        return items_in(options.name, options.study, options.kind)
    return items_of(options.name, options.file, options.parameters, options.kind)


def main(arguments: list[str] | None = None) -> int:
    """Print the findings; exit status 1 if a property fails, 2 if nothing could be tested."""
    parser = argparse.ArgumentParser(prog="python -m sgm.run.properties", description=__doc__)
    parser.add_argument("name", help="of the family, or a label of the study")
    parser.add_argument("--file", default="", help="of the user's families")
    parser.add_argument("--parameters", default="", help="such as 'exponent: 2, beta_min: 0.1'")
    parser.add_argument("--study", default="", help="config that has the family")
    parser.add_argument("--kind", default="", help="where a name is that of two kinds")
    parser.add_argument("--cells", type=int, default=CELLS, help="random cells of a bound")
    options = parser.parse_args(arguments)
    counts: Counter[str] = Counter()
    try:
        if options.cells < 1:
            raise ValueError(f"CELLS = {options.cells}: must be at least 1")
        for item in _items(options):
            print(f"{item.kind} {item.label}, {item.entry.build}", flush=True)
            for found in examine(item, options.cells):
                print(f"  {WORDS[found.verdict]}  {found.statement}: {found.sentence}", flush=True)
                counts[found.verdict] += 1
        words = {"holds": "hold", "fails": "fail", "open": "do not apply"}
        print("Properties: " + ", ".join(f"{counts[v]} {word}" for v, word in words.items()) + ".")
    except BrokenPipeError:  # the reader, such as `head`, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except ValueError as error:
        print(f"check: {error}", file=sys.stderr)
        return 2
    return 1 if counts["fails"] else 0


if __name__ == "__main__":
    sys.exit(main())
