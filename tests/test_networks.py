"""The ensemble against an independent implementation, one network at a time."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from sgm import scores
from sgm.architectures import MLP, Architecture, Mixer
from sgm.gaussian import Gaussian
from sgm.networks import ScoreEnsemble, affine_score_fn
from sgm.processes import VEProcess, VPProcess
from sgm.schedules import BetaSchedule, GeometricSchedule

ARCHITECTURE = MLP(
    dimension=5, width=32, layers=3, time_width=16, time_scale=1000.0, output="relative"
)
MIXER = Mixer(
    dimension=64,
    image_shape=(8, 8),
    patch=2,
    channels=32,
    token_width=16,
    channel_width=48,
    layers=2,
    time_width=16,
    time_scale=10.0,
    time_input="log_noise",
    output="preconditioned",
    data_std=0.7,
)
VP = VPProcess(BetaSchedule(2.0, 1.0, 0.1, 20.0), 1.5)
VE = VEProcess(GeometricSchedule(2.0, 0.01, 50.0))
SEEDS = [11, 12, 13]


def initial(architecture: Architecture, seeds: Sequence[int] = SEEDS) -> ScoreEnsemble:
    return ScoreEnsemble.initial(architecture, seeds).bind(VP)


class PlainNetwork(nn.Module):
    """One network as a reader of the docstring would write it with torch.nn."""

    def __init__(self, a: MLP) -> None:
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
        angle = (self.a.time_scale * t / VP.horizon)[:, None] * torch.tensor(
            [10000.0 ** (-k / half) for k in range(half)]
        )[None]
        embedding = torch.relu(self.time(torch.cat([torch.sin(angle), torch.cos(angle)], 1)))
        h = self.input(x)
        for layer, time_layer in zip(self.layers, self.time_layers, strict=True):
            h = h + torch.relu(layer(h) + time_layer(embedding))
        net = self.output(h)
        return net if self.a.output == "score" else net - x / VP.variance

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
    return x, VP.horizon * torch.rand(shape[:2], generator=generator)


@pytest.mark.parametrize("output", ["score", "relative"])
@pytest.mark.parametrize("dimension", [1, 5, 16, 50])
def test_ensemble_is_the_plain_networks_one_by_one(output: str, dimension: int) -> None:
    architecture = replace(ARCHITECTURE, output=output, dimension=dimension)
    ensemble = initial(architecture)
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
    ensemble = initial(ARCHITECTURE)
    x, t = rows(ensemble, 9)
    everywhere = torch.full_like(t, 0.7)
    torch.testing.assert_close(ensemble(x, 0.7), ensemble(x, everywhere), rtol=1e-5, atol=1e-6)


def test_relative_output_adds_the_stationary_score() -> None:
    relative = initial(ARCHITECTURE)
    plain = ScoreEnsemble(replace(ARCHITECTURE, output="score"), relative.weights, VP)
    x, t = rows(relative, 4)
    torch.testing.assert_close(relative(x, t) - plain(x, t), -x / VP.variance)


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


IMAGES = {  # tokens and pixels of a patch: 16 and 4, 4 and 16, 9 and 12, 64 and 1
    "2": {},
    "4": {"patch": 4},
    "colours": {"image_shape": (3, 6, 6), "dimension": 108},
    "1": {"patch": 1, "output": "noise"},
}
BLOCKS: dict[str, Architecture] = {
    **{f"mlp-{d}": replace(ARCHITECTURE, dimension=d, width=64) for d in (1, 5, 10, 50, 61)},
    "mlp-preconditioned": replace(ARCHITECTURE, output="preconditioned", time_input="log_noise"),
    **{f"mixer-{name}": replace(MIXER, **changes) for name, changes in IMAGES.items()},
}


@pytest.mark.parametrize("architecture", BLOCKS.values(), ids=BLOCKS)
@pytest.mark.parametrize("n", [1, 16, 33, 64])
def test_numbers_do_not_depend_on_the_block(architecture: Architecture, n: int) -> None:
    seeds = list(range(6))
    whole = initial(architecture, seeds)
    x, t = rows(whole, n)

    def run(block: slice) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        part = initial(architecture, seeds[block])
        for w in part.weights.values():
            w.requires_grad_()
        out = part.evaluate(x[block], part.condition(t[block].numpy()))
        torch.autograd.backward(out.square().sum())
        return out.detach(), {k: w.grad for k, w in part.weights.items() if w.grad is not None}

    out, gradients = run(slice(0, 6))
    for block in (slice(0, 1), slice(3, 4), slice(5, 6), slice(1, 4)):
        part, part_gradients = run(block)
        assert torch.equal(part, out[block])
        assert all(torch.equal(part_gradients[k], g[block]) for k, g in gradients.items())
        with torch.no_grad():
            assert torch.equal(whole[block](x[block], 0.3), whole(x, 0.3)[block])


@pytest.mark.parametrize("architecture", [replace(ARCHITECTURE, width=256), MIXER])
def test_wide_networks_run_one_by_one_to_the_same_numbers(architecture: Architecture) -> None:
    assert architecture.networks_per_pass == 1
    ensemble = initial(architecture)
    x, t = rows(ensemble, 40)
    together = ensemble.evaluate(x, ensemble.condition(t.numpy()))
    assert torch.equal(ensemble(x, t), together)


@pytest.mark.parametrize("architecture", BLOCKS.values(), ids=BLOCKS)
@pytest.mark.parametrize("per_row", [False, True])
@torch.no_grad()
def test_networks_are_sampled_as_they_are_trained(
    architecture: Architecture, per_row: bool
) -> None:
    ensemble = initial(architecture)
    x, t = rows(ensemble, 9)
    expected = ensemble(x, t if per_row else 0.3)
    own = ensemble.for_sampling(products="oneDNN")(x, t if per_row else 0.3)
    torch.testing.assert_close(own, expected, rtol=1e-5, atol=1e-5)
    batched = ensemble.for_sampling(products="BLAS")(x, t if per_row else 0.3)
    assert torch.equal(batched, expected)


@pytest.mark.parametrize("architecture", BLOCKS.values(), ids=BLOCKS)
@torch.no_grad()
def test_eight_bits_of_a_network_leave_two_digits_of_it(architecture: Architecture) -> None:
    ensemble = initial(architecture)
    x, _ = rows(ensemble, 50)
    exact, own = ensemble(x, 0.3), ensemble.for_sampling("bfloat16")(x, 0.3)
    assert own.dtype == torch.float32
    linear = initial(architecture)
    linear.weights = {name: torch.zeros_like(w) for name, w in ensemble.weights.items()}
    scale = (exact - linear(x, 0.3)).square().mean().sqrt()  # of F, whatever it is added to
    error = (own - exact).square().mean().sqrt() / scale
    assert 2**-12 < error < 2**-6  # a rounding is 2⁻⁹, and a few add up


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("architecture", BLOCKS.values(), ids=BLOCKS)
@torch.no_grad()
def test_sampled_networks_depend_neither_on_neighbours_nor_on_rows(
    architecture: Architecture, precision: str
) -> None:
    whole = initial(architecture, range(6)).for_sampling(precision, "oneDNN")
    x, _ = rows(whole, 77)
    scores_ = whole(x, 0.3)
    assert torch.equal(whole(x, 0.3), scores_)
    for block in (slice(0, 1), slice(3, 4), slice(1, 4)):
        assert torch.equal(whole[block](x[block], 0.3), scores_[block])
    fewest = 1 if precision == "float32" else 4
    for block in (slice(fewest), slice(5, 21), slice(13, 77)):
        assert torch.equal(whole(x[:, block], 0.3), scores_[:, block])


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(ValueError, match="precision = 'float16': must be one of float32, bfloat16"):
        initial(ARCHITECTURE).for_sampling("float16")


class PlainMixer(nn.Module):
    """One mixer on one image, with torch's convolutions, norms and transposed matrices."""

    def __init__(self, a: Mixer, state: dict[str, torch.Tensor]) -> None:
        super().__init__()
        self.a, self.state = a, state

    def forward(self, image: torch.Tensor, angle: torch.Tensor) -> torch.Tensor:
        a, w = self.a, self.state
        half = a.time_width // 2
        turned = angle * torch.tensor([10000.0 ** (-k / half) for k in range(half)])
        embedding = torch.relu(torch.cat([turned.sin(), turned.cos()]) @ w["time"])
        shifts = (embedding @ w["time_layers"]).reshape(a.layers, -1)
        colours = image.shape[0]
        kernel = w["input"].T.reshape(-1, colours, a.patch, a.patch)
        map_ = nn.functional.conv2d(image[None], kernel, stride=a.patch)
        h = map_[0].flatten(1).T
        norm = nn.LayerNorm(a.channels, elementwise_affine=False)
        for k in range(a.layers):
            tokens = w[f"tokens_out_{k}"].T @ nn.functional.gelu(w[f"tokens_in_{k}"].T @ norm(h))
            h = h + tokens
            hidden = nn.functional.gelu(norm(h) @ w[f"channels_in_{k}"] + shifts[k])
            h = h + hidden @ w[f"channels_out_{k}"]
        back = w["output"].reshape(-1, colours, a.patch, a.patch)
        bias = w["bias"].reshape(colours, a.patch, a.patch)
        out = nn.functional.conv_transpose2d(h.T.reshape(map_.shape), back, stride=a.patch)[0]
        return out + bias.tile(1, *map_.shape[-2:])


