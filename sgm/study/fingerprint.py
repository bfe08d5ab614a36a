"""Fingerprints of code: a digest that changes when numbers may, and only then.

Snakemake sees an edit of a rule, not of the modules that a job imports. So each job
carries, in its params, a digest of the definitions (functions, classes, constants) that
it can reach from the addresses it is given. Reachability is read off the syntax trees,
by name, one definition at a time: comments, docstrings and line numbers don't count, and
neither does a new schedule beside the one that the job uses. What a family declares of itself
(`sgm.registry`) is for planning: its decorator does not count, and a range as the type that it
narrows.

Nor does the room of `sgm.run` that a file stands in: one that moves from one to another makes the
same numbers, and its place makes no network stale.

A table of choices, one of `TABLES`, counts by the rows that a job names, ``module:TABLE[row]``:
a new row beside them is no reason to run again.

A user's file, an extension or a module that it imports, may do what no name tells: fill a
table by a decorator, import inside `try`, look names up. So it counts as a whole, with the files
that it names, and what it mentions of the package is followed.

What is not followed: environment variables, names that the package looks up at run time
(addresses in a job's spec are passed in as roots instead), libraries outside the package
(their versions stand in the cells), and `sgm.study`, which decides what runs and never
what it yields.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import itertools
import re
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import get_args

from sgm import registry
from sgm.store.content import content_of

__all__ = ["fingerprint"]

PACKAGE = Path(__file__).resolve().parents[1]
IGNORED = ("sgm.study", "sgm.registry", "sgm.variables", "sgm.axes")
TABLES = frozenset(
    {
        "sgm.architectures:ARCHITECTURES",
        "sgm.architectures.base:OUTPUTS",
        "sgm.architectures.base:TIME_INPUTS",
        "sgm.architectures.modules:CURVES",
        "sgm.architectures.modules:LEVELS",
        "sgm.architectures.modules:PREDICTS",
        "sgm.networks:FORWARD",
        "sgm.networks:INITIAL",
        "sgm.objectives:OBJECTIVES",
        "sgm.objectives:PROBES",
        "sgm.objectives:WEIGHTS",
        "sgm.training:LEARNING_RATES",
        "sgm.training:TIME_SAMPLINGS",
    }
)
LIBRARIES = {
    Path(sysconfig.get_path(name)).resolve()
    for name in ("stdlib", "platstdlib", "purelib", "platlib")
}
LOOKING_UP = frozenset({"getattr", "vars", "globals", "eval", "exec", "importlib", "__import__"})
#: Rooms of `sgm.run` from which jobs take code; what stands in one counts as if in `sgm.run`.
_ROOM = re.compile(r"\bsgm\.run\.jobs\b")
_ROW = re.compile(r"^(?P<table>[^\[]+:\w+)\[(?P<row>.+)\]$")


@dataclass
class _Module:
    """Top-level definitions of a file, and where its imported names come from."""

    definitions: dict[str, list[ast.stmt]] = field(default_factory=dict)
    effects: list[ast.stmt] = field(default_factory=list)
    statements: list[ast.stmt] = field(default_factory=list)
    imports: dict[str, str] = field(default_factory=dict)
    known: dict[tuple[str, str], tuple[str, set[str]]] = field(default_factory=dict)

    def read(self, here: str, attribute: str) -> tuple[str, set[str]]:
        """Syntax tree of a definition, after what its module runs, and the addresses it mentions.

        Kept: a study asks for the same definitions once for each kind of job and target.
        """
        key = here, attribute  # a file may be named as a module and by its path
        if key not in self.known:
            nodes = self.effects + self.definitions.get(attribute, [])
            if here.endswith(".py") or attribute == "*":
                nodes = self.statements
            mentioned = [_references(node, self, here) for node in nodes]
            tree = "\n".join(ast.dump(node) for node in nodes)
            self.known[key] = tree, set().union(*mentioned)
        return self.known[key]


def _file(module: str) -> Path | None:
    """File of a module of the package, or of an extension given by its path."""
    if module.endswith(".py"):
        return Path(module)
    if module.split(".")[0] != "sgm" or module.startswith(IGNORED):
        return None
    base = PACKAGE.parent.joinpath(*module.split("."))
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path
    return None


def _imports(nodes: Iterable[ast.AST]) -> dict[str, str]:
    """Imported name → ``module`` or ``module:attribute``, of those nodes that import."""
    names = {}
    for child in nodes:
        if isinstance(child, ast.Import):
            for alias in child.names:
                names[alias.asname or alias.name.split(".")[0]] = alias.name
        elif isinstance(child, ast.ImportFrom) and child.module and child.level == 0:
            for alias in child.names:
                submodule = f"{child.module}.{alias.name}"
                target = submodule if _file(submodule) else f"{child.module}:{alias.name}"
                names[alias.asname or alias.name] = target
    return names


def _is_constant(node: ast.stmt) -> bool:
    """Whether a statement does nothing: a docstring, an ellipsis."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


