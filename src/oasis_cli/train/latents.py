"""Training behind a frozen autoencoder: its latents as targets, pixels of a part of a frame."""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from oasis_cli.errors import WeightsError
from oasis_cli.model.decoders.wan import CHUNK, WanDecoder, WanEncoder, WanVAEConfig, streamed
from oasis_cli.model.latent import PIXELS

Place = tuple[slice, slice]
"""Rows and columns in pixels."""


class Encoder:
    """The frozen encoder of Wan2.1's autoencoder, called as a function of clips."""

    def __init__(self, path: Path, device: torch.device) -> None:
        """Read the tensors `encoder.*` of a safetensors file, named as `WanVAE` names them.

        Raises WeightsError when they are not all there.
        """
        try:
            tensors = load_file(path)
            state = {k[8:]: v.float() for k, v in tensors.items() if k.startswith("encoder.")}
            self.net = WanEncoder(WanVAEConfig(width=state["first.weight"].shape[0]))
            self.net.load_state_dict(state)
        except (SafetensorError, OSError, KeyError, RuntimeError) as error:
            raise WeightsError(
                f"{path} holds no whole Wan2.1 encoder", hint="`oasis weights import` writes one"
            ) from error
        self.net.to(device).eval().requires_grad_(False)

    @torch.no_grad()
    def __call__(self, clip: Tensor) -> Tensor:
        """clip: (B, 4k+1, 3, H, W) in [-1, 1]. Returns (B, 16, k+1, H/8, W/8), normalised."""
        x = clip.transpose(1, 2)
        parts = [x[:, :, :1], *x[:, :, 1:].split(4 * CHUNK, dim=2)]
        return streamed(self.net, (part for part in parts if part.shape[2]), dim=2).float()


def decode_part(decoder: WanDecoder, latent: Tensor, core: int) -> tuple[Tensor, Place]:
    """Decode a random square of `core` latent positions, exactly as in the whole frame.

    The stem sees all of `latent` (B, 16, T, h, w); what enlarges sees the square and its halo,
    which is then cut away (InfVSR's patch-wise supervision, with exact borders). Returns frames
    (B, 4T-3, 3, 8 core, 8 core) and where they lie.
    """
    features = decoder.frame_features(latent)
    outer, inner, place = [], [], []
    for length in features.shape[-2:]:
        size = min(core, length)
        start = int(torch.randint(length - size + 1, ()))
        first, last = max(0, start - decoder.halo), min(length, start + size + decoder.halo)
        outer.append(slice(first, last))
        inner.append(slice((start - first) * PIXELS, (start - first + size) * PIXELS))
        place.append(slice(start * PIXELS, (start + size) * PIXELS))
    frames = decoder.frames(features[..., outer[0], outer[1]])
    return frames[..., inner[0], inner[1]], (place[0], place[1])
