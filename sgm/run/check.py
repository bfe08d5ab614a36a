"""Check a study before any compute: build every closed-form object once.

The config's schema has seen names, types and ranges; here the mathematics has its say: a
covariance that is not positive definite, a schedule that is not positive, a sample too
small for its dimension.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sgm.run.build import build_process, build_steps, build_target, build_times
from sgm.study import Item, Study

__all__ = ["check"]


def check(study: Study) -> None:
    """Build targets, schedules, time grids and samplers of a study.

    Parameters
    ----------
    study : Study

    Raises
    ------
    ValueError
        One message that names the key, the value and what is allowed.
    """
    for target in study.targets:
        _check_target(study, target)
    for schedule in study.schedules:
        for horizon in study.horizons:
            with _named("schedules", schedule):
                process = build_process(study.process.spec, schedule.spec, horizon)
            for time_grid in study.time_grids:
                with _named("time_grids", time_grid):
                    times = build_times(time_grid.spec, horizon, min(study.n_steps))
                for sampler in study.samplers:
                    with _named("samplers", sampler):
                        build_steps(sampler.spec, process, times)


def _check_target(study: Study, item: Item) -> None:
    with _named("targets", item):
        d = build_target(item.spec).dimension
    if study.n_samples < d + 3:
        raise ValueError(
            f"n_samples = {study.n_samples}: must be at least d + 3 = {d + 3} "
            f"for the covariance of target {item.label!r} (d = {d})"
        )


@contextmanager
def _named(key: str, item: Item) -> Iterator[None]:
    """Prefix an error with the key and the label it belongs to."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{key}: {item.label}: {error}") from error
