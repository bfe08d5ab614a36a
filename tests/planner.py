"""Snakemake, imported once: plans are made by forks of it.

Most of the time of a dry run goes into imports and the syntax trees of the package, which are the
same for all. A process of its own: what runs tests has threads, and a fork has none of them.
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parents[1]


@cache
def _server() -> subprocess.Popen[str]:
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.planner"],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert server.stdin is not None
    atexit.register(server.communicate)  # its input ends, and so does it
    return server


def run(
    words: Sequence[str], folder: Path, environment: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    """``python -m snakemake`` with some words, in a folder; of this checkout's `sgm` alone."""
    server = _server()
    assert server.stdin is not None
    assert server.stdout is not None
    with TemporaryDirectory() as said:
        request = [list(words), str(folder), dict(environment), said]
        server.stdin.write(json.dumps(request) + "\n")
        server.stdin.flush()
        code = int(server.stdout.readline())
        out, error = (Path(said, name).read_text() for name in ("out", "error"))
    return subprocess.CompletedProcess(words, code, out, error)


def _serve() -> None:
    import smart_open  # noqa: F401 — Snakemake does when it opens the Snakefile
    from snakemake.cli import get_argument_parser, main

    from sgm.run.check import check
    from sgm.study import Plan, Study
    from tests.workflow import tiny

    study = Study.parse(tiny())
    check(study)
    for view in ("grid", "figures", "tables"):
        Plan(study, Path("results")).view_spec(view)  # keeps the syntax trees
    get_argument_parser()  # imports the plugins
    for line in sys.stdin:
        words, folder, environment, said = json.loads(line)
        child = os.fork()
        if not child:
            for name, stream in (("out", 1), ("error", 2)):
                os.dup2(os.open(Path(said, name), os.O_WRONLY | os.O_CREAT), stream)
            os.chdir(folder)
            os.environ.clear()
            os.environ.update(environment)
            sys.argv = ["snakemake", *words]
            main()  # exits, as the whole process then does
            sys.exit("Snakemake came back")
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    _serve()
