"""One small function for each loss. Clips are (B, T, 3, H, W) in [-1, 1]; every loss is a scalar.

The perceptual loss is `oasis_cli.metrics.perceptual`, the discriminators are in `adversary.py`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from oasis_cli.metrics.pixels import ssim
from oasis_cli.model.latent import PIXELS


def charbonnier(output: Tensor, target: Tensor, eps: float = 1e-3) -> Tensor:
    """A smooth L1: sqrt(d^2 + eps^2) (LapSRN, arXiv 1704.03915)."""
    return ((output - target).square() + eps * eps).sqrt().mean()


def log_error(output: Tensor, target: Tensor, floor: float = 1e-3) -> Tensor:
    """The mean over frames of log MSE: PSNR turned round (NAFNet's loss, arXiv 2204.04676).

    Clips that can be restored well count as much as hopeless ones; below `floor`, a PSNR of 36 dB,
    a frame counts less and less.
    """
    error = (output - target).square().mean((-3, -2, -1))
    return (error + floor).log().mean()


def frame_difference(output: Tensor, target: Tensor) -> Tensor:
    """L1 between the changes from frame to frame (DOVE, arXiv 2505.16239); 0 for one frame."""
    if output.shape[1] < 2:
        return output.new_zeros(())
    return (output.diff(dim=1) - target.diff(dim=1)).abs().mean()


CELLS = 4
"""Decoder cells on a side of the squares in which `lattice` averages."""


def lattice(output: Tensor, target: Tensor) -> Tensor:
    """L1 of the error that neighbouring cells of PIXELS x PIXELS pixels have in common.

    A perceptual loss does not see a mesh whose period divides the cell, and pixel losses hardly
    do: it is faint. Averaged over CELLS x CELLS cells and all frames it stays, and other errors
    mostly cancel. Sides are CELLS * PIXELS or more.
    """
    error = (output - target).mean(1)  # over time: a mesh stands still
    cells = F.avg_pool2d(F.pixel_unshuffle(error, PIXELS), CELLS, stride=CELLS // 2)
    pattern = cells.unflatten(1, (error.shape[1], -1))
    return (pattern - pattern.mean(2, keepdim=True)).abs().mean()


def structure(output: Tensor, target: Tensor) -> Tensor:
    """1 - SSIM of the luma (Wang et al., 2004), as a loss: arXiv 1511.08861.

    It weighs an error by what is around it: texture on a quiet wall counts, in a hedge it hardly
    does. output, target: (N, 3, H, W).
    """
    return (1 - ssim(output, target)).mean().float()


def frequency(output: Tensor, target: Tensor) -> Tensor:
    """L1 between the two-dimensional spectra of frames, orthonormal (MIMO-UNet, 2108.05054)."""
    spectrum = torch.fft.rfft2((output - target).float(), norm="ortho")
    return torch.view_as_real(spectrum).abs().mean()


def hinge_generator(scores: list[Tensor]) -> Tensor:
    """What the restorer minimises: judged damaged (hinge GAN, arXiv 1802.05957)."""
    return -torch.stack([score.float().mean() for score in scores]).mean()


def hinge_discriminator(real: list[Tensor], fake: list[Tensor]) -> Tensor:
    """What a discriminator minimises."""
    pairs = zip(real, fake, strict=True)
    terms = [F.relu(1 - r.float()).mean() + F.relu(1 + f.float()).mean() for r, f in pairs]
    return torch.stack(terms).mean()


def feature_matching(fake: list[Tensor], real: list[Tensor]) -> Tensor:
    """L1 between a discriminator's features (pix2pixHD, arXiv 1711.11585)."""
    pairs = zip(fake, real, strict=True)
    return torch.stack([(f - r.detach()).abs().mean() for f, r in pairs]).mean()


def pick(clips: list[Tensor], count: int) -> list[Tensor]:
    """The same frames of each clip, `count` of them. clips: (B, T, 3, S, S); (B * count, 3, S, S)
    each."""
    some = torch.randperm(clips[0].shape[1])[:count].tolist()
    return [clip[:, some].flatten(0, 1) for clip in clips]


def views(frames: list[Tensor]) -> list[Tensor]:
    """What the perceptual loss looks at: the same cut of each.

    Its strides let a mesh of the decoder's 4-pixel phase through. So the cut may lie anywhere, and
    every second one is a smaller one enlarged by a third, in which a mesh is none of that phase.
    All have one size, and so one compilation. frames: (N, 3, S, S); each (N, 3, s, s).
    """
    side = frames[0].shape[-1]
    view = side - side // 8
    part = view if torch.rand(()) < 0.5 else view * 3 // 4
    top, left = torch.randint(side - part + 1, (2,)).tolist()
    cuts = [x[..., top : top + part, left : left + part] for x in frames]
    if part == view:
        return [cut.contiguous() for cut in cuts]
    return [F.interpolate(cut, size=(view, view), mode="bicubic") for cut in cuts]
