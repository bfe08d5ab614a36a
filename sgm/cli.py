"""The console script `sgm`: the words of every command. `make` calls the same ones.

What a command does stands elsewhere, and is imported when it is asked for. STUDY is everywhere a
config file or the name of a study that is shipped (`sgm.shipped`); results are in `results` of
the current folder.
"""

from __future__ import annotations

import argparse
import inspect
import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from sgm import __version__
from sgm.published import PUBLISHED
from sgm.shipped import config_file, located, shipped

__all__ = ["main"]

Command = Callable[[argparse.Namespace], int | None]

#: Of a family, in the words of `sgm check`.
VERDICTS = {"holds": "holds", "fails": "FAILS", "open": "open "}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; exit status 1 with one message if it is refused."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    cut = words.index("--") if "--" in words else len(words)
    options = _parser().parse_args(words[:cut])
    if words[cut:] and options.run is not study:
        _parser().error("--: nothing may follow it but Snakemake's options, after `sgm study`")
    options.snakemake = words[cut + 1 :]
    # One thread a process: several figures or jobs at a time are faster, and numbers the same. The
    # libraries read this when they are imported.
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(variable, "1")
    os.environ["MPLBACKEND"] = "agg"  # Jupyter exports one that is importable in its kernel alone
    if not os.access(os.environ.get("XDG_CACHE_HOME") or Path.home(), os.W_OK):
        caches = Path(".cache").resolve()  # a home may be read-only, as on some compute nodes
        os.environ.update(XDG_CACHE_HOME=str(caches), MPLCONFIGDIR=str(caches / "matplotlib"))
    try:
        status = options.run(options)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader, such as `head`, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, OSError) as error:
        lines = filter(None, (line.strip() for line in str(error).splitlines()))
        print(f"{options.command}: {': '.join(lines)}", file=sys.stderr)
        return int(options.refused)
    return status or 0


# --- commands ----------------------------------------------------------------------------


def study(options: argparse.Namespace) -> None:
    """Run a study: all its jobs, then its grid, figures and tables.

    Snakemake runs it. What follows `--` is passed on to Snakemake, as in `-- --dry-run`.
    """
    from sgm.run.check import read_study

    path = config_file(options.study)
    read_study(path, trust=True)
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(shipped() / "Snakefile")]
    command += ["--configfile", str(path)]
    if options.profile:
        command += ["--workflow-profile", str(_profile(options.profile))]
    else:
        command += ["--cores", options.cores, "--logger", "sgm"]
    environment = os.environ.copy()
    for name, first in {  # of the logger; and of `python` in the rules, which is this one
        "PYTHONPATH": shipped() / "workflow",
        "PATH": Path(sys.executable).parent,
    }.items():
        environment[name] = os.pathsep.join(filter(None, (str(first), os.environ.get(name))))
    sys.stdout.flush()
    os.execve(sys.executable, [*command, *options.snakemake], environment)


def _profile(name: str) -> Path:
    known = {path.name: path for path in sorted((shipped() / "profiles").iterdir())}
    path = located(name)
    path = path if path.is_dir() else known.get(name, path)
    if not path.is_dir():
        raise ValueError(f"profile = {name!r}: must be a folder, or one of {', '.join(known)}")
    return path


def plan(options: argparse.Namespace) -> None:
    """Show what is done, new, stale and failed in a study, and how long the rest takes."""
    from sgm.run.inventory.status import plan_of, plan_text

    _print(plan_text(plan_of(options.study)))


def status(options: argparse.Namespace) -> None:
    """Show what is done, running and stopped in a running study, and when it ends."""
    from sgm.run.inventory.status import plan_of, status_text

    _print(status_text(plan_of(options.study)))


def usage(options: argparse.Namespace) -> None:
    """Show disk space by study and kind of file."""
    from sgm.run.inventory.status import usage_text

    _print(usage_text(Path("results")))


def clean_stale(options: argparse.Namespace) -> None:
    """List the files in a study's folder that no cell refers to, or delete them."""
    from sgm.run.inventory.status import clean_text, plan_of

    _print(clean_text(plan_of(options.study), options.yes))


