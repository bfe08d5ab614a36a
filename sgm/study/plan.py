"""The plan of a study: its cells, their files, and what each job must be told.

A cell is one point of the grid. Jobs work on blocks of cells (`sgm.study.blocks`); the
numbers of a cell don't depend on its block.

A job's *spec* is one canonical JSON string: exactly the leaves of the config that the
stage reads (`sgm.study.specs`), addresses of what to build, the fingerprint of the code it
can reach, and a digest of the specs of the jobs whose files it reads. Result files carry
it: a file whose spec is the plan's is up to date.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, NamedTuple

from sgm.registry import families
from sgm.store.cells import Arrays, canonical, check_made_for, digest, read_cells, read_spec
from sgm.store.content import content_of
from sgm.study.blocks import (
    CELLS,
    OUTPUTS,
    PATTERNS,
    fields,
    found,
    most_schedules,
    schedule_blocks,
    seed_blocks,
    stage_of,
)
from sgm.study.composition import Composition
from sgm.study.figures import figures
from sgm.study.fingerprint import fingerprint
from sgm.study.specs import Job, files, labelled, leaves, roots
from sgm.study.variables import LEARNED_LAW, LIKELIHOOD, PARTICLE_LIMIT, PARTICLES, PRIORS
from sgm.variables import Variable

__all__ = ["CELLS", "OUTPUTS", "PATTERNS", "Plan"]

#: Memory that Snakemake takes to plan a job, and how many jobs are worth a word.
JOB_BYTES = 25_000
MANY_JOBS = 10_000

#: Kinds of files that a stage reads, those of some scores and targets apart.
_INPUTS = {
    "network": ["data"],
    "divergences": ["samples", "data"],
    "floors": ["data"],
    "learned": ["data"],
    "priors": ["data"],
}


class _Chain(NamedTuple):
    """Jobs that share a cut into blocks of schedules."""

    target: str
    horizon: str
    score: str
    seeds: str

    @classmethod
    def of(cls, labels: Mapping[str, str]) -> _Chain:
        return cls(*(labels[name] for name in cls._fields))


@dataclass(frozen=True)
class Plan(Composition):
    """Cells, files and specs of a study.

    Parameters
    ----------
    study : Study
    root : Path
        Folder of the study's results, such as ``results/quick``.
    """

    root: Path

    # --- blocks ----------------------------------------------------------------------

    @cached_property
    def on_disk(self) -> tuple[tuple[str, dict[str, str]], ...]:
        """Kind and labels of the files that are on disk: looked up once.

        So the blocks don't change while they are written, and every stage of a run sees
        the same ones.
        """
        return tuple(found(self.root))

    @cached_property
    def blocks(self) -> tuple[str, ...]:
        """Seed ranges that cover the study: those on disk first, new ones for the rest."""
        on_disk = {labels["seeds"] for _, labels in self.on_disk}
        return seed_blocks(self.study.seeds, self.study.seeds_per_job, on_disk)

    @cached_property
    def _chains(self) -> dict[_Chain, dict[str, list[tuple[str, dict[str, str]]]]]:
        """The files on disk by chain and block of schedules."""
        chains: dict[_Chain, dict[str, list[tuple[str, dict[str, str]]]]] = {}
        for kind, labels in self.on_disk:
            shared = stage_of(kind) == "network" and self.train_schedule(labels) is not None
            if "schedules" in labels and not shared:
                blocks = chains.setdefault(_Chain.of(labels), {})
                blocks.setdefault(labels["schedules"], []).append((kind, labels))
        return chains

    def _chain(self, labels: Mapping[str, str]) -> _Chain:
        """The chain whose blocks a cell has: a guided score has those of its networks."""
        return _Chain.of(self.of_network(labels))

    @cached_property
    def schedule_blocks(self) -> Callable[[_Chain], tuple[str, ...]]:
        """Blocks of schedules of a chain: those on disk first, new ones for the rest."""

        def cut(chain: _Chain) -> tuple[str, ...]:
            return schedule_blocks(
                list(self.axes["schedule"]),
                self.study.schedules_per_job,
                self._chains.get(chain, {}).keys(),
                lambda name: self._is_current(chain, name),
            )

        return cache(cut)

    @cached_property
    def _lost(self) -> dict[tuple[_Chain, str], dict[str, dict[str, Any]]]:
        """Specs of the schedules of blocks on disk that the study lacks, by their labels."""
        return {}

    def _is_current(self, chain: _Chain, name: str) -> bool:
        """Whether the first stage that left a block of schedules on disk would not run again.

        Takes what the study does not say of its schedules from the files.
        """
        target, score = (self.item(axis, chain._asdict()) for axis in ("target", "score"))
        first = "divergences" if self.is_sampled(target, score) else "likelihood"
        own = score.family == "trained" and score.parameters.train_schedule is None
        first = "network" if own else first
        for kind, labels in self._chains[chain][name]:
            if kind != first:
                continue
            try:
                stored = read_spec(self.pattern(kind).format(**labels))
                specs = json.loads(stored)["schedules"] if stored else []
                self._lost[chain, name] = {
                    spec["label"]: spec
                    for spec in specs
                    if spec["label"] not in self.axes["schedule"]
                }
                if self._spec(kind, labels) == stored:
                    return True
            except ValueError:  # it is damaged, or what built a schedule is not there any more
                continue
        return False

    @cached_property
    def _known(self) -> dict[str, dict[str, Any]]:
        """Specs of the study's schedules by label."""
        return {spec["label"]: spec for spec in labelled(self.study.schedules)}

    def schedules(self, labels: Mapping[str, str]) -> list[dict[str, Any]]:
        """Specs of the schedules of a block.

        Raises
        ------
        ValueError
            If neither the study nor a file on disk says what one of them is.
        """
        lost = self._lost.get((self._chain(labels), labels["schedules"]), {})
        return [self._schedule(label, lost) for label in labels["schedules"].split(",")]

    def schedule(self, labels: Mapping[str, str]) -> dict[str, Any]:
        """Spec of the schedule of a reference run, which any block may name; see `schedules`."""
        place = labels["target"], labels["horizon"]
        lost = {
            label: spec
            for (chain, _), specs in self._lost.items()
            if (chain.target, chain.horizon) == place
            for label, spec in specs.items()
        }
        return self._schedule(labels["schedule"], lost)

    def _schedule(self, label: str, lost: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
        # what a file says to build is built only if it is a family: files come from others
        known = {entry.build for entry in families("schedule").values()}
        if label in lost and lost[label]["build"] in known:
            return lost[label]
        if label not in self._known:
            raise ValueError(f"schedule = {label!r}: not in the study, nor in a file")
        return self._known[label]

    def place(self, labels: Mapping[str, str]) -> dict[str, str]:
        """Labels of the network that a picture shows: of seed 0 and the first horizon."""
        first = {"seeds": self.blocks[0], "horizon": next(iter(self.axes["horizon"]))}
        place = first | self.of_network(labels)
        for name in self.schedule_blocks(_Chain.of(place)):
            if place["schedule"] in name.split(","):
                return place | {"schedules": name}
        raise ValueError(f"schedule = {place['schedule']!r}: not a schedule of the study")

    # --- cells -----------------------------------------------------------------------

    # --- files -----------------------------------------------------------------------

    def pattern(self, kind: str) -> str:
        """Snakemake pattern of one kind of file."""
        return f"{self.root}/{PATTERNS[kind]}"

    def cells(self, kind: str) -> Iterator[dict[str, str]]:
        """Labels of every file of one kind."""
        values: dict[str, Any] = {**self.axes, "seeds": self.blocks}
        own = [name for name in fields(kind) if name != "schedules"]
        for labels in itertools.product(*(values[name] for name in own)):
            cell = dict(zip(own, labels, strict=True))
            if not self.has_file(kind, cell):
                continue
            if "schedules" not in fields(kind):
                yield cell
                continue
            blocks = self.schedule_blocks(self._chain(cell))
            shared = self.train_schedule(cell) if stage_of(kind) == "network" else None
            for block in blocks if shared is None else (shared,):
                yield cell | {"schedules": block}

    def files(self, kind: str) -> list[str]:
        """Paths of all files of one kind."""
        return [self.pattern(kind).format(**labels) for labels in self.cells(kind)]

    def read(self, kind: str, labels: Mapping[str, str]) -> Arrays:
        """Arrays of a cell file.

        Raises
        ------
        ValueError
            If it can't be read, or was made for another config or other code; the message names
            the file.
        """
        path = self.pattern(kind).format(**labels)
        check_made_for(path, digest(self.spec_of(kind, labels)))
        return read_cells(path)

    def figures(self) -> list[str]:
        """Stems of the study's figures, as ``kl/isotropic``."""
        return figures(self)

    def inputs(self, stage: str, labels: Any) -> dict[str, str]:
        """Input files of a job, by name; the user's own stand in its spec.

        Parameters
        ----------
        stage : str
        labels : mapping or Snakemake's wildcards
            Labels of its output.
        """
        own = {name: getattr(labels, name) for name in fields(stage)}
        needed = self._needed(stage, own)
        return {name: self.pattern(kind).format(**place) for name, (kind, place) in needed.items()}

    def _needed(
        self, stage: str, own: Mapping[str, str]
    ) -> dict[str, tuple[str, Mapping[str, str]]]:
        """Kind and labels of the files that a job reads, by the names under which it does."""
        needed = {kind: (kind, own) for kind in _INPUTS.get(stage, [])}
        if "score" in own:
            target, score = self.item("target", own), self.item("score", own)
            trained = score.entry.is_network and score.family != "module_file"
            if trained and stage in ("samples", "bounds", "likelihood"):
                needed["network"] = "network", self.of_network(own)
            if trained and stage == "pictures":
                needed["network"] = "network", self.place(own)
            if stage == "divergences" and self.along_chain(target, score):
                needed["bounds"] = "bounds", own
            if stage == "divergences" and self.has_reference(target, score):
                for s, label in enumerate(own["schedules"].split(",")):
                    needed[f"reference_{s}"] = "reference", {**own, "schedule": label}
            if stage in ("likelihood", "bounds") and not target.entry.law_known:
                needed["data"] = "data", own
            shared = self.train_schedule(own)
            if shared is not None and "network" in needed:
                needed["network"] = "network", {**needed["network"][1], "schedules": shared}
        return needed

    # --- specs -----------------------------------------------------------------------

    @cached_property
    def variables(self) -> dict[str, Variable]:
        """Grid variables of what the study measures, by name."""
        measures = (*self.study.divergences, *self.study.bounds)
        own = [variable for item in measures for variable in item.entry.declared]
        own += LIKELIHOOD if self.study.likelihood else ()
        own += LEARNED_LAW if any(self.learned(target) for target in self.study.targets) else ()
        if any(self.filtered(target) for target in self.study.targets):
            own += (*PARTICLES, *PARTICLE_LIMIT)
        for name in self.study.priors.families if self.study.priors else ():
            own += PRIORS[name]
        return {variable.name: variable for variable in own}

    def spec(self, stage: str, labels: Any) -> str:
        """Canonical JSON of what a job must be told.

        Parameters
        ----------
        stage : str
            ``data``, ``network``, ``reference``, ``samples``, ``divergences``, ``bounds``,
            ``likelihood``, ``floors``, ``pictures``, ``exact``, ``learned``, ``priors``
            or ``axes``.
        labels : Snakemake's wildcards or any object with the labels as attributes
        """
        return self._spec(stage, {name: getattr(labels, name) for name in fields(stage)})

    def spec_of(self, kind: str, labels: Mapping[str, str]) -> str:
        """Spec of the job that makes a file, which the file must carry."""
        return self._spec(stage_of(kind), labels)

    def is_stale(self, stage: str, labels: Any) -> bool:
        """Whether a job's files are on disk, but made for another spec, or damaged.

        Parameters
        ----------
        stage, labels
            As for `spec`.

        Raises
        ------
        ValueError
            If the disk does not let a file be read: it may be whole.
        """
        own = {name: getattr(labels, name) for name in fields(stage)}
        for kind in OUTPUTS.get(stage, (stage,)):
            path = Path(self.pattern(kind).format(**own))
            try:
                if path.exists() and read_spec(path) != self._spec(stage, own):
                    return True
            except ValueError as error:
                if isinstance(error.__cause__, OSError):
                    raise
                return True
        return False

    def _spec(self, stage: str, labels: Mapping[str, str]) -> str:
        key = (stage, *(labels[name] for name in fields(stage)))
        if key not in self._specs:
            told = leaves(self, stage, self._job(stage, labels))
            if own := files(told):
                told["files"] = {path: content_of(path) for path in own}
            told["code"] = self._fingerprint(frozenset(roots(stage, told)))
            told["inputs"] = {
                name: digest(self._spec(kind, place))
                for name, (kind, place) in self._needed(stage, labels).items()
            }
            self._specs[key] = canonical(told)
        return self._specs[key]

    def _job(self, stage: str, labels: Mapping[str, str]) -> Job:
        """A job with the schedules that it works on, and the block of its network's file."""
        if stage == "reference":
            return Job(labels, [self.schedule(labels)])
        if stage == "pictures":
            alone = self.train_schedule(labels) is not None
            names = labels["schedule"] if alone else self.place(labels)["schedules"]
            return Job(labels, [], names.split(","))
        return Job(labels, self.schedules(labels) if "schedules" in labels else [])

    @cached_property
    def _specs(self) -> dict[tuple[str, ...], str]:
        """Specs by stage and labels: Snakemake asks several times."""
        return {}

    @cached_property
    def _fingerprint(self) -> Callable[[frozenset[str]], str]:
        """Digest of the code that some addresses reach: one look a set of addresses."""
        return cache(fingerprint)

    def notices(self) -> list[str]:
        """What a user should know of the blocks before the jobs start: a sentence each."""
        study, notices = self.study, []
        most = most_schedules(list(self.axes["schedule"]))
        if most < min(study.schedules_per_job, len(study.schedules)):
            notices.append(
                f"schedules_per_job = {study.schedules_per_job}: a block has at most {most} "
                "schedules, for their labels make its file's name; shorter names allow more"
            )
        jobs = sum(len(self.files(kind)) for kind in PATTERNS if kind not in OUTPUTS)
        if jobs > MANY_JOBS:
            notices.append(
                f"{jobs} jobs: Snakemake needs about {jobs * JOB_BYTES / 2**30:.1f} GiB to plan "
                "them; raise schedules_per_job or seeds_per_job for fewer"
            )
        return notices

    def stamp(self, view: str) -> str:
        """Path of what is written last when the grid, the figures or the tables are made."""
        return f"{self.root}/views/{view}.json"

    def view_spec(self, view: str) -> str:
        """Canonical JSON of what the gather, the figures or the tables must be told."""
        told: dict[str, Any] = {
            "code": self._fingerprint(frozenset([f"sgm.run.jobs.views:{view}"]))
        }
        if view == "grid":
            told["variables"] = {v.name: [v.axes, v.attributes] for v in self.variables.values()}
            told |= {"config": self.study.model_dump(mode="json"), "root": str(self.root)}
            cells = {
                self.pattern(kind).format(**labels): digest(self.spec_of(kind, labels))
                for kind in CELLS
                for labels in self.cells(kind)
            }
            told["inputs"] = digest(canonical(cells))
        if view == "figures":
            told |= {"stems": self.figures()}
        return canonical(told)
