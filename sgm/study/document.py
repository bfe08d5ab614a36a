"""A config file as a mapping: YAML without what reads otherwise than it looks.

YAML 1.1, which Snakemake reads too, takes the last of two equal keys, ``010`` for the octal
8 and ``3:20`` for 200 in base sixty. Each is an error here. A config that ``extends`` another one,
given by its path from the file or its name, has all keys of that but those it gives itself.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from sgm.shipped import config_file, studies

__all__ = ["read_config", "read_mapping"]

# An integer that YAML 1.1 reads to another base than ten, without a letter to say so; a float to
# base sixty.
_OTHER_BASE = re.compile(r"[-+]?(0[0-7_]+|[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?)")


class _Loader(yaml.SafeLoader):
    """The safe loader, which executes nothing, without what is ambiguous."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue  # the safe loader refuses it
            if key.value in seen:
                problem = f"the key {key.value!r} is given twice"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _number(kind: str) -> Any:
    read = getattr(yaml.SafeLoader, f"construct_yaml_{kind}")

    def construct(loader: _Loader, node: yaml.ScalarNode) -> Any:
        value = read(loader, node)
        if _OTHER_BASE.fullmatch(node.value):
            problem = f"{node.value}: YAML reads {value}; write the number out"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
        return value

    return construct


for _kind in ("int", "float"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_kind}", _number(_kind))


def read_config(path: str | Path) -> dict[str, Any]:
    """Read a config file, with what it extends; nothing in it is executed.

    Parameters
    ----------
    path : str or Path
        A YAML or JSON file, or the name of a study that is shipped.

    Returns
    -------
    dict
        As `sgm.study.Study.parse` takes it, without the key ``extends``.

    Raises
    ------
    ValueError
        If it or what it extends can't be read, or is no mapping, in one line that names the file.
    """
    read: list[Path] = []
    config: dict[str, Any] = {}
    here: Path | None = config_file(path)
    while here is not None:
        if here.resolve() in read:
            raise ValueError(f"{path}: extends: must not lead back to {here}")
        read.append(here.resolve())
        own = _read(here)
        base = own.pop("extends", None)
        if not (base is None or isinstance(base, str)):
            raise ValueError(
                f"{here}: extends = {base!r}: must be a config file's path, or a shipped study"
            )
        config = own | config
        here = None if base is None else config_file(base, here.parent)
    return config


def read_mapping(text: str, key: str) -> dict[str, Any]:
    """Read ``name: value, …``, a mapping as it stands on a command line; braces may be left out.

    Parameters
    ----------
    text : str
        Empty for an empty mapping.
    key : str
        What the text is, in a message.

    Raises
    ------
    ValueError
        If it is none, in one line.
    """
    flow = text.strip() if text.strip().startswith("{") else f"{{{text}}}"
    try:
        content = yaml.load(flow, _Loader)
    except yaml.YAMLError as error:
        reason = getattr(error, "problem", None) or "not YAML"
        raise ValueError(f"{key} = {text!r}: must be 'name: value, …': {reason}") from error
    if None in content.values():  # {exponent 2}: a name without a value
        lost = next(name for name, value in content.items() if value is None)
        raise ValueError(f"{key} = {text!r}: must be 'name: value, …'; {lost!r} has no value")
    return dict(content)


def _read(path: Path) -> dict[str, Any]:
    """The mapping in one file."""
    if not path.is_file():
        found = "a folder" if path.is_dir() else "not a file" if path.exists() else "not there"
        raise ValueError(
            f"{str(path)!r} is {found}: must be the config file of a study, or the name of one "
            f"in the package, {', '.join(studies())}"
        )
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: must be UTF-8: byte {error.start} is not") from error
    except yaml.MarkedYAMLError as error:
        place = error.problem_mark or error.context_mark
        line = f", line {place.line + 1}" if place else ""
        raise ValueError(f"{path}{line}: {error.problem}") from error
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{path}: can't be read as YAML: {reason}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: must be a mapping of keys, not {type(content).__name__}")
    return content
