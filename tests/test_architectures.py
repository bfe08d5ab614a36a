"""What a network's output is: coefficients against Karras et al.'s, and exact scores."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sgm import scores
from sgm.architectures import (
    ARCHITECTURES,
    MLP,
    OUTPUTS,
    Architecture,
    Mixer,
    build_architecture,
    from_keys,
    network_keys,
)
from sgm.gaussian import Gaussian
from sgm.processes import Process, VEProcess, VPProcess
from sgm.schedules import BetaSchedule, ConstantSchedule, GeometricSchedule

PLAIN = MLP(dimension=3, width=32, layers=3, time_width=16, time_scale=4.0, output="relative")
MIXER = Mixer(
    dimension=64, image_shape=(8, 8), patch=2, channels=32, token_width=16, channel_width=48,
    layers=2, time_width=16, time_scale=10.0, output="preconditioned",
)  # fmt: skip
PROCESSES: dict[str, Process] = {
    "vp": VPProcess(BetaSchedule(2.0, 1.0, 0.1, 20.0), 1.5),
    "ve": VEProcess(GeometricSchedule(2.0, 0.01, 50.0)),
}
TIMES = np.array([1e-9, 1e-4, 0.1, 1.0, 2.0])
S = 0.7


@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
def test_preconditioning_is_karras_denoiser_in_tweedies_formula(process: Process) -> None:
    """s = (m D(x/m; ς) − x)/v, D = c_skip y + c_out F(c_in y), their table 1."""
    m, v = process.mean_scale(TIMES), process.kernel_variance(TIMES)
    level = np.sqrt(v) / m
    c_skip = S**2 / (level**2 + S**2)
    c_out = level * S / np.sqrt(level**2 + S**2)
    c_in = 1 / np.sqrt(level**2 + S**2)
    architecture = replace(PLAIN, output="preconditioned", data_std=S)
    inward, gain, divisor = architecture.preconditioner(process, TIMES)
    np.testing.assert_allclose(inward, c_in / m, rtol=1e-12)
    np.testing.assert_allclose(gain, m * c_out / v, rtol=1e-12)
    # c_skip − 1 loses its digits where v is small
    np.testing.assert_allclose(-1 / divisor, (c_skip - 1) / v, rtol=1e-12, atol=1e-15 / v.min())


@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
def test_no_output_at_all_is_the_score_of_gaussian_data(process: Process) -> None:
    exact = scores.exact(process, Gaussian.diagonal(np.zeros(3), np.full(3, S**2)))
    x = np.random.default_rng(0).standard_normal((5, 3))
    architecture = replace(PLAIN, output="preconditioned", data_std=S)
    _, _, divisor = architecture.preconditioner(process, TIMES)
    for t, v in zip(TIMES, divisor, strict=True):
        np.testing.assert_allclose(-x / v, exact(x, float(t)), rtol=1e-12)


@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
@pytest.mark.parametrize("output", ["noise", "preconditioned"])
def test_networks_see_and_learn_variance_one(process: Process, output: str) -> None:
    """On Gaussian data of that deviation: of x/√V exactly, of the denoising target as well."""
    architecture = replace(PLAIN, output=output, data_std=S)
    inward, gain, divisor = architecture.preconditioner(process, TIMES)
    m, v = process.mean_scale(TIMES), process.kernel_variance(TIMES)
    np.testing.assert_allclose(inward**2 * (m**2 * S**2 + v), 1, rtol=1e-12)
    # target F* = (−z/√v + x/V)/gain with x = m x₀ + √v z: a sum of two independent normals
    skip = 0.0 if divisor is None else 1 / divisor
    variance = ((skip * m * S) ** 2 + (skip * np.sqrt(v) - 1 / np.sqrt(v)) ** 2) / gain**2
    np.testing.assert_allclose(variance, 1, rtol=1e-6)


@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
def test_an_output_that_is_right_about_the_data_is_the_score_of_the_kernel(
    process: Process,
) -> None:
    """F = X₀ of output "data", F = Z of "noise": s = −Z/√v either way."""
    x0, z = np.random.default_rng(0).standard_normal((2, len(TIMES)))
    m, v = process.mean_scale(TIMES), process.kernel_variance(TIMES)
    x = m * x0 + np.sqrt(v) * z
    for output, learned in (("data", x0), ("noise", z)):
        _, gain, divisor = replace(PLAIN, output=output).preconditioner(process, TIMES)
        score = gain * learned - (0.0 if divisor is None else x / divisor)
        np.testing.assert_allclose(score, -z / np.sqrt(v), rtol=1e-9, atol=1e-9)


def test_preconditioned_is_the_prediction_of_the_velocity() -> None:
    """−F = m Z − √v X₀ where all variances are one (Salimans & Ho)."""
    process = VPProcess(BetaSchedule(2.0, 0.0, 0.1, 20.0), 1.0)
    x0, z = np.random.default_rng(0).standard_normal((2, len(TIMES)))
    m, v = process.mean_scale(TIMES), process.kernel_variance(TIMES)
    x = m * x0 + np.sqrt(v) * z
    inward, gain, divisor = replace(PLAIN, output="preconditioned").preconditioner(process, TIMES)
    np.testing.assert_allclose(inward, 1.0, rtol=1e-12)
    np.testing.assert_allclose(
        -gain * (m * z - np.sqrt(v) * x0) - x / divisor, -z / np.sqrt(v), rtol=1e-9, atol=1e-9
    )


def test_log_noise_is_that_of_karras_and_survives_underflow() -> None:
    architecture = replace(PLAIN, time_input="log_noise")
    for process in PROCESSES.values():
        level = np.sqrt(process.kernel_variance(TIMES)) / process.mean_scale(TIMES)
        np.testing.assert_allclose(architecture.angle(process, TIMES), np.log(level), rtol=1e-12)
    late = VPProcess(ConstantSchedule(4000.0, 1.0), 1.0)
    assert late.mean_scale(4000.0) == 0
    assert architecture.angle(late, np.array(4000.0)) == pytest.approx(2000.0)
    np.testing.assert_array_equal(PLAIN.angle(late, TIMES), 4.0 / 4000 * TIMES)


@pytest.mark.parametrize(
    "changes",
    [
        {"output": "noise"},
        {"output": "data"},
        {"output": "preconditioned"},
        {"time_input": "log_noise"},
    ],
)
def test_the_datas_end_is_refused_where_the_noise_divides(changes: dict[str, str]) -> None:
    score = replace(PLAIN, output="score")
    for process in PROCESSES.values():
        score.require(process, 0.0)
        architecture = replace(score, **changes)
        architecture.require(process, 1e-9)
        with pytest.raises(ValueError, match=r"^t = 0\.0: must be positive"):
            architecture.require(process, 0.0)


def test_relative_is_refused_without_a_stationary_law() -> None:
    with pytest.raises(
        ValueError, match=r"^output = 'relative': must be 'score', 'noise', 'data' or"
    ):
        PLAIN.require(PROCESSES["ve"], 1.0)
    for output in set(OUTPUTS) - {"relative"}:
        replace(PLAIN, output=output).require(PROCESSES["ve"], 1.0)


@pytest.mark.parametrize(
    ("architecture", "key", "value"),
    [
        (PLAIN, "width", 50),
        (PLAIN, "width", 0),
        (PLAIN, "time_width", 8),
        (PLAIN, "layers", 0),
        (PLAIN, "time_scale", -1.0),
        (PLAIN, "output", "denoiser"),
        (PLAIN, "time_input", "sigma"),
        (PLAIN, "activation", "tanh"),
        (PLAIN, "data_std", float("inf")),
        (MIXER, "channels", 20),
        (MIXER, "token_width", 0),
        (MIXER, "channel_width", 8),
        (MIXER, "patch", 3),
        (MIXER, "classes", -1),
        (MIXER, "patch", 0),
        (MIXER, "dimension", 61),
        (MIXER, "image_shape", None),
        (MIXER, "image_shape", (64,)),
    ],
)
def test_bad_architectures_name_the_key(
    architecture: Architecture, key: str, value: object
) -> None:
    with pytest.raises(ValueError, match=f"^{key} = .*must be|^patch = .*must divide"):
        replace(architecture, **{key: value})


@pytest.mark.parametrize("architecture", [PLAIN, MIXER])
def test_keys_make_the_architecture_again(architecture: Architecture) -> None:
    keys = architecture.keys()
    assert from_keys(keys) == architecture
    own = network_keys(keys | {"steps": 3, "weight": "unit"})
    assert own.keys() == keys.keys() - {"dimension", "image_shape", "classes"}
    shape = getattr(architecture, "image_shape", None)
    assert build_architecture(own, architecture.dimension, shape) == architecture
    for broken, message in (
        (keys | {"depth": 3}, "depth"),
        ({key: keys[key] for key in keys if key != "layers"}, "layers"),
        (keys | {"architecture": "unet"}, "architecture = 'unet': must be one of mlp, mixer"),
    ):
        with pytest.raises(ValueError, match=message):
            from_keys(broken)
    assert set(ARCHITECTURES) == {"mlp", "mixer", "module", "module_file"}
