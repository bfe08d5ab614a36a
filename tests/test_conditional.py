"""Networks that know classes, and guidance by networks: identities, exact scores, refusals."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from sgm import guidance, guided, targets
from sgm.architectures import build_architecture
from sgm.networks import ReusedScore, ScoreEnsemble, require_module
from sgm.processes import VEProcess, VPProcess
from sgm.random import stream
from sgm.run.check import check
from sgm.run.jobs import pictures
from sgm.schedules import BetaSchedule, GeometricSchedule
from sgm.study import Plan, Study
from sgm.training import Recipe, TrainingResult, train_networks
from tests.test_modules import COMMON, TRAINING, WIDTHS
from tests.workflow import run_jobs

VP = VPProcess(BetaSchedule(1.0, 1.0, 0.1, 20.0), 1.0)
VE = VEProcess(GeometricSchedule(1.0, 0.01, 20.0))
MODES = targets.mixture(weights=[0.3, 0.7], means=[-1.0, 1.0], variances=[0.1, 0.25])
RING = targets.ring_mixture(modes=3, radius=1.0, variance=0.3)
KEYS: dict[str, Any] = {"architecture": "mlp", **WIDTHS, **COMMON}
SEEDS = [3, 4]


def data(n: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.integer[Any]]]:
    rows = np.stack([MODES.sample(n, np.random.default_rng(seed)) for seed in SEEDS])
    labels = [targets.drawn_labels(MODES, own, np.random.default_rng(7)) for own in rows]
    return rows, np.stack(labels)


def train(dropout: float | None, steps: int, first: int = 0, **changes: Any) -> TrainingResult:
    recipe = replace(
        Recipe.from_keys(KEYS | TRAINING), label_dropout=dropout, steps=steps, **changes
    )
    rows, labels = (part[first:] for part in data(2000))
    known: dict[str, Any] = {} if dropout is None else {"labels": labels, "classes": 2}
    return train_networks(recipe, VP, rows, None, 0, SEEDS[first:], {}, "cpu", **known)


class Known:
    """Exact scores in place of networks: of a law, and of each of its classes."""

    def __init__(self, process: VPProcess | VEProcess, *laws: Any) -> None:
        self.process, self.laws = process, laws

    def __call__(self, x: torch.Tensor, t: float, label: int = -1) -> torch.Tensor:
        law = self.laws[label]
        m, v = (float(f(t)) for f in (self.process.mean_scale, self.process.kernel_variance))
        if x.requires_grad:  # of a mixture of diagonal covariances, for automatic differentiation
            w, means, variances = (
                torch.as_tensor(part) for part in (law.weights, m * law.means, m**2 * law.variances)
            )
            gap = x[..., None, :] - means
            joint = w.log() - 0.5 * (gap**2 / (variances + v) + (variances + v).log()).sum(-1)
            return -(joint.softmax(-1)[..., None] * gap / (variances + v)).sum(-2)
        return torch.as_tensor(law.score(x.numpy(), m, v))

    def differentiable(self) -> Known:
        return self


# --- networks ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["mlp", "mixer", "module"])
def test_a_class_shifts_the_embedding_and_none_leaves_the_network_as_it_was(kind: str) -> None:
    keys, d, shape = KEYS, 5, None
    if kind == "mixer":
        own = {"patch": 2, "channels": 16, "token_width": 16, "channel_width": 16, "layers": 1}
        keys = {"architecture": "mixer", "time_width": 16, **own, **COMMON}
        d, shape = 16, (4, 4)
    if kind == "module":
        keys = {"architecture": "module", "builder": "tests/data/modules.py:labelled", **COMMON}
    plain, known = (
        ScoreEnsemble.initial(build_architecture(keys, d, shape, classes), SEEDS).bind(VP)
        for classes in (0, 3)
    )
    x = torch.randn((2, 7, d), generator=torch.Generator().manual_seed(0))
    t = torch.linspace(0.1, 0.9, 14).reshape(2, 7)
    for time in (0.3, t):
        assert torch.equal(known(x, time), plain(x, time))
        assert (known(x, time, 1) - known(x, time, 2)).abs().min() > 0
    labels = np.array([[0, 1, 2, 3, 0, 1, 2]] * 2)
    mixed = known.evaluate(x, known.condition(t.numpy(), labels))
    for c in (0, 1, 2, None):
        chosen = labels == (3 if c is None else c)
        torch.testing.assert_close(mixed[chosen], known(x, t, c)[chosen], rtol=1e-5, atol=1e-5)
    fast = known.for_sampling(products="oneDNN")
    torch.testing.assert_close(fast(x, 0.3, 1), known(x, 0.3, 1), rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="labels from 4 to 4: must be from 0 to 2, or 3 for none"):
        known(x, 0.3, 4)
    with pytest.raises(ValueError, match="labels from 1 to 1: must be"):
        plain(x, 0.3, 1)
    if kind == "module":
        require_module(known.architecture, VP, in_float64=True)


def test_without_labels_training_is_that_of_a_network_without_classes(tmp_path: Path) -> None:
    plain, dropped = train(None, 40), train(1.0, 40)
    for name, w in plain.networks.weights.items():
        assert torch.equal(w, dropped.networks.weights[name]), name
    np.testing.assert_array_equal(plain.loss_history, dropped.loss_history)
    initial = ScoreEnsemble.initial(dropped.networks.architecture, [0])
    assert initial.weights["classes"].shape == (1, 16, 16)  # two rows, padded
    dropped.networks.save(tmp_path / "n")
    back = ScoreEnsemble.load(tmp_path / "n")
    assert back.architecture.classes == 2
    torch.testing.assert_close(back.weights, dropped.networks.weights)


def test_numbers_of_conditional_networks_do_not_depend_on_the_block() -> None:
    whole, alone = train(0.3, 40), train(0.3, 40, first=1)
    for name, w in whole.networks.weights.items():
        assert torch.equal(w[1:], alone.networks.weights[name]), name


def test_one_network_learns_the_scores_of_the_classes_and_of_all() -> None:
    """E|s_θ − s|² v under each law, against the exact scores: it falls with the steps."""
    law = MODES.law
    laws = [targets.conditional(MODES, c).law for c in (0, 1)] + [law]

    def errors(steps: int) -> npt.NDArray[np.float64]:
        result = train(0.2, steps, batch_size=128, ema=0.0)
        found = []
        for label, own in zip((0, 1, None), laws, strict=True):
            error = 0.0
            for t in (0.05, 0.2, 0.5):
                m, v = VP.mean_scale(t), VP.kernel_variance(t)
                x0 = np.stack([own.sample(500, np.random.default_rng(s)) for s in SEEDS])
                x = m * x0 + np.sqrt(v) * np.random.default_rng(9).standard_normal(x0.shape)
                s = result.networks(torch.as_tensor(x).float(), t, label).double().numpy()
                error += v * np.mean((s - own.score(x, m, v)) ** 2) / 3
            found.append(error)
        return np.array(found)

    early, late = errors(30), errors(600)
    assert np.all(late < 0.03), late
    assert np.all(late < early / 3), (early, late)


# --- targets ------------------------------------------------------------------------------


def test_labels_of_draws_have_the_joint_law_of_class_and_row() -> None:
    rows = targets.grid_mixture(dimension=3, side=2, variance=0.1, rest_variance=0.5)
    assert [targets.class_count(own) for own in (rows, MODES, RING)] == [4, 2, 3]
    x = MODES.sample(40_000, np.random.default_rng(0))
    labels = targets.drawn_labels(MODES, x, np.random.default_rng(1))
    for c, share in enumerate((0.3, 0.7)):
        own = x[labels == c]
        assert abs(len(own) / len(x) - share) < 0.01
        law = targets.conditional(MODES, c).law
        assert abs(own.mean() - law.mean[0]) < 0.015
        assert abs(own.var() / law.eigenvalues[0] - 1) < 0.03


def test_the_class_of_a_mixture_is_its_component_in_any_dimension() -> None:
    prior = targets.grid_mixture(dimension=4, side=3, variance=0.1, rest_variance=0.5)
    own = targets.conditional(prior, 4)  # the middle of the grid
    np.testing.assert_array_equal(own.law.mean, np.zeros(4))
    np.testing.assert_array_equal(np.sort(own.law.eigenvalues), [0.1, 0.1, 0.5, 0.5])
    scaled = targets.conditional(MODES.rescaled(True, 2.0), 1)
    np.testing.assert_allclose(scaled.law.mean, [(1.0 - MODES.law.mean[0]) / 2])
    np.testing.assert_allclose(scaled.law.eigenvalues, [0.25 / 4])
    np.testing.assert_allclose(scaled.restore(scaled.law.mean), [1.0])


def test_a_class_of_the_digits_holds_out_what_the_digits_hold_out() -> None:
    digits = targets.digits(heldout_fraction=0.3)
    assert targets.class_count(digits) == 10
    np.testing.assert_array_equal(np.bincount(digits.labels)[:3], [178, 182, 177])
    lost = 0
    for label in (0, 7):
        own = targets.conditional(digits, label)
        for seed in range(20):
            train, heldout = own.partition(np.random.default_rng(seed))
            every = np.concatenate([train, heldout])
            np.testing.assert_array_equal(np.sort(every), np.arange(own.n_rows))
            assert len(heldout) == round(0.3 * own.n_rows)
            there = digits.take(digits.partition(np.random.default_rng(seed))[1])
            held = {row.tobytes() for row in there}
            lost += sum(row.tobytes() not in held for row in own.take(heldout))
    assert lost / 40 < 4  # of 54
    zeros = targets.conditional(digits, 0)
    np.testing.assert_array_equal(zeros.rows, digits.rows[digits.labels == 0])


INPAINTING: dict[str, Any] = {"observed": [0, 3], "noise": 0.1, "row": 4, "neighbours": 60}


def test_a_row_seen_in_part_has_the_rows_that_are_nearest_to_it() -> None:
    data = targets.breast_cancer(heldout_fraction=0.3, standardise=True)
    seen = targets.inpainting(data, **INPAINTING)
    known = targets.observation_of(seen)
    assert known is not None
    y = known.value
    xi = np.abs(y - data.rows[4, [0, 3]]) / np.sqrt(0.1)
    assert np.all((xi > 0.01) & (xi < 3))
    others = np.delete(data.rows, 4, axis=0)
    distance = np.sort(np.sum((others[:, [0, 3]] - y) ** 2, axis=1))
    found = np.sort(np.sum((seen.rows[:, [0, 3]] - y) ** 2, axis=1))
    np.testing.assert_allclose(found, distance[:60])
    again = targets.inpainting(data, **INPAINTING | {"observation_seed": 1})
    assert not np.array_equal(targets.observation_of(again).value, y)
    assert targets.observation_of(RING) is None
    shown = pictures._true_rows(seen, 3, np.random.default_rng(0))
    np.testing.assert_array_equal(shown[0, [0, 3]], y)
    assert np.isnan(shown[0, 1])
    assert np.isfinite(shown[1:]).all()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"observed": [0, 0]}, "observed = .*: must be distinct coordinates from 0 to 29"),
        ({"observed": [30]}, "observed = .*: must be distinct coordinates"),
        ({"observed": np.eye(30)[:2].tolist()}, "observed = .*: must be coordinates"),
        ({"noise": 0.0}, "noise = 0.0: must be"),
        ({"row": 569}, "row = 569: must be below 569"),
        ({"neighbours": 30}, "neighbours = 30: must be more than d = 30"),
        ({"neighbours": 569}, "neighbours = 569: must be more"),
        ({"prior": RING}, "prior: must be a data set in memory"),
    ],
)
def test_a_row_that_can_not_be_seen_is_refused(change: dict[str, Any], said: str) -> None:
    data = targets.breast_cancer(heldout_fraction=0.3, standardise=True)
    with pytest.raises(ValueError, match=said):
        targets.inpainting(**{"prior": data, **INPAINTING, **change})


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: targets.conditional(MODES, 2), "label = 2: must be from 0 to 1"),
        (
            lambda: targets.conditional(targets.isotropic(2, 0.0, 1.0), 0),
            "prior: must have classes",
        ),
        (
            lambda: targets.conditional(targets.wine(0.3, True), 0),
            "prior: must have classes",
        ),
        (
            lambda: targets.drawn_labels(targets.isotropic(1, 0.0, 1.0), [[0.0]], stream(0, "x")),
            "target: must be a mixture",
        ),
        (lambda: train(0.0, 1), r"label_dropout = 0.0: must lie in \(0, 1\]"),
        (lambda: train(0.1, 1, objective="explicit"), "must be None for objective = 'explicit'"),
        (
            lambda: train_networks(
                Recipe.from_keys(KEYS | TRAINING | {"label_dropout": 0.1}), VP, data(50)[0], None,
                0, SEEDS, {}, "cpu",
            ),
            "label_dropout: must be None for rows without classes",
        ),
        (
            lambda: train_networks(
                Recipe.from_keys(KEYS | TRAINING | {"label_dropout": 0.1}), VP, data(50)[0], None,
                0, SEEDS, {}, "cpu", labels=data(50)[1] + 1, classes=2,
            ),
            "labels from 1 to 2: must be from 0 to 1",
        ),
        (
            lambda: guided.class_guidance(None, RING),
            "must be that of a target `tilted`",
        ),
        (lambda: guided.classifier_free(None, RING, 1.0), "must be `conditional`"),
        (lambda: guided.dps(None, RING, 1.0), "must be that of a target `posterior`"),
        (lambda: guided.GuidedByClass(None, 0, np.nan), "weight = nan"),
    ],
)  # fmt: skip
def test_what_has_no_classes_or_no_guidance_is_refused(make: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make()


# --- guidance ------------------------------------------------------------------------------


def test_guidance_is_the_conditional_score_at_0_and_the_other_at_minus_1() -> None:
    known = ScoreEnsemble.initial(build_architecture(KEYS, 2, None, 3), SEEDS).bind(VP)
    x = torch.randn((2, 9, 2), generator=torch.Generator().manual_seed(0))
    given, none = known(x, 0.3, 1), known(x, 0.3)
    assert torch.equal(guided.GuidedByClass(known, 1, 0.0)(x, 0.3), given)
    assert torch.equal(guided.GuidedByClass(known, 1, -1.0)(x, 0.3), none)
    found = guided.GuidedByClass(known, 1, 2.0)(x, 0.3)
    assert torch.equal(found, 3 * given - 2 * none)
    other = VPProcess(BetaSchedule(1.0, 1.0, 0.1, 18.0), 1.0)
    reused = ReusedScore(known, VP, other)
    t = float(reused._times(0.3))
    again = guided.GuidedByClass(reused, 1, 2.0)(x, 0.3)
    assert torch.equal(again, 3 * known(x, t, 1) - 2 * known(x, t))
    assert guided.GuidedByClass(known, 1, 2.0)[1:](x[1:], 0.3).shape == (1, 9, 2)


@pytest.mark.parametrize("process", [VP, VE], ids=["vp", "ve"])
def test_guidance_by_exact_scores_is_that_of_known_laws(process: VPProcess | VEProcess) -> None:
    """Jacobians by automatic differentiation against closed forms, float64 through and through."""
    x = np.random.default_rng(0).standard_normal((1, 40, 2)) * 1.5
    rows = torch.as_tensor(x)
    seen = targets.posterior(RING, [0], noise=0.2, observation=[0.5])
    known = Known(process, RING.law)
    tilted = targets.tilted(RING, 1, 2.0)
    classes = [targets.conditional(RING, c).law for c in range(3)]
    pairs: list[tuple[Any, Any]] = [
        (guided.dps(known, seen, 0.7), guidance.dps(process, seen.law, 0.7)),
        (guided.pigdm(known, seen, 1.0), guidance.pigdm(process, seen.law, 1.0)),
        (guided.replacement(known, seen), guidance.replacement(process, seen.law)),
        (
            guided.class_guidance(Known(process, *classes, RING.law), tilted),
            guidance.class_guidance(process, tilted.law),
        ),
    ]
    for own, exact in pairs:
        for t in (0.02, 0.3, 1.0):
            found, expected = own(rows, t), exact(x, t)
            assert found.dtype == rows.dtype
            assert not found.requires_grad
            np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-9)


def test_networks_are_differentiated_in_float64_whatever_they_are_sampled_in() -> None:
    """The pull of `dps` against central differences of log N(y; H x̂₀, r)."""
    net = ScoreEnsemble.initial(
        build_architecture(KEYS | {"activation": "silu"}, 2, None), SEEDS
    ).bind(VP)
    seen = targets.posterior(RING, [1], noise=0.2, observation=[0.5])
    score = guided.dps(net.for_sampling("bfloat16", "oneDNN"), seen, 1.0)
    x = torch.randn((2, 4, 2), generator=torch.Generator().manual_seed(1))
    t, exact = 0.4, net.differentiable()
    m, v = float(VP.mean_scale(t)), float(VP.kernel_variance(t))

    def log_likelihood(x: torch.Tensor) -> torch.Tensor:
        return -((0.5 - ((x + v * exact(x, t)) / m)[..., 1]) ** 2) / 0.4

    h, wide = 1e-5, x.double()
    steps = h * torch.eye(2, dtype=torch.float64)
    slope = torch.stack(
        [(log_likelihood(wide + e) - log_likelihood(wide - e)) / (2 * h) for e in steps], dim=-1
    )
    expected = (exact(wide, t) + slope).float()
    torch.testing.assert_close(score(x, t), expected, rtol=1e-5, atol=1e-5)


# --- studies -------------------------------------------------------------------------------

MIXTURE = {"family": "mixture", "weights": [0.3, 0.7], "means": [-1.0, 1.0],
           "variances": [0.1, 0.25]}  # fmt: skip
SMALL: dict[str, Any] = {"steps": 3, "width": 16, "time_width": 16, "layers": 1,
                         "output": "preconditioned"}  # fmt: skip


def study(**changes: Any) -> dict[str, Any]:
    return {
        "study": "x", "seeds": 2, "n_samples": 40, "n_train": 60, "n_steps": [4], "device": "cpu",
        "n_reference": None, "n_score_error": 4,
        "schedules": [{"family": "beta_a", "a": [0, 5], "beta_min": 0.1, "beta_max": 20.0}],
        "targets": [
            MIXTURE | {"name": "prior"},
            {"family": "tilted", "prior": MIXTURE, "component": 1, "weight": [0, 2]},
            {"family": "conditional", "prior": MIXTURE, "label": [0, 1]},
        ],
        "scores": [
            {"family": "trained", "name": "net", "targets": ["prior"],
             "recipe": SMALL | {"label_dropout": 0.1}},
            {"family": "trained_class_guidance", "network": "net"},
            {"family": "trained_classifier_free", "network": "net", "weight": [0, 1]},
        ],
    } | changes  # fmt: skip


def test_one_network_is_trained_for_all_classes_and_weights(tmp_path: Path) -> None:
    plan = Plan(Study.parse(study(schedules_per_job=2)), tmp_path)
    check(plan.study)
    (network,) = plan.files("network")
    cells = [labels for labels in plan.cells("samples") if labels["target"] != "prior"]
    assert len(cells) == 2 + 2 * 2
    for labels in cells:
        assert plan.inputs("samples", SimpleNamespace(**labels)) == {"network": network}
    run_jobs(plan, ["data", "network"])
    told = plan.spec("samples", SimpleNamespace(**cells[0]))
    assert '"sgm.guidance:class_guidance"' in told  # the chain beside it
    # what is asked for changes no network; neither do more schedules, whose guided cells follow
    first = next(plan.cells("network"))
    more = study(schedules_per_job=2)
    more["targets"][1]["weight"], more["targets"][2]["label"] = [0, 1, 5], [0]
    more["schedules"][0]["a"] = [0, 5, 10]
    grown = Plan(Study.parse(more), tmp_path)
    assert grown.spec("network", SimpleNamespace(**first)) == plan.spec(
        "network", SimpleNamespace(**first)
    )
    blocks = {labels["schedules"] for labels in grown.cells("samples")}
    assert blocks == {"beta_a=0,beta_a=5", "beta_a=10"}


def test_networks_without_classes_are_what_they_were() -> None:
    score = {"family": "trained", "recipe": SMALL}
    plan = Plan(Study.parse(study(scores=[score], targets=[MIXTURE])), Path("x"))
    told = plan.spec("network", SimpleNamespace(**next(plan.cells("network"))))
    assert "label_dropout" not in told
    assert "classes" not in told


def test_a_guided_study_runs_beside_the_guided_exact_scores(tmp_path: Path) -> None:
    """Of enough steps or none, w2_coupling is to the chain of exact scores, guided alike."""
    from sgm.gather import gather

    config = study(divergences=["gaussian_w2", {"family": "sample_w2", "rows": 40}])
    config["schedules"][0]["a"] = [0]
    config["targets"].append(
        {"family": "posterior", "prior": MIXTURE, "observed": [0], "observation": [0.2],
         "noise": 0.5}
    )  # fmt: skip
    config["scores"] += [
        {"family": f"trained_{name}", "network": "net"} for name in ("dps", "pigdm", "replacement")
    ]
    plan = Plan(Study.parse(config), tmp_path / "x")
    check(plan.study)
    run_jobs(plan, ["data", "network", "samples", "divergences", "floors", "axes"])
    grid = gather(plan, {}).squeeze()
    assert not (grid.status == 2).any()
    ran = np.isfinite(grid.w2_sample).any("seed")
    assert int(ran.sum()) == 1 + 2 + 4 + 3
    np.testing.assert_array_equal(np.isfinite(grid.w2_coupling).any("seed"), ran)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c["scores"][1].update(network="other"), "network = 'other' of .*: must be the"),
        (
            lambda c: c["scores"][0]["recipe"].pop("label_dropout"),
            "its recipe must have a label_dropout",
        ),
        (
            lambda c: c["targets"][1].update(prior=MIXTURE | {"weights": [0.5, 0.5]}),
            "the prior of target 'tilted_weight=0' must be a target of the study",
        ),
        (
            lambda c: c["scores"][0].pop("targets"),
            "label_dropout = 0.1: must be null for rows without classes",
        ),
        (lambda c: c["scores"][0]["recipe"].update(label_dropout=1), "label_dropout = 1"),
        (lambda c: c["scores"][0]["recipe"].update(label_dropout=0), "label_dropout = 0"),
        (
            lambda c: c["scores"][0]["recipe"].update(objective="explicit"),
            "label_dropout = 0.1: must be null for objective = 'explicit'",
        ),
        (lambda c: c["targets"][2].update(label=[2]), "label = 2: must be from 0 to 1"),
        (
            lambda c: c["targets"][2].update(rescale={"center": True, "scale": 2.0}),
            "rescale of 'conditional_label=0': must be null",
        ),
        (lambda c: c["scores"][2].update(weight=-1), "weight = -1"),
        (
            lambda c: c.update(process={"family": "kinetic", "position_noise": 0.0},
                               samplers=["sscs"]),
            "must be left out for the process kinetic",
        ),
        (
            lambda c: c["scores"][0].update(targets=["tilted_weight=0"]),
            "on which 'net' is trained",
        ),
    ],
)  # fmt: skip
def test_a_study_without_such_networks_is_refused_by_name(change: Any, said: str) -> None:
    config = study()
    change(config)
    with pytest.raises(ValueError, match=said):
        check(Study.parse(config))
