"""Reading a config file: YAML in which nothing is said twice and no number is two.

YAML 1.1, which Snakemake and PyYAML read, takes the last of two equal keys, ``010`` for 8 and
``3:20`` for 200. ``python -m sgm.study.document FILE`` checks that a file can be read, without
a look at what it says: `make study` does so before it starts Snakemake.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import yaml

__all__ = ["read_config"]

#: Numbers that people read one way and YAML 1.1 another: octal, and to the base 60.
_TWO_WAYS = re.compile(r"[-+]?0[0-9_]+|[-+]?[0-9][0-9_]*(:[0-9]+)+(\.[0-9_]*)?")


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, but for keys given twice and numbers that can be read in two ways."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        lines: dict[str, int] = {}
        for key, _ in node.value:  # before `<<` is merged: its keys may be given again
            line = key.start_mark.line + 1
            name = key.value if isinstance(key, yaml.ScalarNode) else ""
            if name and name in lines:
                raise ValueError(
                    f"{name}: must be given once; it is on lines {lines[name]} and {line}"
                )
            lines[name] = line
        return super().construct_mapping(node, deep)

    def _number(self, node: yaml.ScalarNode) -> Any:
        integer = node.tag.endswith(":int")
        value = (self.construct_yaml_int if integer else self.construct_yaml_float)(node)
        if _TWO_WAYS.fullmatch(node.value):
            raise ValueError(
                f"{node.value} on line {node.start_mark.line + 1}: must be written as a decimal "
                f"number; YAML reads it as {value}"
            )
        return value


for _kind in ("int", "float"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_kind}", _Loader._number)


def read_config(path: str | Path) -> dict[str, Any]:
    """The content of a config file.

    Raises
    ------
    ValueError
        One line, if it can't be read, is not YAML, gives a key twice, writes a number that YAML
        reads otherwise than people do, or is no mapping.
    """
    path = Path(path)
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except OSError as error:
        raise ValueError(f"STUDY = {str(path)!r}: must be a config: {error.strerror}") from error
    except (UnicodeError, RecursionError, ValueError, yaml.YAMLError) as error:
        mark = getattr(error, "problem_mark", None)
        reason = f"line {mark.line + 1}: {getattr(error, 'problem', '')}" if mark else str(error)
        raise ValueError(f"STUDY = {str(path)!r}: must be a readable config: {reason}") from error
    if not isinstance(content, dict):
        raise ValueError(f"STUDY = {str(path)!r}: must be a config, a mapping of keys")
    return content


if __name__ == "__main__":
    try:
        for name in sys.argv[1:]:
            read_config(name)
    except ValueError as error:
        sys.exit(str(error))
