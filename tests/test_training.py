"""Training: independence of the block, isolation of failures, and that it learns."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from sgm import scores, targets, timegrids, training
from sgm.architectures import build_architecture
from sgm.evaluation import score_error_moments
from sgm.gaussian import Gaussian
from sgm.networks import ScoreEnsemble
from sgm.objectives import OBJECTIVES, Examples, explicit_score_matching
from sgm.processes import Process, VEProcess, VPProcess
from sgm.random import stream, stream_seed
from sgm.run.jobs import stages
from sgm.schedules import BetaSchedule, GeometricSchedule
from sgm.scores import GaussianScore
from sgm.training import (
    LEARNING_RATES,
    TIME_SAMPLINGS,
    Recipe,
    TrainingResult,
    train_networks,
)

D = 5
PROCESS = VPProcess(BetaSchedule(horizon=1.0, a=1.0, beta_min=0.1, beta_max=20.0), 1.0)
COVARIANCE = 1 / np.sqrt(1 + np.abs(np.subtract.outer(np.arange(D), np.arange(D))))
LAW = Gaussian.from_covariance(np.ones(D), COVARIANCE)
EXACT = scores.exact(PROCESS, LAW)
SEEDS = [3, 1, 4, 15]
NETWORK: dict[str, object] = {
    "architecture": "mlp",
    "width": 32,
    "layers": 2,
    "time_width": 16,
    "time_scale": 1000.0,
    "output": "relative",
}
RECIPE = Recipe(
    objective="explicit",
    weight="unit",
    network=NETWORK,
    batch_size=20,
    steps=25,
    learning_rate=1e-3,
    learning_rate_schedule="cosine",
    ema=0.9,
    time_sampling="stratified",
    time_min=1e-5,
)


def data(n: int, seeds: Sequence[int]) -> npt.NDArray[np.float64]:
    return np.stack([LAW.sample(n, stream(0, "data", seed=seed)) for seed in seeds])


def train(
    recipe: Recipe,
    samples: npt.NDArray[np.float64],
    seeds: Sequence[int],
    networks_per_pass: int | None = None,
    process: Process = PROCESS,
) -> TrainingResult:
    exact = scores.exact(process, LAW)
    return train_networks(
        recipe, process, samples, exact, 0, seeds, {"target": "x"}, "cpu", networks_per_pass
    )


def assert_same_networks(one: ScoreEnsemble, other: ScoreEnsemble) -> None:
    assert len(one) == len(other)
    for name, weight in one.state_dict().items():
        assert torch.equal(weight, other.state_dict()[name]), name


@pytest.mark.parametrize(
    ("objective", "probes", "width", "n"),
    [
        *(
            (objective, 0, *sizes)
            for objective in ("explicit", "denoising")
            for sizes in ((32, 70), (64, 55), (256, 64))
        ),
        ("implicit", 0, 32, 70),
        ("implicit", 2, 64, 55),
        ("sliced", 1, 256, 64),
    ],
)
def test_numbers_do_not_depend_on_the_block(
    objective: str, probes: int, width: int, n: int
) -> None:
    smooth = {"activation": "silu"} if objective in ("implicit", "sliced") else {}
    network = NETWORK | {"width": width} | smooth
    recipe = replace(RECIPE, objective=objective, probes=probes, network=network)
    samples = data(n, SEEDS)
    whole = train(recipe, samples, SEEDS, networks_per_pass=4)
    assert not whole.failed.any()
    for per_pass in (1, 3, None):
        split = train(recipe, samples, SEEDS, per_pass)
        assert_same_networks(split.networks, whole.networks)
        np.testing.assert_array_equal(split.loss_history, whole.loss_history)
    reordered = train(recipe, samples[[2, 0]], [SEEDS[2], SEEDS[0]])
    assert_same_networks(reordered.networks[:1], whole.networks[2:3])
    assert_same_networks(reordered.networks[1:], whole.networks[:1])
    assert not torch.equal(whole.networks.weights["input"][0], whole.networks.weights["input"][1])


IMAGES = NETWORK | {
    "architecture": "mixer", "patch": 2, "channels": 16, "token_width": 16, "channel_width": 32,
    "output": "preconditioned", "time_input": "log_noise", "time_scale": 10.0, "data_std": 0.6,
}  # fmt: skip
IMAGES.pop("width")
VE = VEProcess(GeometricSchedule(1.0, 0.01, 50.0))


def test_mixers_do_not_depend_on_the_block() -> None:
    """Images of 4 × 6 pixels, noised by the VE process."""
    samples = np.random.default_rng(0).standard_normal((4, 70, 24))
    recipe = replace(RECIPE, objective="denoising", weight="variance", network=IMAGES)

    def train(block: slice, networks_per_pass: int) -> TrainingResult:
        return train_networks(
            recipe, VE, samples[block], None, 0, SEEDS[block], {}, "cpu", networks_per_pass,
            image_shape=(4, 6),
        )  # fmt: skip

    whole = train(slice(0, 4), 4)
    assert not whole.failed.any()
    for per_pass in (1, 3):
        split = train(slice(0, 4), per_pass)
        assert_same_networks(split.networks, whole.networks)
        np.testing.assert_array_equal(split.loss_history, whole.loss_history)
    assert_same_networks(train(slice(2, 4), 1).networks, whole.networks[2:])


def test_preconditioned_networks_learn_an_exploding_score() -> None:
    """Two modes, noise from 0.01 to 50: G = ½∫β mse in nats, with the plain output's for scale."""
    law = targets.two_modes().law
    network = NETWORK | {
        "width": 64, "layers": 3, "output": "preconditioned", "data_std": 2.6, "time_scale": 10.0
    }  # fmt: skip
    recipe = replace(
        RECIPE, objective="denoising", weight="variance", network=network, batch_size=64,
        steps=800, ema=0.0, learning_rate=2e-3,
    )  # fmt: skip
    seeds = [0, 1]
    samples = np.stack([law.sample(4000, np.random.default_rng(seed)) for seed in seeds])
    times = np.linspace(1.0, 0.005, 200)

    def gap(recipe: Recipe) -> npt.NDArray[np.float64]:
        networks = train_networks(recipe, VE, samples, None, 0, seeds, {}, "cpu").networks
        moments = score_error_moments(
            networks, VE, law, times, 100, 0, seeds, {}, torch.float32, torch.device("cpu")
        )
        return -np.asarray(np.trapezoid(VE.schedule.beta(times) / 2 * moments.mse, times, axis=1))

    trained = gap(recipe)
    assert np.all(trained < 0.4)  # 0.25 in 800 steps
    assert np.all(trained < 0.4 * gap(replace(recipe, network=network | {"output": "score"})))
    assert np.all(trained < 0.4 * gap(replace(recipe, steps=1, learning_rate=1e-30)))


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (NETWORK | {"width": 100}, "^width = 100: must be"),
        (NETWORK | {"architecture": "unet"}, "^architecture = 'unet': must be one of"),
        (NETWORK, "^output = 'relative': must be"),
        (IMAGES, "^image_shape = None: must be"),
    ],
)
def test_networks_that_suit_neither_rows_nor_process_are_refused(
    network: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        train_networks(
            replace(RECIPE, network=network), VE, data(70, SEEDS), EXACT, 0, SEEDS, {}, "cpu"
        )


def test_a_config_gives_the_keys_of_training_and_network_side_by_side() -> None:
    choices = {field.name: getattr(RECIPE, field.name) for field in fields(RECIPE)}
    choices.pop("network")
    assert Recipe.from_keys({**choices, **NETWORK}) == RECIPE
    mixer = {key: IMAGES[key] for key in sorted(IMAGES)}
    assert Recipe.from_keys({**mixer, **choices}).network == IMAGES


def test_the_stage_trains_images_of_the_target(tmp_path: Path) -> None:
    """The Gaussian with the moments of 2 × 4 pixels, from an extension, through both stages."""
    (tmp_path / "pixels.py").write_text(
        "import numpy as np\n"
        "from sgm.gaussian import Gaussian\n"
        "from sgm.targets import LawTarget\n\n"
        "def pixels():\n"
        "    law = Gaussian.diagonal(np.zeros(8), np.ones(8))\n"
        "    return LawTarget(law, None, (2, 4))\n"
    )
    recipe = {field.name: getattr(RECIPE, field.name) for field in fields(RECIPE)}
    recipe |= {**recipe.pop("network"), **IMAGES, "steps": 3}
    recipe.pop("width")
    spec = {
        "study_seed": 1,
        "n_train": 40,
        "target": {
            "build": f"{tmp_path / 'pixels.py'}:pixels", "parameters": {}, "label": "pixels"
        },
        "process": {"build": "sgm.processes:VEProcess", "parameters": {}},
        "schedules": [
            {
                "build": "sgm.schedules:GeometricSchedule", "label": "geometric",
                "parameters": {"sigma_min": 0.01, "sigma_max": 50.0},
            },
        ],
        "horizon": 1.0,
        "score": {"parameters": {"recipe": recipe}},
    }  # fmt: skip
    files = {name: tmp_path / name for name in ("data", "network", "training")}
    stages.data(spec, range(2), {}, files, "cpu")
    stages.network(spec, range(2), files, files, "cpu")
    networks = ScoreEnsemble.load(files["network"])
    assert networks.architecture.keys()["image_shape"] == (2, 4)
    x = torch.zeros((2, 3, 8))
    assert networks.bind(VE)(x, 0.5).isfinite().all()


@pytest.mark.parametrize("bad", [1e30, 1e200])
def test_a_failed_network_is_named_and_harms_no_other(bad: float) -> None:
    samples = data(70, SEEDS)
    sound = train(RECIPE, samples, SEEDS)
    broken = samples.copy()
    broken[1, 7] = bad  # its row comes somewhere in the first epoch of four steps
    result = train(RECIPE, broken, SEEDS)
    np.testing.assert_array_equal(result.failed, [False, True, False, False])
    assert [bool(message) for message in result.messages] == [False, True, False, False]
    step = int(result.messages[1].removeprefix("loss is not finite at step ").split(" ")[0])
    assert 1 <= step <= 4
    assert np.isnan(result.loss[1])
    assert all(w[1].isnan().all() for w in result.networks.weights.values())
    keep = [0, 2, 3]
    for name, weight in result.networks.weights.items():
        assert torch.equal(weight[keep], sound.networks.weights[name][keep])
    np.testing.assert_array_equal(result.loss_history[keep], sound.loss_history[keep])


def test_a_block_that_fails_as_a_whole_ends_with_its_messages() -> None:
    result = train(RECIPE, np.full((2, 70, D), 1e200), [0, 1])
    assert result.failed.all()
    assert result.messages == ("loss is not finite at step 1 of 25",) * 2
    assert result.loss_history.shape == (2, 7)


def test_training_learns_the_score_and_reproduces() -> None:
    """E₂ falls below 0.3 nats, a fiftieth of where it starts."""
    wide = NETWORK | {"width": 64, "time_width": 32}
    recipe = replace(RECIPE, network=wide, batch_size=64, steps=800, ema=0.0)
    samples, seeds = data(4000, SEEDS[:2]), SEEDS[:2]
    times = timegrids.uniform(1.0, 100)
    increments = -np.diff(PROCESS.schedule.integral(times))

    def e2(networks: ScoreEnsemble) -> npt.NDArray[np.float64]:
        moments = score_error_moments(
            networks, PROCESS, LAW, times[:-1], 64, 0, seeds, {}, torch.float32, torch.device("cpu")
        )
        return moments.mse @ increments

    trained = train(recipe, samples, seeds)
    untrained = train(replace(recipe, steps=1, learning_rate=1e-30), samples, seeds)
    assert np.all(e2(trained.networks) < 0.3)
    assert np.all(e2(trained.networks) < 0.02 * e2(untrained.networks))
    assert np.all(trained.loss_history[:, -1] < 0.05 * trained.loss_history[:, 0])
    np.testing.assert_array_equal(trained.loss, trained.loss_history[:, -1])
    assert_same_networks(train(recipe, samples, seeds).networks, trained.networks)


@pytest.mark.parametrize(
    "changes",
    [
        {"objective": "implicit"},
        {"objective": "implicit", "probes": 2},
        {"objective": "implicit", "probes": 1, "probe": "gaussian"},
        {"objective": "sliced", "probes": 2},
        {"objective": "denoising"},
        {"objective": "denoising", "weight": "beta"},
        {"objective": "denoising", "weight": "min_snr"},
        {"objective": "denoising", "weight": "information"},
    ],
    ids=lambda changes: ", ".join(map(str, changes.values())),
)
def test_every_objective_and_weight_learns_the_score(changes: dict[str, Any]) -> None:
    """E₂ falls to a tenth and less of where it starts; information has little to say at the end."""
    smooth = NETWORK | {"width": 64, "activation": "silu"}
    recipe = replace(
        RECIPE, weight="variance", network=smooth, batch_size=64, steps=600, ema=0.0,
        learning_rate=3e-3, time_sampling="early",
    )  # fmt: skip
    recipe, seeds = replace(recipe, **changes), SEEDS[:1]
    times = timegrids.uniform(1.0, 50)
    increments = -np.diff(PROCESS.schedule.integral(times))

    def e2(recipe: Recipe) -> float:
        networks = train(recipe, data(4000, seeds), seeds).networks
        moments = score_error_moments(
            networks, PROCESS, LAW, times[:-1], 64, 0, seeds, {}, torch.float32, torch.device("cpu")
        )
        return float(moments.mse[0] @ increments)

    least = 0.5 if recipe.weight == "information" else 0.1
    assert e2(recipe) < least * e2(replace(recipe, steps=1, learning_rate=1e-30))


def test_at_the_start_alone_score_matching_is_hyvarinens() -> None:
    """Without noise: the score of the data themselves, −Σ⁻¹(x − μ), to a tenth of E|s|²."""
    recipe = replace(
        RECIPE, objective="implicit", network=NETWORK | {"activation": "silu"}, batch_size=64,
        steps=800, ema=0.0, learning_rate=3e-3, time_sampling="start", time_min=0.0,
    )  # fmt: skip
    networks = train(recipe, data(4000, SEEDS[:1]), SEEDS[:1]).networks
    x = LAW.sample(4000, np.random.default_rng(1))
    error = networks(torch.as_tensor(x).float()[None], 0.0)[0].numpy() - LAW.score(x)
    assert np.mean(error**2) < 0.1 * np.mean(LAW.score(x) ** 2)


@pytest.mark.parametrize(
    ("changes", "network", "message"),
    [
        ({"objective": "implicit"}, {}, "^objective = 'implicit': needs a smooth network"),
        ({"objective": "denoising"}, {}, r"^time_min = 0\.0: must be positive for objective"),
        ({"weight": "variance"}, {}, "^weight = 'variance': must be positive at the only time"),
        ({}, {"output": "noise"}, r"^t = 0\.0: must be positive for a network"),
    ],
)
def test_losses_that_do_not_exist_are_refused(
    changes: dict[str, Any], network: dict[str, object], message: str
) -> None:
    recipe = replace(RECIPE, time_sampling="start", time_min=0.0, network=NETWORK | network)
    with pytest.raises(ValueError, match=message):
        train(replace(recipe, **changes), data(70, SEEDS), SEEDS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objective": "denoising", "probes": 2}, "^probes = 2: must be 0 for objective"),
        ({"objective": "sliced"}, "^probes = 0: must be at least 1 for objective = 'sliced'"),
        ({"objective": "implicit", "probes": -1}, "^probes = -1: must be at least 0"),
        ({"objective": "implicit", "probe": "gaussian"}, "^probe = 'gaussian': needs probes"),
    ],
)
def test_random_directions_belong_to_objectives_that_draw_some(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        replace(RECIPE, **changes)


def test_one_step_is_adams_first_step() -> None:
    """Adam's first update is −lr · g/(|g| + ε): every weight with a gradient moves by lr."""
    recipe = replace(RECIPE, steps=1, ema=0.0, learning_rate=1e-2)
    samples = data(70, SEEDS[:1])
    before = train(replace(recipe, learning_rate=1e-30), samples, SEEDS[:1]).networks
    after = train(recipe, samples, SEEDS[:1]).networks
    moved = (after.weights["output"] - before.weights["output"])[..., :D].abs()
    torch.testing.assert_close(moved, torch.full_like(moved, 1e-2), rtol=1e-2, atol=0)
    averaged = train(replace(recipe, ema=0.75), samples, SEEDS[:1]).networks
    for name, weight in averaged.weights.items():
        expected = (2 * before.weights[name] + 9 * after.weights[name]) / 11
        torch.testing.assert_close(weight, expected)


def test_a_running_mean_of_few_steps_forgets_the_initial_weights() -> None:
    recipe = replace(RECIPE, learning_rate_schedule="constant", batch_size=20, ema=0.0)
    samples = data(100, SEEDS[:1])
    after = [
        train(replace(recipe, steps=n), samples, SEEDS[:1]).networks.weights for n in range(1, 11)
    ]
    averaged = train(replace(recipe, steps=10, ema=0.9999), samples, SEEDS[:1]).networks
    unmoved = train(replace(recipe, steps=1, learning_rate=1e-30), samples, SEEDS[:1]).networks
    for name, mean in unmoved.weights.items():
        for n, weights in enumerate(after, 1):
            mean = ((1 + n) * mean + 9 * weights[name]) / (10 + n)
        torch.testing.assert_close(averaged.weights[name], mean)


def test_the_loss_of_averaged_networks_is_that_of_their_weights() -> None:
    recipe = replace(RECIPE, steps=1, batch_size=100, learning_rate=1e-2)
    samples = data(100, SEEDS[:1])
    plain = train(replace(recipe, ema=0.0), samples, SEEDS[:1])
    last = train(replace(recipe, ema=1e-12), samples, SEEDS[:1])  # its weights are the last ones
    for name, weight in plain.networks.weights.items():
        torch.testing.assert_close(last.networks.weights[name], weight)
    streams = training._Streams(0, SEEDS[0], {"target": "x"})
    *parts, _ = streams.epoch(recipe, PROCESS, samples[0], EXACT)
    x, targets_, t, weight_t = (torch.from_numpy(part)[None].float() for part in parts)
    condition = last.networks.condition(t.numpy())
    score = partial(last.networks.evaluate, condition=condition)
    loss = weight_t * OBJECTIVES[recipe.objective].row_loss(score, x, targets_)
    np.testing.assert_allclose(last.loss, float(loss.mean()), rtol=1e-4)
    assert abs(plain.loss[0] / last.loss[0] - 1) > 1e-3  # along the way: of the initial weights


def test_schedules_share_all_draws_of_a_seed_and_seeds_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe = replace(RECIPE, steps=5, learning_rate=1e-30, ema=0.0)
    other = VPProcess(BetaSchedule(horizon=1.0, a=-5.0, beta_min=0.1, beta_max=20.0), 1.0)
    drawn: list[tuple[npt.NDArray[np.float64], ...]] = []

    def record(
        process: Process,
        exact_score: GaussianScore | None,
        x0: npt.NDArray[np.float64],
        t: npt.NDArray[np.float64],
        z: npt.NDArray[np.float64],
        probes: npt.NDArray[np.float64],
    ) -> Examples:
        drawn.append((x0, t, z))
        return explicit_score_matching(process, exact_score, x0, t, z, probes)

    monkeypatch.setitem(OBJECTIVES, "explicit", replace(OBJECTIVES["explicit"], examples=record))
    samples = np.repeat(data(70, [3]), 2, axis=0)
    one, two = (train(recipe, samples, [3, 8], process=p) for p in (PROCESS, other))
    assert_same_networks(one.networks, two.networks)
    initial = ScoreEnsemble.initial(
        build_architecture(recipe.network, D, None), [stream_seed(0, "weights", seed=3, target="x")]
    )
    assert_same_networks(one.networks[:1], initial)
    assert not torch.equal(one.networks.weights["input"][0], one.networks.weights["input"][1])
    # two schedules × two epochs × two seeds
    assert len(drawn) == 8
    for under_one, under_two in zip(drawn[:4], drawn[4:], strict=True):
        for values, others in zip(under_one, under_two, strict=True):
            np.testing.assert_array_equal(values, others)
    for values, others in zip(drawn[0], drawn[1], strict=True):
        assert not np.array_equal(values, others)
    for values, others in zip(drawn[0], drawn[2], strict=True):
        assert not np.array_equal(values, others)  # the second epoch is new
    np.testing.assert_array_equal(np.sort(drawn[0][0], axis=0), np.sort(samples[0], axis=0))


def test_epochs_end_with_a_partial_batch_as_a_loader_does() -> None:
    """70 rows in batches of 20 are four steps; 25 steps are six epochs and one step."""
    result = train(RECIPE, data(70, SEEDS), SEEDS)
    assert result.loss_history.shape == (4, 7)
    assert np.all(np.isfinite(result.loss_history))
    assert np.all(result.seconds > 0)


def test_stratified_times_fall_one_in_a_stratum() -> None:
    n, b = 70, 20
    place = np.arange(n) % b
    size = np.where(np.arange(n) < 60, 20, 10)
    u = np.random.default_rng(0).random(n)
    t = TIME_SAMPLINGS["stratified"](u, place, size)
    for start, stop in ((0, 20), (40, 60), (60, 70)):
        strata = np.floor(t[start:stop] * (stop - start))
        np.testing.assert_array_equal(np.sort(strata), np.arange(stop - start))
    np.testing.assert_array_equal(TIME_SAMPLINGS["uniform"](u, place, size), u)
    # the distribution function of "early" is t^{2/3}
    np.testing.assert_allclose(TIME_SAMPLINGS["early"](u, place, size) ** (2 / 3), t)


def test_cosine_falls_from_one_to_zero() -> None:
    cosine = LEARNING_RATES["cosine"]
    assert cosine(0.0) == 1
    assert cosine(0.5) == pytest.approx(0.5)
    assert cosine(1.0) == 0


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("objective", "contrastive"),
        ("probe", "uniform"),
        ("probes", 1),
        ("weight", "sigma"),
        ("learning_rate_schedule", "linear"),
        ("time_sampling", "sobol"),
        ("batch_size", 0),
        ("steps", -1),
        ("learning_rate", float("nan")),
        ("ema", 1.0),
        ("time_min", -0.1),
    ],
)
def test_bad_recipes_name_the_key_and_the_value(key: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"^{key} = .*must"):
        replace(RECIPE, **{key: value})


