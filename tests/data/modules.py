"""Modules of a user: our MLP, exact models of a Gaussian, a small convolution, and wrong ones."""

import math

import numpy as np
import torch
from torch import nn


class Residual(nn.Module):
    """Our MLP, written with plain tensors that are drawn in the order of ours."""

    def __init__(self, dimension, width, layers, time_width):
        super().__init__()
        shapes = {
            "input": (dimension, width),
            "time": (time_width, time_width),
            "time_layers": (time_width, layers * width),
            **{f"layer_{k}": (width, width) for k in range(layers)},
            "output": (width, dimension),
            "bias": (dimension,),
        }
        self.weights = nn.ParameterDict()
        for name, shape in shapes.items():
            bound = 1 / math.sqrt(shapes["output" if name == "bias" else name][0])
            self.weights[name] = nn.Parameter(torch.empty(shape).uniform_(-bound, bound))
        half = time_width // 2
        self.register_buffer("frequencies", 10000.0 ** (-torch.arange(half) / half))
        self.layers = layers

    def forward(self, x, t):
        w, angle = self.weights, t[:, None] * self.frequencies
        embedding = torch.relu(torch.cat([angle.sin(), angle.cos()], 1) @ w["time"])
        shifts = (embedding @ w["time_layers"]).chunk(self.layers, 1)
        h = x @ w["input"]
        for k, shift in enumerate(shifts):
            h = h + torch.relu(h @ w[f"layer_{k}"] + shift)
        return h @ w["output"] + w["bias"]


def mlp(dimension, *, width, layers, time_width):
    return Residual(dimension, width, layers, time_width)


class Exact(nn.Module):
    """What a perfect model of N(mean, variance I) predicts, in its own convention."""

    def __init__(self, dimension, variance, predicts, levels, data_std):
        super().__init__()
        self.mean = nn.Parameter(torch.ones(dimension))
        self.variance, self.predicts, self.levels, self.data_std = (
            variance, predicts, levels, data_std,
        )  # fmt: skip

    def noise(self, t):
        """m′ and v′ at the model's own time, in float64."""
        t, kind = t.double(), self.levels["kind"]
        if kind == "sigma":
            sigma = t if self.levels["input"] == "sigma" else torch.exp(4 * t)
            return torch.ones_like(t), sigma**2
        if kind == "process":  # VP of constant β = 8, told t/T
            log_kept = -8 * t
        elif kind == "continuous":
            t = t / self.levels["scale"]
            log_kept = -(0.1 * t + 19.9 * t**2 / 2)
        else:  # between its steps log ς is interpolated: this model is exact there too
            betas = np.linspace(1e-4, 0.02, 1000)
            kept = np.cumprod(1 - betas)
            log_sigma = np.log((1 - kept) / kept) / 2
            sigma = torch.as_tensor(np.exp(np.interp(t.numpy(), np.arange(1000), log_sigma)))
            log_kept = -torch.log1p(sigma**2)
        return torch.exp(log_kept / 2), -torch.expm1(log_kept)

    def forward(self, x, t):
        m, v = (part.to(x)[:, None] for part in self.noise(t))
        if self.predicts == "edm":  # told c_in y, of the denoiser c_skip y + c_out F
            s = self.data_std
            sigma, y = v.sqrt(), x * torch.sqrt(v + s**2)
            data = self.mean + self.variance / (self.variance + v) * (y - self.mean)
            c_skip, c_out = s**2 / (v + s**2), sigma * s / torch.sqrt(v + s**2)
            return (data - c_skip * y) / c_out
        noised = m**2 * self.variance + v
        score = -(x - m * self.mean) / noised
        noise = -v.sqrt() * score
        data = (x + v * score) / m
        return {
            "score": score, "noise": noise, "data": data,
            "velocity": m * noise - v.sqrt() * data,
        }[self.predicts]  # fmt: skip


def exact(dimension, *, variance, predicts, levels, data_std=1.0):
    return Exact(dimension, variance, predicts, levels, data_std)


class Convolution(nn.Module):
    """A convolution of the image with a shift of the time; groups are normalised."""

    def __init__(self, image_shape, channels):
        super().__init__()
        self.inward = nn.Conv2d(image_shape[0], channels, 3, padding=1)
        self.norm = nn.GroupNorm(2, channels)
        self.time = nn.Linear(1, channels)
        self.outward = nn.Conv2d(channels, image_shape[0], 3, padding=1)

    def forward(self, x, t):
        h = self.norm(self.inward(x)) + self.time(t[:, None])[:, :, None, None]
        return self.outward(torch.nn.functional.silu(h))


def convolution(image_shape, *, channels):
    return Convolution(image_shape, channels)


class Wrong(nn.Module):
    def __init__(self, dimension, kind):
        super().__init__()
        self.kind, self.linear = kind, nn.Linear(dimension, dimension)
        if kind == "dropout":
            self.part = nn.Dropout(0.1)
        if kind == "batch norm":
            self.part = nn.BatchNorm1d(dimension)
        if kind == "numpy":
            self.own = nn.Parameter(torch.tensor(np.random.default_rng().normal()))
        if kind == "frozen":
            self.requires_grad_(False)
        if kind == "float32":
            self.matrix = torch.eye(dimension)

    def forward(self, x, t):
        y = self.linear(x)
        return {
            "shape": y[:, :1],
            "tuple": (y,),
            "batch": y - y.mean(0),
            "noise": y + torch.randn_like(y),
            "nan": y / 0,
            "float32": y @ self.matrix if self.kind == "float32" else y,
        }.get(self.kind, y)


def wrong(dimension, *, kind):
    if kind == "raises":
        raise RuntimeError("no such thing")
    if kind == "no module":
        return 3
    return Wrong(dimension, kind)


class Labelled(nn.Module):
    """A linear map, shifted by a row for each class and by none for c = `classes`."""

    def __init__(self, dimension, classes):
        super().__init__()
        self.linear = nn.Linear(dimension, dimension)
        self.shift = nn.Embedding(classes + 1, dimension, padding_idx=classes)
        self.classes = classes

    def forward(self, x, t, c=None):
        told = self.shift(c) if self.classes else 0.0
        return self.linear(x) * torch.cos(t)[:, None] + told


def labelled(dimension, classes):
    return Labelled(dimension, classes)