class _Stripped(ast.NodeTransformer):
    """Docstrings out, and what is said for planning alone: `Annotated`, ranges, `register`."""

    def __init__(self, imports: Mapping[str, str]) -> None:
        self.own = {
            name: origin.rpartition(":")[2]
            for name, origin in imports.items()
            if origin.startswith("sgm.registry:")
        }

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        if isinstance(node.value, ast.Name) and node.value.id == "Annotated":
            assert isinstance(node.slice, ast.Tuple)
            return self.visit(node.slice.elts[0])  # type: ignore[no-any-return]
        return self.generic_visit(node)

    def visit_Name(self, node: ast.Name) -> ast.AST:
        narrowed = get_args(getattr(registry, self.own.get(node.id, ""), None))
        return ast.Name(narrowed[0].__name__, node.ctx) if narrowed else node

    def generic_visit(self, node: ast.AST) -> ast.AST:
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
            node.decorator_list = [d for d in node.decorator_list if not self._declares(d)]
            node.body = list(itertools.dropwhile(_is_constant, node.body)) or [ast.Pass()]
        return super().generic_visit(node)

    def _declares(self, decorator: ast.expr) -> bool:
        called = decorator.func if isinstance(decorator, ast.Call) else decorator
        return isinstance(called, ast.Name) and self.own.get(called.id) == "register"


@cache
def _parse(path: Path, stamp: tuple[int, int]) -> _Module:
    module = _Module()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if not isinstance(node, ast.Import | ast.ImportFrom):
            node = _Stripped(module.imports).visit(node)
        if not _is_constant(node):
            module.statements.append(node)
        if isinstance(node, ast.Import | ast.ImportFrom):
            module.imports |= _imports([node])
        elif isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
            module.definitions.setdefault(node.name, []).append(node)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(isinstance(target, ast.Attribute | ast.Subscript) for target in targets):
                module.effects.append(node)  # it changes what another name holds
            for target in targets:
                for name in ast.walk(target):
                    if isinstance(name, ast.Name) and name.id != "__all__":
                        module.definitions.setdefault(name.id, []).append(node)
        elif ast.unparse(node).startswith("if __name__ == "):
            continue  # not run on import
        elif not _is_constant(node):
            module.effects.append(node)
            module.imports |= _imports(ast.walk(node))
    return module


def _of_user(module: _Module, mentioned: set[str]) -> set[str]:
    """Addresses that a user's file mentions, those of the user's other modules as files."""
    mentioned = mentioned | set(module.imports.values())
    names = {n.id for s in module.statements for n in ast.walk(s) if isinstance(n, ast.Name)}
    found: set[str] = set()
    for address in mentioned:
        top = address.split(":")[0].split(".")[0]
        if top != "sgm" and not address.partition(":")[0].endswith(".py"):
            found.update(f"{path}:" for path in _own_files(top))
        elif names & LOOKING_UP and ":" not in address:
            found.add(f"{address}:*")
        else:
            found.add(address)
    return found