def test_bad_data_are_refused() -> None:
    with pytest.raises(ValueError, match="samples has shape"):
        train(RECIPE, data(70, SEEDS), SEEDS[:2])
    samples = data(70, SEEDS)
    samples[0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="finite"):
        train(RECIPE, samples, SEEDS)
    with pytest.raises(ValueError, match="objective = 'explicit'"):
        train_networks(RECIPE, PROCESS, data(70, SEEDS), None, 0, SEEDS, {}, "cpu")
    weighted = replace(RECIPE, objective="denoising", weight="information")
    with pytest.raises(ValueError, match="weight = 'information': needs a target whose law"):
        train_networks(weighted, PROCESS, data(70, SEEDS), None, 0, SEEDS, {}, "cpu")
    with pytest.raises(ValueError, match="device = 'tpu'"):
        train_networks(RECIPE, PROCESS, data(70, SEEDS), EXACT, 0, SEEDS, {}, "tpu")


def test_a_network_trained_alone_does_not_pay_for_imports(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first optimiser of a process imports for half a second: that is no training time."""
    clock = [0.0]
    adam = torch.optim.Adam

    def slow(*arguments: Any, **options: Any) -> torch.optim.Adam:
        clock[0] += 100.0
        return adam(*arguments, **options)

    monkeypatch.setattr(torch.optim, "Adam", slow)
    monkeypatch.setattr(time, "process_time", lambda: clock[0])
    result = train_networks(RECIPE, PROCESS, data(70, SEEDS), EXACT, 0, SEEDS, {}, "cpu")
    assert result.seconds.max() < 1
