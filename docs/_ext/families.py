"""A page a family, from what the registry knows of it, with its picture.

What a family needs to be drawn stands in the studies of ``config``: the first line that names it.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_type_hints

import pictures
import yaml
from pages import indented, table, title, write
from sphinx.application import Sphinx

from sgm.registry import Entry, families
from sgm.study import Study
from sgm.study.document import read_config
from sgm.study.families import model_of
from sgm.study.items import Item

ROOT = Path(__file__).parents[2]
#: Axis of a study, words, and the pages that say more, by kind.
KINDS = {
    "schedule": ("schedules", "Noise schedules", ["schedules", "best-schedule"]),
    "target": ("targets", "Targets", ["extend"]),
    "sampler": ("samplers", "Samplers", ["samplers", "leaderboard"]),
    "time_grid": ("time_grids", "Time grids", ["timegrids"]),
    "score": ("scores", "Scores", ["extend", "config"]),
    "divergence": ("divergences", "Divergences", ["metrics"]),
    "bound": ("bounds", "Bounds", ["bounds", "mathematics"]),
    "process": ("process", "Forward processes", ["notation"]),
}
NEEDS = {
    "": "any target",
    "law": "a target with a known law",
    "gaussian": "a Gaussian target",
    "density": "a target with a known law that is not Gaussian",
    "data": "a data set, whose law is unknown",
    "posterior": "a target ``posterior``, which has a prior and an observation",
    "tilted": "a target ``tilted``, which has a prior and a component of it",
    "conditional": "a target ``conditional``, which has a prior and a class of it",
}
LAWS = {
    "gaussian": "Gaussian: the laws of samplers are exact",
    "density": "known, not Gaussian: density and scores",
    "unknown": "unknown: only its rows are given",
}
#: Studies that have many families of a kind, with parameters that were chosen to show them.
BROAD = {"schedules", "time-grids", "samplers", "exact-kl"}
#: The ranges of `sgm.registry` whose ends are those of double precision.
GUARDS = {(-1e9, 1e9): "number", (1e-15, 1e9): "number > 0", (0, 1e9): "number ≥ 0"}
#: Keys that every family of a kind has, and that say where it is used.
COMMON = {"family", "name"}


class Example:
    """The first line of a study that names a family: its items, the line, the file."""

    def __init__(self, items: list[Item], line: Any, path: Path) -> None:
        self.items, self.line, self.path = items, line, path


def examples() -> tuple[dict[tuple[str, str], Example], dict[tuple[str, str], list[str]]]:
    """By kind and family, an example and the names of all studies that have it."""
    first: dict[tuple[str, str], Example] = {}
    users: dict[tuple[str, str], list[str]] = {}
    paths = sorted((ROOT / "config/studies").glob("*.yaml"))
    for path in sorted(paths, key=lambda path: path.stem not in BROAD):  # these first
        raw = read_config(path)
        study = Study.parse(raw)
        for kind, (axis, _, _) in KINDS.items():
            found = getattr(study, axis)
            for item in found if isinstance(found, tuple | list) else [found]:
                key = (kind, item.family)
                names = users.setdefault(key, [])
                if path.stem not in names:
                    names.append(path.stem)
                if key not in first:
                    lines = raw.get(axis, [item.family])
                    lines = lines if isinstance(lines, list) else [lines]
                    own = [part for part in lines if _family(part) == item.family]
                    same = (
                        [other for other in found if other.family == item.family]
                        if isinstance(found, tuple | list)
                        else [found]
                    )
                    first[key] = Example(same, (own or [item.family])[0], path)
    return first, users


def _family(line: Any) -> str:
    return str(line["family"] if isinstance(line, dict) else line)


def _range(schema: dict[str, Any]) -> str:
    """What a config may give, in words."""
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_range(part) for part in schema["anyOf"]))
    if "enum" in schema or "const" in schema:
        values = schema.get("enum", [schema.get("const")])
        return " or ".join(f"``{value}``" for value in values)
    kind = schema.get("type", "object")
    if kind == "number" and (schema.get("minimum"), schema.get("maximum")) in GUARDS:
        return GUARDS[schema["minimum"], schema["maximum"]]
    words = {
        "integer": "whole number", "number": "number", "boolean": "``true`` or ``false``",
        "string": "text", "null": "``null``", "object": "mapping", "array": "list",
    }  # fmt: skip
    text = words.get(kind, kind)
    if kind == "array" and "items" in schema:
        return f"list of: {_range(schema['items'])}"
    ends = {
        "exclusiveMinimum": "> {}", "minimum": "≥ {}",
        "exclusiveMaximum": "< {}", "maximum": "≤ {}", "multipleOf": "a multiple of {}",
    }  # fmt: skip
    said = [words.format(_number(schema[key])) for key, words in ends.items() if key in schema]
    return f"{text} {', '.join(said)}".strip()


def _number(value: float) -> str:
    return f"{value:g}" if abs(value) >= 1e5 or 0 < abs(value) < 1e-3 else f"{value:.12g}"


def _parameters(entry: Entry) -> str:
    model = model_of(entry)
    schema = model.model_json_schema()
    shared = schema.get("$defs", {})
    rows = []
    base = model.__base__.model_fields if model.__base__ else {}
    for name in sorted(schema["properties"], key=lambda name: name in base):  # its own first
        if name in COMMON:
            continue
        said = schema["properties"][name]
        if "$ref" in json.dumps(said) and "discriminator" in said:
            range_ = "mapping: the :doc:`keys of a recipe </config>`"
        else:
            range_ = _range(_resolved(said, shared))
        if name in model.axes:
            range_ += "; may be a list, an axis of the study"
        default = (
            "required"
            if name in schema.get("required", [])
            else (f"``{json.dumps(said.get('default'))}``")
        )
        text = _escaped(said.get("description", ""))
        rows.append((f"``{name}``", range_, default if len(default) < 60 else "see there", text))
    if not rows:
        return "None.\n"
    return table(("key", "what a config may give", "default", "meaning"), rows)


def _resolved(schema: Any, shared: dict[str, Any]) -> Any:
    if isinstance(schema, dict):
        if "$ref" in schema:
            return _resolved(shared[schema["$ref"].rpartition("/")[2]], shared)
        return {key: _resolved(value, shared) for key, value in schema.items()}
    return [_resolved(part, shared) for part in schema] if isinstance(schema, list) else schema


def _escaped(text: str) -> str:
    for mark in ("\\", "|", "*"):
        text = text.replace(mark, f"\\{mark}")
    return text.replace("_ ", "\\_ ")


def _variables(entry: Entry) -> str:
    rows = [
        (
            f"``{variable.name}``",
            _escaped(variable.long_name),
            variable.units,
            ", ".join(variable.axes),
        )
        for variable in entry.declared
    ]
    return table(("variable of the grid", "what it is", "unit", "axes"), rows)


def _facts(entry: Entry, users: list[str]) -> Iterator[str]:
    if entry.kind == "target":
        yield "Law: as that of its prior." if entry.of_prior else f"Law: {LAWS[entry.law]}."
    if entry.kind in ("time_grid", "score", "divergence", "bound"):
        yield f"For {NEEDS[entry.needs]}."
    if entry.stationary:
        yield "The process must have a stationary law: ``vp``."
    if entry.process:
        yield f"A scheme of the process ``{entry.process}``."
    if entry.axes:
        named = ", ".join(f"``{name}``" for name in entry.symbols)
        yield f"May be a list, with one cell per value, and the x-axis of a figure: {named}."
    if users:
        named = ", ".join(f"``{name}``" for name in users)
        yield f"Used in the studies (``config/studies``) {named}."


def _page(
    entry: Entry,
    example: Example | None,
    users: list[str],
    picture: pictures.Picture | None,
    folder: Path,
) -> str:
    kind, words, pages = entry.kind, *KINDS[entry.kind][1:]
    singular = words.removesuffix("s").lower().replace("processe", "process")
    name = entry.name.replace("_", "\\_")
    parts = [title(f"{name}, {'an' if singular[0] in 'aeiou' else 'a'} {singular}")]
    module, _, function = entry.build.partition(":")
    is_class = isinstance(entry.builder, type) or function[0].isupper()
    directive = "autoclass" if is_class else "autofunction"
    if picture is not None:
        path = os.path.relpath(picture.path, folder)
        parts.append(f".. image:: {path}\n   :alt: {picture.alt}\n")
        parts.append(f"{picture.caption[0].upper()}{picture.caption[1:]}\n")
    parts.append("\n".join(f"- {fact}" for fact in _facts(entry, users)) + "\n")
    if example is not None:
        text = yaml.safe_dump(
            example.line, default_flow_style=None, sort_keys=False, allow_unicode=True, width=88
        )
        text = "- " + indented(text.removesuffix("...\n").strip(), 2).lstrip()
        axis = KINDS[kind][0]
        told = f"{axis}:\n{indented(text, 2)}" if kind != "process" else f"{axis}: {text[2:]}"
        where = f"As in ``config/studies/{example.path.name}``:"
        parts.append(f"{where}\n\n.. code-block:: yaml\n\n{indented(told)}\n")
    parts.append(title("Parameters of a config", "-"))
    parts.append(_parameters(entry))
    if entry.variables:
        parts.append(title("What it computes", "-") + "\n" + _variables(entry))
    if entry.objection:
        reasons = get_type_hints(entry.objection)["return"]
        rows = [(str(int(code)), _escaped(code.reason)) for code in reasons if code]
        parts.append(title("Where it does not apply", "-"))
        parts.append(table(("objection", "reason"), rows))
    parts.append(title("In Python", "-"))
    parts.append(f".. {directive}:: {module}.{function}\n   :no-index:\n")
    more = ", ".join(f":doc:`/{page}`" for page in pages)
    parts.append(f"Read on: {more}.\n")
    return "\n".join(parts)


def _summary(entry: Entry) -> str:
    text = " ".join(str(model_of(entry).__doc__ or "").split("\n\n")[0].split())
    return _escaped(re.split(r"(?<! [A-Z])\. (?=[A-Z])", text)[0].rstrip(".")) + "."


def generate(app: Sphinx) -> None:
    folder = Path(app.srcdir, "families")
    first, users = examples()
    for kind, (_, words, pages) in KINDS.items():
        entries = list(families(kind).values())
        rows = []
        for entry in entries:
            key = (kind, entry.name)
            example = first.get(key)
            picture = None
            if example is not None:
                picture = pictures.picture(kind, entry, example.items, folder / kind)
            page = _page(entry, example, users.get(key, []), picture, folder / kind)
            write(folder / kind / f"{entry.name}.rst", page)
            shown = (
                f".. image:: {kind}/{picture.path.name}\n          :alt: {picture.alt}"
                if picture and picture.path.suffix == ".svg"
                else "–"
            )
            label = entry.name.replace("_", "\\_")
            rows.append((f":doc:`{label} <{kind}/{entry.name}>`", _summary(entry), shown))
        drawn = any(row[2] != "–" for row in rows)
        head = ("family", "what it is", "picture")
        listed = table(head if drawn else head[:2], [row if drawn else row[:2] for row in rows])
        listed = listed.replace(".. list-table::", f".. list-table::\n   :class: families {kind}")
        tree = "\n".join(f"   {entry.name} <{kind}/{entry.name}>" for entry in entries)
        more = ", ".join(f":doc:`/{page}`" for page in pages)
        write(
            folder / f"{kind}.rst",
            f"{title(words)}\n{len(entries)} families. Read on: {more}.\n\n{listed}\n"
            f".. toctree::\n   :hidden:\n\n{tree}\n",
        )


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("builder-inited", generate)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
