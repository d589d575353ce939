"""Small networks of the real kind; a seed makes their weights. `from toy_networks import toy`."""

from dataclasses import replace

import torch

from oasis_cli.model.decoders.fast import DecoderConfig
from oasis_cli.model.decoders.tiny import TinyConfig
from oasis_cli.model.decoders.wan import WanVAEConfig
from oasis_cli.model.dit import DiTConfig
from oasis_cli.model.oasis import PAPER, SMALL, Oasis, OasisConfig
from oasis_cli.model.rope import axis_widths

NETWORKS = {
    "small": SMALL,
    "paper": PAPER,
    "wan": replace(PAPER, decoder=WanVAEConfig()),
    "tiny": replace(PAPER, decoder=TinyConfig()),
}
"""The sizes that there are, with every decoder."""
SIZES = {rows: (rows * 16 // 9, rows) for rows in (360, 720, 1080, 2160)}
"""Sizes of 16:9 by their rows."""


def toy(frame_channels=64, low_frames=1, **changes):
    torch.manual_seed(0)
    dit = {"width": 48, "layers": 2, "heads": 4, "ffn": 64, "latent_channels": 8, "gate": 0.5}
    config = OasisConfig(
        dit=DiTConfig(**dit | changes),
        decoder=DecoderConfig(
            latent_channels=8,
            low_width=16,
            low_blocks=2,
            high_width=8,
            high_blocks=2,
            frame_channels=frame_channels,
            low_frames=low_frames,
        ),
    )
    return Oasis(config).eval()


def trained(model):
    """As `model`, but with a decoder that no longer starts at zero."""
    torch.nn.init.normal_(model.decoder.last.weight, std=0.1)
    return model


def routed_toy(heads=4, layers=2, dit_tile=64, patch=2):
    torch.manual_seed(0)
    dit = DiTConfig(
        width=24 * heads,
        layers=layers,
        heads=heads,
        ffn=32,
        latent_channels=4,
        gate=1,
        patch=patch,
    )
    decoder = DecoderConfig(
        latent_channels=4, low_width=8, low_blocks=1, high_width=8, high_blocks=1
    )
    return Oasis(OasisConfig(dit=dit, decoder=decoder, dit_tile=dit_tile)).eval()


def clips(count=2, frames=9, size=(64, 96)):
    draw = torch.Generator().manual_seed(1)
    return [torch.rand(frames, 3, *size, generator=draw) * 2 - 1 for _ in range(count)]


def built_heads():
    """A model with heads (uniform, intra, window, uniform): RoPE makes constant q = k local.

    Where q and k are constant, a logit depends on relative position alone and is largest at zero.
    Channels that turn with time make an intra-frame head, those of row and column a window head.
    """
    model = routed_toy()
    width = model.config.dit.head_width
    strength = torch.zeros(4, width)
    in_time = axis_widths(width)[0]
    strength[1, :in_time] = 7.0
    strength[2, in_time:] = 7.0
    with torch.no_grad():
        for attention in model.dit.attentions:
            attention.qkv.weight[: 8 * width] = 0
            attention.qkv.bias[: 8 * width] = 1
            attention.q_norm.copy_(strength.flatten())
            attention.k_norm.copy_(strength.flatten())
    return model
