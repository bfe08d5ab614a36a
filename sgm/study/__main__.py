"""``python -m sgm.study`` prints the JSON schema; with a config, checks it.

Nothing is executed, but with ``--trust`` the extensions and the builders that the config names.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sgm.study.config import Study, json_schema
from sgm.study.document import read_config


def inspect(path: Path, trust: bool = False) -> Study:
    """Validate a config, without what it would execute unless it is trusted.

    Snakemake executes the Python of a config that sets ``__use_yte__`` before any of our code
    runs, and `extensions` are Python by design. The former is never valid.

    Raises
    ------
    ValueError
        If it is no valid config, or one that executes code.
    """
    from sgm.run.check import check

    config = read_config(path)
    executed = {key: config.get(key) for key in ("__use_yte__", "extensions")}
    executed["builder"] = next(_builders(config.get("scores")), None)
    for key in ["__use_yte__"] if trust else executed:
        if executed[key]:
            raise ValueError(
                f"{key} = {executed[key]!r}: executes code; read it before you run it. Nothing "
                "else of this config was checked; with --trust it is, and what it names is executed"
            )
    study = Study.parse(config)
    check(study)
    return study


def _builders(scores: Any) -> Iterator[Any]:
    """What builds the networks of some scores, of a config that may not be valid."""
    for score in scores if isinstance(scores, list) else [scores]:
        if isinstance(score, dict):
            yield from (own for key, own in score.items() if key == "builder" and own)
            yield from _builders(score.get("recipe"))


def main(arguments: list[str] | None = None) -> int:
    """Print the schema, or one line on a config; exit status 1 if it is refused."""
    parser = argparse.ArgumentParser(prog="python -m sgm.study", description=__doc__)
    parser.add_argument("config", nargs="?", type=Path, help="a config to check")
    parser.add_argument("--trust", action="store_true", help="import its extensions")
    options = parser.parse_args(arguments)
    path, trust = options.config, options.trust
    try:
        if path is None:
            print(json.dumps(json_schema(), indent=2, ensure_ascii=False))
        else:
            study = inspect(path, trust).study
            executes = "" if trust else ", and executes no code of its own"
            print(f"study {study!r}: valid{executes}")
        sys.stdout.flush()
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    except BrokenPipeError:  # the reader, such as `head`, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


if __name__ == "__main__":
    sys.exit(main())