def publish(options: argparse.Namespace) -> None:
    """Write the grid, figures and tables of a finished study into a folder."""
    from sgm.run.publish import publish

    print(f"The study is published in {publish(options.study, options.folder)}.")


def report(options: argparse.Namespace) -> None:
    """Write one offline page about a study that has run, or a published one."""
    from sgm.run.report import report

    print(f"The report is {report(options.study, options.folder)}.")


def reports(options: argparse.Namespace) -> None:
    """Write the pages of all published studies, and an index of these and your own."""
    from sgm.run.report import reports

    print(f"The index is {reports(options.folder)}.")


def figures(options: argparse.Namespace) -> None:
    """Redraw the figures of one or all published studies from their grids; run nothing."""
    from sgm.published import studies
    from sgm.run.publish import DRAWN, redraw
    from sgm.study.document import read_config

    cores = options.cores
    processes = int(cores) if cores.isdecimal() and int(cores) else os.cpu_count() or 1
    name = options.study
    if name.endswith(".yaml"):
        name = str(read_config(name).get("study"))
    for published in [name] if name else studies(options.folder):
        redraw(published, DRAWN, options.folder, options.formats, processes, options.x or None)
        print(f"The figures are in {DRAWN / published}.", flush=True)


def check(options: argparse.Namespace) -> int:
    """Test the properties of one family: from a file, from a study, or built in.

    One line per property: it holds, it FAILS with the first offending value, or it is open, and
    why. Exit status 1 if one fails, 2 if there is nothing to test. The file, or the extensions of
    the study, are imported, which executes them.
    """
    from sgm.run.properties import examine
    from sgm.run.properties.bounds import CELLS
    from sgm.run.properties.kinds import items_in, items_of

    cells = CELLS if options.cells is None else options.cells
    if cells < 1:
        raise ValueError(f"cells = {cells}: must be at least 1")
    own = {"file": options.file, "parameters": options.parameters}
    if options.study:
        if given := [key for key, value in own.items() if value]:
            raise ValueError(f"study and {given[0]}: must be one of them, the study has both")
        items = items_in(options.name, options.study, options.kind)
    else:
        items = items_of(options.name, **own, kind=options.kind)
    counts: Counter[str] = Counter()
    for item in items:
        print(f"{item.kind} {item.label}, {item.entry.build}", flush=True)
        for found in examine(item, cells):
            word = VERDICTS[found.verdict]
            print(f"  {word}  {found.statement}: {found.sentence}", flush=True)
            counts[found.verdict] += 1
    words = {"holds": "hold", "fails": "fail", "open": "do not apply"}
    print("Properties: " + ", ".join(f"{counts[v]} {word}" for v, word in words.items()) + ".")
    return 1 if counts["fails"] else 0


def schedule(options: argparse.Namespace) -> None:
    """Find the best noise schedule for a law, and write it as a file that studies read.

    Prints what it gains over the usual schedules, by exact laws, and writes the schedule, a
    certificate and a figure into a folder.
    """
    from sgm.run.schedule import search

    names = ("objective", "sampler", "variance", "space", "knots")
    choices = {name: getattr(options, name) for name in names}
    lines = search(
        options.target, options.data, options.study, options.steps, options.error, options.folder,
        **choices,
    )  # fmt: skip
    _print(lines)


def validate(options: argparse.Namespace) -> None:
    """Check a config without executing anything in it, unless --trust imports its extensions."""
    from sgm.run.check import read_study

    name = read_study(options.study, options.trust).study
    executes = "" if options.trust else ", and executes no code of its own"
    print(f"study {name!r}: valid{executes}")


def schema(options: argparse.Namespace) -> None:
    """Print the JSON schema of a config, for editors."""
    from sgm.study import json_schema

    print(json.dumps(json_schema(), indent=2, ensure_ascii=False))


def _print(lines: Iterable[str]) -> None:
    for line in lines:
        print(line)


