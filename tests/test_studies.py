"""Every study file, shrunk to seconds, through every stage, figure and table."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sgm import plots, tables
from sgm.gather import gather, gather_pictures
from sgm.run.check import check
from sgm.store import DONE, FAILED, NOT_APPLICABLE
from sgm.store.grid import open_grid, write_grid
from sgm.study import Item, Plan, Study, Variable
from sgm.study.document import read_config
from sgm.study.variables import LEARNED_LAW, PRIORS
from sgm.variables import GRID
from tests.images import with_images
from tests.workflow import run_jobs

CONFIG = Path(__file__).parents[1] / "config"
FAST = ("mg25",)
LIPSCHITZ = ("w2_brosse_dalalyan", "w2_one_step_mixture")  # bounds that the funnel has not
STUDIES = sorted([CONFIG / "config.yaml", *(CONFIG / "studies").glob("*.yaml")])


def shrunk(config: dict[str, Any]) -> dict[str, Any]:
    """The same study, its axes cut to two values and its sizes to almost nothing.

    Of targets of a family that say the same keys, such as one in several dimensions, the first.
    """
    small = {"horizons": [1.0], "divergences": ["gaussian_kl"]} | copy.deepcopy(config) | {
        "seeds": 2, "seeds_per_job": 2, "schedules_per_job": 2, "n_steps": [6], "n_train": 150,
        "n_samples": 120, "n_reference": 1000, "n_score_error": 10, "device": "cpu",
    }  # fmt: skip
    # more noise than that of the schedule of the training is refused
    shared = any(isinstance(s, dict) and s.get("train_schedule") for s in small["scores"])
    for schedule in small["schedules"]:
        if isinstance(schedule.get("a"), list):
            schedule["a"] = schedule["a"][:2] if shared else [-10, 0]
    kinds = [t if isinstance(t, str) else (t["family"], *sorted(t)) for t in small["targets"]]
    small["targets"] = [small["targets"][kinds.index(kind)] for kind in dict.fromkeys(kinds)]
    for target in small["targets"]:
        if isinstance(target, dict) and target.get("dimension", 0) > 10:
            target["dimension"] = 10
    names = {t if isinstance(t, str) else t.get("name", t["family"]) for t in small["targets"]}
    for score in small["scores"]:
        if "targets" in score:
            score["targets"] = [name for name in score["targets"] if name in names]
    small["scores"] = [score for score in small["scores"] if score.get("targets", True)]
    for score in small["scores"]:
        if isinstance(score.get("eps"), list):
            score["eps"] = score["eps"][:2]
        if "particles" in score:
            score["particles"] = 3
        if "n_rows" in score:
            score["n_rows"] = [30, 150]
        if "learning_rate" in score:  # of a descent
            score["steps"] = 20
        if "recipe" in score:
            own = ("channels", "token_width", "channel_width")
            widths = own if "architecture" in score["recipe"] else ("width",)
            score["recipe"] |= dict.fromkeys((*widths, "time_width"), 16) | {
                "layers": 1,
                "steps": 3,
            }
    if small.get("figures", {}).get("x") in ("n_steps", "nfe"):  # which must vary
        small["n_steps"] = [6, 8]
    small["divergences"] = [_few(divergence) for divergence in small["divergences"]]
    small["horizons"] = [small["horizons"][0], small["horizons"][-1]]
    if len(set(small["horizons"])) == 1:
        del small["horizons"][1]
    if small.get("likelihood"):
        small["likelihood"] |= {"rows": 20, "nodes": 48, "rtol": 0.1, "atol": 0.1, "atol_nats": 0.1}
    if small.get("priors"):
        small["priors"] |= {"rows": 50}
    if small.get("pictures"):
        small["pictures"] |= {"schedules": ["beta_a=0"], "rows": 20}
    return small


def _few(divergence: Any) -> Any:
    if isinstance(divergence, dict):
        limits = {"rows": 40, "projections": 8, "components": 1, "subsample": 40}
        few = divergence | {key: n for key, n in limits.items() if key in divergence}
        return few | {"rows": [40]} if few["family"] == "coverage" else few
    return divergence


def every_study() -> list[Any]:
    """A density with networks; the others are left to `make test-slow`."""
    return [
        pytest.param(path, id=path.stem, marks=[] if path.stem in FAST else pytest.mark.slow)
        for path in STUDIES
    ]


@pytest.mark.parametrize("path", every_study())
def test_study(path: Path, tmp_path: Path) -> None:
    config = with_images(shrunk(read_config(path)), tmp_path)
    study = Study.parse(config)
    check(study)
    plan = Plan(study, tmp_path / "results")
    run_jobs(plan)
    folder = tmp_path / "grid.zarr"
    write_grid(gather(plan, {}), folder, gather_pictures(plan))
    grid = open_grid(folder)

    assert set(np.unique(grid.status)) <= {DONE, NOT_APPLICABLE}
    assert json.loads(grid.attrs["failures"]) == []
    for name, variable in plan.variables.items():
        assert grid[name].dims == variable.axes
        for target in study.targets:
            if _has(plan, variable, target):
                assert np.isfinite(grid[name].sel(target=target.label)).any(), (name, target.label)
    for stem in plan.figures():
        group = stem if stem.startswith("samples/") else None
        shown = open_grid(folder, stem.replace("samples", "pictures")) if group else grid
        figure, frame = plots.draw(shown, stem)
        assert len(frame) > 0, stem
        assert figure.axes, stem
    compared = any(
        variable.about.get("role") == "divergence"
        for item in study.divergences
        for variable in item.entry.variables
    )
    says = {
        "summary": True,
        "ranking": any("divergence" in v.about for i in study.bounds for v in i.entry.variables),
        "comparison": compared and len(study.schedules) > 1,
        "horizons": study.likelihood is not None,
        "leaderboard": compared,
        "leaderboard_targets": compared,
    }
    for name, table in tables.TABLES.items():
        assert (len(table(grid)) > 0) == says[name], name
    assert not (grid.status == FAILED).any()


def _has(plan: Plan, variable: Variable, target: Item) -> bool:
    """Whether a divergence or bound of the study has a number for a target."""
    scores = [score for score in plan.study.scores if plan.study.runs(target, score)]
    untrained = any(not score.entry.is_network for score in scores)
    sampled = any(plan.is_sampled(target, score) for score in scores)
    if any(word in variable.name for word in ("coupl", "plugin_expected", "coverage")):
        if variable.name != "w2_coupling":  # of a guided chain no law is known
            scores = [score for score in scores if plan.twin(score) is None]
        coupled = any(plan.is_coupled(target, score) for score in scores)
        gaussian = target.entry.law == "gaussian"
        # of other laws a long run stands in for that of the chain
        partly = "coupled" in variable.name and not variable.name.startswith(("mmd", "w2_sample"))
        return coupled and (gaussian or partly or variable.name == "w2_coupling")
    if variable in LEARNED_LAW:
        return bool(plan.learned(target))
    if any(variable in own for own in PRIORS.values()):
        gaussian = target.entry.law == "gaussian"
        if "exact" in variable.name:
            return gaussian and bool(plan.untrained(target))
        return "reverse_sde" not in variable.name and (
            target.entry.law_known or "gain" in variable.name
        )
    if "objection" in variable.name or "applicable" in variable.name:
        return True
    for item in plan.measures("bounds", target):
        if variable in item.entry.variables:
            return bool(scores) and not (target.family == "funnel" and item.family in LIPSCHITZ)
    for item in plan.measures("divergences", target):
        if variable in item.entry.variables and variable.axes == GRID:
            return target.entry.law == "gaussian" and untrained
        if variable in item.entry.variables or variable in _floors(item):
            return sampled
    return False


def _floors(item: Item) -> list[Variable]:
    return [variable.floor for variable in item.entry.variables if variable.measured_floor]
