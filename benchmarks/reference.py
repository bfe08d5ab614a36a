"""The paper's recipe, written the plain way: the baseline of the benchmarks.

What the authors' code does (Strasman et al., arXiv 2402.04650), in its own terms: an
`nn.Module` in float32, a shuffled `DataLoader`, `Adam`, one uniform time a row, and as
explicit target the exact score, for which a d × d matrix is inverted for every row of
every batch. The mathematics is that of `sgm`, so that both minimise the same loss.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from sgm.gaussian import Gaussian
from sgm.processes import VPProcess
from sgm.samplers import Steps

__all__ = ["PaperNetwork", "sample", "train"]

BATCH_SIZE = 64
LEARNING_RATE = 1e-3
TIME_MIN = 1e-5


class PaperNetwork(nn.Module):
    """h ← h + ReLU(W h + E e(t)), three times; e(t) from sines and cosines of the raw time."""

    def __init__(self, dimension: int, width: int = 256, layers: int = 3) -> None:
        super().__init__()
        half = width // 2
        self.register_buffer("frequencies", 10000.0 ** (-torch.arange(half) / half))
        self.time = nn.Linear(width, width, bias=False)
        self.input = nn.Linear(dimension, width, bias=False)
        self.layers = nn.ModuleList(nn.Linear(width, width, bias=False) for _ in range(layers))
        self.time_layers = nn.ModuleList(nn.Linear(width, width, bias=False) for _ in range(layers))
        self.output = nn.Linear(width, dimension)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Scores of the rows of x, shape (n, d), at times t, shape (n, 1)."""
        angle = t * self.frequencies
        embedding = torch.relu(self.time(torch.cat([angle.sin(), angle.cos()], dim=-1)))
        h = self.input(x)
        for layer, time_layer in zip(self.layers, self.time_layers, strict=True):
            h = h + torch.relu(layer(h) + time_layer(embedding))
        return self.output(h)


def _kernel(process: VPProcess) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """t → (m, v) in float32, as the training loop of the authors has them."""

    def kernel(t: Tensor) -> tuple[Tensor, Tensor]:
        times = t.double().numpy()
        m, v = process.mean_scale(times), process.kernel_variance(times)
        return torch.as_tensor(m).float(), torch.as_tensor(v).float()

    return kernel


def train(
    process: VPProcess, law: Gaussian, samples: np.ndarray, objective: str, epochs: int, seed: int
) -> tuple[PaperNetwork, float]:
    """Train one network; returns it with the CPU seconds an epoch.

    Parameters
    ----------
    process : VPProcess
    law : Gaussian
        π_data, whose score the explicit objective regresses on.
    samples : ndarray, shape (n, d)
    objective : {"explicit", "denoising"}
        Unweighted regression on the exact score, or |v s_θ + √v Z|².
    epochs : int
    seed : int
    """
    torch.manual_seed(seed)
    kernel = _kernel(process)
    mean = torch.as_tensor(law.mean).float()
    covariance = torch.as_tensor((law.basis * law.eigenvalues) @ law.basis.T).float()
    identity = torch.eye(law.dimension)
    rows = TensorDataset(torch.as_tensor(samples).float())
    loader = DataLoader(rows, batch_size=BATCH_SIZE, shuffle=True)
    network = PaperNetwork(law.dimension)
    optimizer = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE)

    started = time.process_time()
    for _ in range(epochs):
        for (x0,) in loader:
            t = TIME_MIN + (process.horizon - TIME_MIN) * torch.rand(len(x0), 1)
            m, v = kernel(t)
            z = torch.randn_like(x0)
            x = m * x0 + v.sqrt() * z
            score = network(x, t)
            if objective == "explicit":
                matrices = m[..., None] ** 2 * covariance + v[..., None] * identity
                centred = (x - m * mean)[..., None]
                exact = -torch.bmm(torch.inverse(matrices), centred)[..., 0]
                loss = (score - exact).square().sum(dim=-1).mean()
            else:
                loss = (v * score + v.sqrt() * z).square().sum(dim=-1).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return network, (time.process_time() - started) / epochs


@torch.no_grad()
def sample(network: PaperNetwork, steps: Steps, n_samples: int, dimension: int) -> Tensor:
    """Run a sampler on all rows at once, with a time a row, as the authors' code does."""
    x = torch.randn(n_samples, dimension)
    for t, state, score, noise in zip(
        steps.score_time, steps.state, steps.score, steps.noise, strict=True
    ):
        times = torch.full((n_samples, 1), float(t))
        drawn = torch.randn_like(x)
        x = float(state) * x + float(score) * network(x, times) + float(noise) * drawn
    return x