# --- words -------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sgm",
        description="Noise-schedule studies: theory beside experiment. STUDY is a config file, or "
        "the name of a study that comes with the package, such as exact-kl.",
    )
    parser.add_argument("--version", action="version", version=f"sgm {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(run: Command, refused: int = 1) -> argparse.ArgumentParser:
        text = inspect.getdoc(run) or ""
        name, line = run.__name__.replace("_", "-"), text.partition("\n")[0]
        own = commands.add_parser(name, help=line.rstrip("."), description=text)
        own.set_defaults(run=run, refused=refused)
        return own

    def add_study(run: Command) -> argparse.ArgumentParser:
        own = add(run)
        own.add_argument(
            "study", nargs="?", default="quick", metavar="STUDY",
            help="config file, or name of a study in the package; by default %(default)s",
        )  # fmt: skip
        return own

    own = add_study(study)
    own.add_argument("--cores", default="all", help="number of cores, by default %(default)s")
    own.add_argument(
        "--profile", default="", help="profile of Snakemake for a cluster, instead of cores"
    )
    add_study(plan)
    add_study(status)
    add(usage)
    own = add_study(clean_stale)
    own.add_argument("--yes", action="store_true", help="delete them")
    own = add_study(publish)
    own.add_argument(
        "--folder",
        type=Path,
        default=Path("published"),
        help="folder to write, by default published",
    )
    for own in (add_study(report), add(reports)):
        own.add_argument(
            "--folder", type=Path, default=PUBLISHED, help="folder of published studies"
        )
    own = add(figures)
    own.add_argument("study", nargs="?", default="", help="its name or its config; by default all")
    own.add_argument(
        "--folder", type=Path, default=PUBLISHED,
        help="folder of published studies, by default %(default)s",
    )  # fmt: skip
    own.add_argument(
        "--formats", nargs="+", choices=["png", "pdf"], default=["png"], help="default: png"
    )
    own.add_argument("--x", help="the number on the x-axis, such as eta; by default what varies")
    own.add_argument("--cores", default="all", help="number of processes, by default %(default)s")
    own = add(check, refused=2)
    own.add_argument("name", help="name of the family, or a label in the study")
    own.add_argument("--file", default="", help="Python file of your families")
    own.add_argument(
        "--parameters", default="", help="its parameters, such as 'exponent: 2, beta_min: 0.1'"
    )
    own.add_argument("--study", default="", help="study that uses the family")
    own.add_argument("--kind", default="", help="kind of the family, if two kinds have that name")
    own.add_argument("--cells", type=int, help="number of random cells on which a bound is tested")
    own = add(schedule)
    own.add_argument(
        "--target", default="", help="name of a target in the study, or a target as YAML"
    )
    own.add_argument(
        "--data",
        default="",
        help="file of rows, .npz with mean and covariance, or folder of images",
    )
    own.add_argument("--study", default="quick", help="study that has the target")
    own.add_argument("--steps", type=int, help="number of steps, by default 10")
    own.add_argument(
        "--error", type=float, help="instead of steps: find the fewest steps that reach this error"
    )
    own.add_argument(
        "--sampler",
        default="exponential_integrator_modified",
        help="its name, or with parameters: '{family: deis, order: 2}'; by default %(default)s",
    )
    own.add_argument("--objective", default="kl", help="kl, w2, or a bound: path, refined, theorem")
    own.add_argument("--space", default="increments", help="increments, spline, grid, a, or a,T")
    own.add_argument("--variance", type=float, default=1.0, help="variance of the stationary law")
    own.add_argument("--knots", type=int, default=6, help="number of knots of a spline")
    own.add_argument(
        "--folder", type=Path, default=Path("results/schedules"),
        help="folder to write, by default %(default)s",
    )  # fmt: skip
    own = add(validate)
    own.add_argument(
        "study", metavar="STUDY", help="config file, or name of a study in the package"
    )
    own.add_argument(
        "--trust", action="store_true", help="import its extensions, which executes them"
    )
    add(schema)
    return parser
