"""The ensemble against an independent implementation, one network at a time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from sgm import scores
from sgm.gaussian import Gaussian
from sgm.networks import Architecture, ScoreEnsemble, affine_score_fn
from sgm.processes import VPProcess
from sgm.schedules import BetaSchedule

ARCHITECTURE = Architecture(
    dimension=5,
    width=32,
    layers=3,
    time_width=16,
    time_scale=1000.0,
    output="relative",
    horizon=2.0,
    variance=1.5,
)
SEEDS = [11, 12, 13]


class PlainNetwork(nn.Module):
    """One network as a reader of the docstring would write it with torch.nn."""

    def __init__(self, a: Architecture) -> None:
        super().__init__()
        self.a = a
        self.input = nn.Linear(a.dimension, a.width, bias=False)
        self.time = nn.Linear(a.time_width, a.time_width, bias=False)
        self.layers = nn.ModuleList(
            nn.Linear(a.width, a.width, bias=False) for _ in range(a.layers)
        )
        self.time_layers = nn.ModuleList(
            nn.Linear(a.time_width, a.width, bias=False) for _ in range(a.layers)
        )
        self.output = nn.Linear(a.width, a.dimension)

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        half = self.a.time_width // 2
        angle = (self.a.time_scale * t / self.a.horizon)[:, None] * torch.tensor(
            [10000.0 ** (-k / half) for k in range(half)]
        )[None]
        embedding = torch.relu(self.time(torch.cat([torch.sin(angle), torch.cos(angle)], 1)))
        h = self.input(x)
        for layer, time_layer in zip(self.layers, self.time_layers, strict=True):
            h = h + torch.relu(layer(h) + time_layer(embedding))
        net = self.output(h)
        return net if self.a.output == "score" else net - x / self.a.variance

    def read(self, state: dict[str, torch.Tensor]) -> PlainNetwork:
        width = self.a.width
        with torch.no_grad():
            self.input.weight.copy_(state["input"].T)
            self.time.weight.copy_(state["time"].T)
            for k, (layer, time_layer) in enumerate(
                zip(self.layers, self.time_layers, strict=True)
            ):
                layer.weight.copy_(state[f"layer_{k}"].T)
                time_layer.weight.copy_(state["time_layers"][:, k * width : (k + 1) * width].T)
            self.output.weight.copy_(state["output"].T)
            self.output.bias.copy_(state["bias"])
        return self


def rows(ensemble: ScoreEnsemble, n: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shape = (len(ensemble), n, ensemble.architecture.dimension)
    x = torch.randn(shape, generator=generator)
    return x, ensemble.architecture.horizon * torch.rand(shape[:2], generator=generator)


@pytest.mark.parametrize("output", ["score", "relative"])
@pytest.mark.parametrize("dimension", [1, 5, 16, 50])
def test_ensemble_is_the_plain_networks_one_by_one(output: str, dimension: int) -> None:
    architecture = replace(ARCHITECTURE, output=output, dimension=dimension)
    ensemble = ScoreEnsemble.initial(architecture, SEEDS)
    x, t = rows(ensemble, 7)
    for w in ensemble.weights.values():
        w.requires_grad_()
    torch.autograd.backward(ensemble(x, t).square().sum())
    for r in range(len(ensemble)):
        state = {k: w[r] for k, w in ensemble.state_dict().items()}
        plain = PlainNetwork(architecture).read(state)
        expected = plain(x[r], t[r])
        torch.testing.assert_close(ensemble(x, t)[r], expected, rtol=1e-5, atol=1e-5)
        expected.square().sum().backward()
        gradient = ensemble.weights["layer_1"].grad
        assert gradient is not None
        torch.testing.assert_close(gradient[r].T, plain.layers[1].weight.grad, rtol=1e-4, atol=1e-4)


def test_one_time_for_all_rows_is_that_time_in_every_row() -> None:
    ensemble = ScoreEnsemble.initial(ARCHITECTURE, SEEDS)
    x, t = rows(ensemble, 9)
    everywhere = torch.full_like(t, 0.7)
    torch.testing.assert_close(ensemble(x, 0.7), ensemble(x, everywhere), rtol=1e-5, atol=1e-6)


def test_relative_output_adds_the_stationary_score() -> None:
    relative = ScoreEnsemble.initial(ARCHITECTURE, SEEDS)
    plain = ScoreEnsemble(replace(ARCHITECTURE, output="score"), relative.weights)
    x, t = rows(relative, 4)
    torch.testing.assert_close(relative(x, t) - plain(x, t), -x / ARCHITECTURE.variance)


def test_initial_weights_have_the_law_of_torch_linear() -> None:
    state = ScoreEnsemble.initial(ARCHITECTURE, range(200)).state_dict()
    plain = PlainNetwork(ARCHITECTURE)
    matrices = {
        "input": plain.input.weight,
        "time": plain.time.weight,
        "time_layers": plain.time_layers[0].weight,
        "layer_2": plain.layers[2].weight,
        "output": plain.output.weight,
        "bias": plain.output.bias,
    }
    for name, own in matrices.items():
        fan_in = ARCHITECTURE.width if name == "bias" else own.shape[1]
        bound = fan_in**-0.5
        assert own.abs().max() <= bound  # the reference really has this bound
        values = state[name].double().flatten()
        assert values.abs().max() <= bound
        # a uniform's variance is bound²/3, that of its square 4 bound⁴/45
        error = (4 / 45 / values.numel()) ** 0.5 * bound**2
        assert abs(values.square().mean() - bound**2 / 3) < 5 * error
        assert abs(values.mean()) < 5 * bound / (3 * values.numel()) ** 0.5


@pytest.mark.parametrize("dimension", [1, 5, 10, 50, 61])
@pytest.mark.parametrize("n", [1, 16, 33, 64])
def test_numbers_do_not_depend_on_the_block(dimension: int, n: int) -> None:
    architecture = replace(ARCHITECTURE, dimension=dimension, width=64)
    seeds = list(range(6))
    whole = ScoreEnsemble.initial(architecture, seeds)
    x, t = rows(whole, n)

    def run(block: slice) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        part = ScoreEnsemble.initial(architecture, seeds[block])
        for w in part.weights.values():
            w.requires_grad_()
        out = part(x[block], t[block])
        torch.autograd.backward(out.square().sum())
        return out.detach(), {k: w.grad for k, w in part.weights.items() if w.grad is not None}

    out, gradients = run(slice(0, 6))
    for block in (slice(0, 1), slice(3, 4), slice(5, 6), slice(1, 4)):
        part, part_gradients = run(block)
        assert torch.equal(part, out[block])
        assert all(torch.equal(part_gradients[k], g[block]) for k, g in gradients.items())
        with torch.no_grad():
            assert torch.equal(whole[block](x[block], 0.3), whole(x, 0.3)[block])


def test_wide_networks_run_one_by_one_to_the_same_numbers() -> None:
    architecture = replace(ARCHITECTURE, width=256)
    assert architecture.networks_per_pass == 1
    ensemble = ScoreEnsemble.initial(architecture, SEEDS)
    x, t = rows(ensemble, 40)
    together = ensemble.evaluate(x, ensemble.time_features(t))
    assert torch.equal(ensemble(x, t), together)


def test_save_and_load(tmp_path: Path) -> None:
    ensemble = ScoreEnsemble.initial(ARCHITECTURE, SEEDS)
    path = tmp_path / "block.safetensors"
    ensemble.save(path)
    loaded = ScoreEnsemble.load(path)
    assert loaded.architecture == ensemble.architecture
    assert len(loaded) == len(SEEDS)
    assert loaded.state_dict()["input"].shape == (3, 5, 32)
    x, t = rows(ensemble, 6)
    assert torch.equal(loaded(x, t), ensemble(x, t))


def test_a_state_of_other_shapes_is_refused() -> None:
    state = ScoreEnsemble.initial(ARCHITECTURE, SEEDS).state_dict()
    with pytest.raises(ValueError, match=r"weights of shapes .* must be"):
        ScoreEnsemble.from_state_dict(replace(ARCHITECTURE, width=64), state)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("width", 50),
        ("width", 0),
        ("time_width", 8),
        ("layers", 0),
        ("time_scale", -1.0),
        ("output", "noise"),
        ("horizon", float("inf")),
    ],
)
def test_bad_architectures_name_the_key(key: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"^{key} = "):
        replace(ARCHITECTURE, **{key: value})


@pytest.mark.parametrize("correlated", [False, True])
def test_affine_score_is_the_numpy_score(correlated: bool) -> None:
    d = 5
    offset = np.abs(np.subtract.outer(np.arange(d), np.arange(d)))
    covariance = 1 / np.sqrt(1 + offset) if correlated else np.diag([0.5, 0.01, 1, 2, 3])
    law = Gaussian.from_covariance(np.arange(d) / d, covariance)
    process = VPProcess(BetaSchedule(1.0, 2.0, 0.1, 20.0), 1.5)
    score = scores.GaussianScore(process, law, scale=1.1, bias=0.2)
    score_fn = affine_score_fn(score, torch.float64, torch.device("cpu"))
    x = np.random.default_rng(0).standard_normal((2, 7, d))
    for t in (0.0, 0.3, 1.0):
        expected = np.stack([score(rows, t) for rows in x])
        np.testing.assert_allclose(
            score_fn(torch.as_tensor(x), t), expected, rtol=1e-12, atol=1e-12
        )
        np.testing.assert_allclose(
            score_fn(torch.as_tensor(x[0]), t), expected[0], rtol=1e-12, atol=1e-12
        )
