"""A U-Net of the library azula as a network: ``pip install --no-deps azula einops tqdm``."""

import torch
from azula.nn.unet import UNet
from torch import nn


class TimedUNet(nn.Module):
    """The U-Net, its blocks modulated by an embedding of the time variable."""

    def __init__(self, colours, channels, blocks, features):
        super().__init__()
        self.register_buffer("frequencies", torch.logspace(-1, 1.5, features // 2))
        self.embedding = nn.Sequential(nn.Linear(features, features), nn.SiLU())
        self.unet = UNet(
            colours, colours, mod_features=features, hid_channels=channels, hid_blocks=blocks
        )

    def forward(self, x, t):
        angle = t[:, None] * self.frequencies
        return self.unet(x, self.embedding(torch.cat([angle.sin(), angle.cos()], dim=1)))


def unet(image_shape, *, channels, blocks, features):
    """Of `channels` and residual `blocks` at each resolution, which halves from one to the next."""
    return TimedUNet(image_shape[0], channels, blocks, features)
