"""Command line of one job: ``python -m sgm.run STAGE …``, as the workflow's rules call it."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

# Parallelism comes from running several jobs; within one thread numbers are the same
# whatever the block. The libraries read this when they are imported.
for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(variable, "1")
os.environ["MPLBACKEND"] = "agg"  # Jupyter exports one that is importable in its kernel alone

from sgm.registry import line_of  # noqa: E402
from sgm.run.jobs import views  # noqa: E402
from sgm.run.jobs.stages import STAGES  # noqa: E402
from sgm.run.jobs.stamps import write_stamp  # noqa: E402
from sgm.store.cells import check_made_for, seed_range  # noqa: E402
from sgm.store.content import content_of  # noqa: E402

# How torch says it; NumPy and Python raise a MemoryError.
OUT_OF_MEMORY = re.compile("out of memory|allocate memory")


def _spec(text: str) -> dict[str, Any]:
    try:
        spec = json.loads(text)
    except ValueError as error:
        raise ValueError(f"--spec = {text[:40]!r}: must be JSON: {error}") from error
    if not isinstance(spec, dict):
        raise ValueError(f"--spec = {text[:40]!r}: must be a JSON object")
    return spec


def _files(words: list[str]) -> dict[str, Path]:
    pairs = [word.partition("=") for word in words]
    for name, _, path in pairs:
        if not (name and path):
            raise ValueError(f"--input, --output = {name!r}: must be NAME=PATH")
    return {name: Path(path) for name, _, path in pairs}


def main(arguments: list[str] | None = None) -> int:
    """Run one stage; exit status 1 with one line on bad input, a full disk or too little memory."""
    parser = argparse.ArgumentParser(prog="python -m sgm.run", description=__doc__)
    parser.add_argument("stage", choices=[*STAGES, *views.VIEWS])
    parser.add_argument(
        "--spec", required=True, help="what the job must know: JSON, or - for stdin"
    )
    parser.add_argument("--seeds", default="0-0", help="first and last seed of the block")
    parser.add_argument("--input", nargs="*", default=[], metavar="NAME=PATH")
    parser.add_argument("--output", nargs="*", default=[], metavar="NAME=PATH")
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    parser.add_argument("--processes", type=int, default=1, help="of a view that draws many")
    options = parser.parse_args(arguments)
    try:
        spec = _spec(sys.stdin.read() if options.spec == "-" else options.spec)
        inputs, outputs = _files(options.input), _files(options.output)
        for path, content in spec.get("files", {}).items():
            if content_of(path) != content:
                raise ValueError(f"{path}: has changed since the study was planned; run it again")
        if options.stage in views.VIEWS:
            files = views.VIEWS[options.stage](
                spec | {"processes": options.processes}, inputs, outputs
            )
            write_stamp(outputs["stamp"], spec, files)
        else:
            for name, wanted in spec.get("inputs", {}).items():
                check_made_for(inputs[name], wanted)
            stage = STAGES[options.stage]
            stage(spec, seed_range(options.seeds), inputs, outputs, options.device)
    except (ValueError, OSError) as error:
        print(f"{options.stage}: {error}", file=sys.stderr)
        return 1
    except Exception as error:
        first = (str(error) or "of Python's own").splitlines()[0]
        torch_says_so = isinstance(error, RuntimeError) and OUT_OF_MEMORY.search(first)
        if isinstance(error, MemoryError) or torch_says_so:
            print(f"{options.stage}: out of memory: {first}", file=sys.stderr)
            return 1
        where = line_of(error)
        if not where:  # not a user's fault: all of the traceback
            raise
        print(f"{options.stage}: {where}: {type(error).__name__}: {first}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # taking torch's modules down one by one takes a third of a second