def _own_files(name: str) -> list[Path]:
    """Files of a module or package that is neither Python's nor an installed library's."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return []
    if spec is None or not (spec.origin or "").endswith(".py"):
        return []
    origin = Path(str(spec.origin)).resolve()
    if any(origin.is_relative_to(folder) for folder in LIBRARIES):
        return []
    files = sorted(origin.parent.rglob("*.py")) if origin.name == "__init__.py" else [origin]
    here = Path.cwd()
    return [file.relative_to(here) if file.is_relative_to(here) else file for file in files]


def _named_files(module: _Module, here: str) -> Iterator[str]:
    """Digests of the files whose names stand in a user's file."""
    texts = {
        node.value
        for statement in module.statements
        for node in ast.walk(statement)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    for text in sorted(texts):
        for path in (Path(text), Path(here).parent / text):
            try:
                found = path.is_file()
            except (OSError, ValueError):  # a text that no file can have for its name
                continue
            if found:
                yield f"{text} {content_of(path)}"


def _load(module: str) -> _Module | None:
    path = _file(module)
    if path is None:
        return None
    status = path.stat()
    return _parse(path, (status.st_mtime_ns, status.st_size))


def _references(node: ast.stmt, module: _Module, here: str) -> set[str]:
    """Addresses ``module:name`` that a definition mentions."""
    children = list(ast.walk(node))
    imports = module.imports | _imports(children)
    found: set[str] = set()
    for child in children:
        if isinstance(child, ast.Name):
            if child.id in module.definitions:
                found.add(f"{here}:{child.id}")
            if child.id in imports:
                found.add(imports[child.id])
        elif isinstance(child, ast.Attribute) and "sgm" in imports:  # import sgm.x, without as
            origin, _, name = ast.unparse(child).rpartition(".")
            if origin.startswith("sgm") and _file(origin):
                found.add(f"{origin}:{name}")
        if isinstance(child, ast.Attribute) and isinstance(child.value, ast.Name):
            origin = imports.get(child.value.id, "")
            if origin and ":" not in origin:
                found.add(f"{origin}:{child.attr}")
    return found - TABLES


def _row(address: str) -> tuple[str, ast.stmt]:
    """Module of a row ``module:TABLE[row]`` of a table, and the row as a statement."""
    match = _ROW.match(address)
    assert match is not None
    name, _, attribute = match["table"].rpartition(":")
    module = _load(name)
    for node in module.definitions.get(attribute, []) if module else []:
        if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Dict):
            for key, value in zip(node.value.keys, node.value.values, strict=True):
                if isinstance(key, ast.Constant) and key.value == match["row"]:
                    return name, ast.Expr(value)
    raise ValueError(f"{address}: no such row")


def fingerprint(roots: Iterable[str]) -> str:
    """Digest of all code that is reachable from some addresses.

    Parameters
    ----------
    roots : iterable of str
        Addresses ``"module:name"`` of the package or ``"file.py:name"`` of an extension, or
        ``"module:TABLE[row]"``.

    Returns
    -------
    str
        16 hexadecimal digits.

    Raises
    ------
    ValueError
        If a root does not exist.
    """
    roots, load = sorted(set(roots)), cache(_load)  # one look at each file a call
    trees: dict[str, str] = {}
    waiting = list(roots)
    while waiting:
        address = waiting.pop()
        if _ROW.match(address):
            name, node = _row(address)
            module = load(name)
            assert module is not None
            trees[address] = ast.dump(node)
            waiting.extend(_references(node, module, name))
            continue
        name, _, attribute = address.rpartition(":") if ":" in address else (address, "", "")
        module = load(name)
        if name.endswith(".py") and module is not None:
            bound = {getattr(n, "name", "") for s in module.statements for n in ast.walk(s)}
            if address in roots and attribute not in {*bound, *module.definitions, *module.imports}:
                raise ValueError(f"{address}: no such definition")
            address, attribute = f"{name}:", ""
        if module is None or address in trees:
            continue
        parts = name.split(".") if not name.endswith(".py") else []
        waiting.extend(".".join(parts[:i]) for i in range(1, len(parts)))  # imported before it
        if (
            address in roots
            and attribute
            and attribute not in {*module.definitions, *module.imports}
        ):
            raise ValueError(f"{address}: no such definition")
        if attribute in module.imports:  # re-exported from elsewhere
            waiting.append(module.imports[attribute])
        trees[address], mentioned = module.read(name, attribute)
        if name.endswith(".py"):
            mentioned = _of_user(module, mentioned)
            trees[f"{name}:files"] = "\n".join(_named_files(module, name))
        waiting.extend(mentioned)
    digest = hashlib.sha256()
    for entry in sorted({_ROOM.sub("sgm.run", f"{a}\n{tree}\n") for a, tree in trees.items()}):
        digest.update(entry.encode())
    return digest.hexdigest()[:16]