@pytest.mark.parametrize("name", IMAGES)
def test_mixers_are_the_plain_ones_image_by_image(name: str) -> None:
    architecture = replace(MIXER, **IMAGES[name])
    ensemble = initial(architecture)
    x, t = rows(ensemble, 3)
    scores_ = ensemble(x, t)
    for r, i in np.ndindex(3, 3):
        plain = PlainMixer(architecture, {k: w[r] for k, w in ensemble.state_dict().items()})
        time = t[r, i].numpy()
        inward, gain, divisor = architecture.preconditioner(VP, time)
        angle = torch.tensor(architecture.angle(VP, time), dtype=torch.float32)
        image = (x[r, i] * float(inward)).reshape(-1, *architecture.image_shape[-2:])
        expected = plain(image, angle).flatten() * float(gain)
        if divisor is not None:
            expected = expected - x[r, i] / float(divisor)
        torch.testing.assert_close(scores_[r, i], expected, rtol=1e-4, atol=1e-4)


def test_save_and_load(tmp_path: Path) -> None:
    for architecture in (ARCHITECTURE, MIXER):
        ensemble = initial(architecture)
        path = tmp_path / "block.safetensors"
        ensemble.save(path)
        loaded = ScoreEnsemble.load(path)
        assert loaded.architecture == ensemble.architecture
        assert len(loaded) == len(SEEDS)
        shapes = {name: tuple(w.shape) for name, w in loaded.state_dict().items()}
        assert shapes == {name: (3, *shape) for name, shape in architecture.shapes.items()}
        x, t = rows(ensemble, 6)
        assert torch.equal(loaded.bind(VP)(x, t), ensemble(x, t))


def test_files_that_name_no_architecture_are_mlps(tmp_path: Path) -> None:
    """They were written before there was another, with T and σ² of their process."""
    ensemble = initial(ARCHITECTURE)
    keys = {
        "dimension": 5, "width": 32, "layers": 3, "time_width": 16, "time_scale": 1000.0,
        "output": "relative", "horizon": 2.0, "variance": 1.5,
    }  # fmt: skip
    tensors = {name: w.contiguous() for name, w in ensemble.state_dict().items()}
    path = tmp_path / "old.safetensors"
    save_file(tensors, path, {"architecture": json.dumps(keys)})
    loaded = ScoreEnsemble.load(path)
    assert loaded.architecture == ARCHITECTURE
    x, t = rows(ensemble, 6)
    assert torch.equal(loaded.bind(VP)(x, t), ensemble(x, t))


@pytest.mark.parametrize("architecture", [ARCHITECTURE, MIXER])
def test_blocks_of_schedules_are_slices(architecture: Architecture, tmp_path: Path) -> None:
    """A file holds the networks of several processes, one after the other."""
    other = VPProcess(BetaSchedule(2.0, -3.0, 0.1, 20.0), 0.5)
    parts = [initial(architecture, SEEDS[:2]), initial(architecture, SEEDS[1:]).bind(other)]
    both = ScoreEnsemble.concatenate(parts)
    with pytest.raises(ValueError, match="bound to a process"):
        both(*rows(both, 2))
    both.save(tmp_path / "block.safetensors")
    loaded = ScoreEnsemble.load(tmp_path / "block.safetensors")
    for k, part in enumerate(parts):
        assert part.process is not None
        x, t = rows(part, 3)
        assert torch.equal(loaded[2 * k : 2 * k + 2].bind(part.process)(x, t), part(x, t))
    with pytest.raises(ValueError, match="share one architecture"):
        ScoreEnsemble.concatenate([parts[0], initial(replace(architecture, layers=1))])  # type: ignore[call-arg]


def test_a_state_of_other_shapes_is_refused() -> None:
    state = initial(ARCHITECTURE).state_dict()
    with pytest.raises(ValueError, match=r"weights of shapes .* must be"):
        ScoreEnsemble.from_state_dict(replace(ARCHITECTURE, width=64), state)


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
