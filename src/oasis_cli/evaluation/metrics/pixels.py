"""Scores from pixels alone: PSNR, SSIM, MS-SSIM and the error of the change from frame to frame.

Every function takes frames as (N, 3, H, W), RGB in [-1, 1], and returns float64 scores.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

WINDOW = 11
"""Side of SSIM's Gaussian window in pixels; sigma 1.5 (Wang et al., 2004)."""
SIGMA = 1.5
_HEIGHTS = [math.exp(-((n - WINDOW // 2) ** 2) / (2 * SIGMA**2)) for n in range(WINDOW)]
GAUSSIAN = [height / sum(_HEIGHTS) for height in _HEIGHTS]
"""The window along one side."""
C1, C2 = 0.01**2, 0.03**2
"""SSIM's two constants, for values in [0, 1]."""
SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""MS-SSIM's exponents, finest scale first (Wang et al., 2003)."""
SMALLEST_MS_SSIM = (WINDOW - 1) * 2 ** (len(SCALE_WEIGHTS) - 1) + 1
"""Shortest side in pixels that MS-SSIM can score: its coarsest scale must hold one window."""
PEAK = 100.0
"""PSNR in dB that identical frames get, so that a mean stays finite."""

GRIDS = (8, 16, 32)
"""Pixels between two edges of a codec's blocks, also when they were enlarged with the picture."""
QUIET = 0.25 / 255
"""A step that nobody sees: added to both sides of the ratio."""

Planes = Callable[[Tensor], Tensor]
"""Values to compare: (N, 3, H, W) in [-1, 1] -> (N, C, H, W) float64 in [0, 1]; mean over C."""


def unit(frames: Tensor) -> Tensor:
    """[-1, 1] to [0, 1], float64."""
    return (frames.double() + 1) / 2


def luma(frames: Tensor) -> Tensor:
    """BT.601 studio luma, as most super-resolution papers measure it, without its offset of 16.

    PSNR does not see the offset; SSIM would be about 0.002 higher with it.
    frames: (N, 3, H, W). Returns (N, 1, H, W) in [0, 219/255].
    """
    weights = frames.new_tensor([65.481, 128.553, 24.966], dtype=torch.float64) / 255
    return (unit(frames) * weights.view(1, 3, 1, 1)).sum(1, keepdim=True)


def matlab_luma(frames: Tensor) -> Tensor:
    """The luma that MATLAB's rgb2ycbcr makes of 8 bits: with its offset, rounded to 8 bits again.

    frames: (N, 3, H, W). Returns (N, 1, H, W) in [16/255, 235/255].
    """
    eight = (frames.double() * 127.5 + 127.5).round().clamp(0, 255) / 127.5 - 1
    return (255 * luma(eight) + 16).round() / 255


def crop(frames: Tensor, border: int) -> Tensor:
    """Leave `border` pixels out on each side."""
    if not border:
        return frames
    if min(frames.shape[-2:]) <= 2 * border:
        raise ValueError(f"a border of {border} pixels leaves nothing of {tuple(frames.shape)}")
    return frames[..., border:-border, border:-border]


def _psnr(a: Tensor, b: Tensor) -> Tensor:
    error = (a - b).square().mean((1, 2, 3))
    return (-10 * error.log10()).clamp(max=PEAK)


def psnr(a: Tensor, b: Tensor, planes: Planes = unit) -> Tensor:
    """Peak signal-to-noise ratio over all three colours, in dB, peak 255. Returns (N,)."""
    return _psnr(planes(a), planes(b))


def psnr_luma(a: Tensor, b: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of the luma, in dB, peak 255. Returns (N,)."""
    return psnr(a, b, luma)


def _blur(x: Tensor) -> Tensor:
    """Gaussian window means where the window fits. x: (N, C, H, W) -> (N, C, H-10, W-10).

    Sums of shifted pictures: six times as fast as torch's convolution on a CPU in float64.
    """
    for dim in (-2, -1):
        length = x.shape[dim] - WINDOW + 1
        out = x.narrow(dim, 0, length) * GAUSSIAN[0]
        for shift, weight in enumerate(GAUSSIAN[1:], start=1):
            out.add_(x.narrow(dim, shift, length), alpha=weight)
        x = out
    return x


def _ssim_parts(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Mean SSIM, mean contrast-structure term: (N,) each. a, b: (N, C, H, W) in [0, 1]."""
    mean_a, mean_b = _blur(a), _blur(b)
    var_a, var_b = _blur(a * a) - mean_a**2, _blur(b * b) - mean_b**2
    both = _blur(a * b) - mean_a * mean_b
    structure = (2 * both + C2) / (var_a + var_b + C2)
    light = (2 * mean_a * mean_b + C1) / (mean_a**2 + mean_b**2 + C1)
    return (light * structure).mean((1, 2, 3)), structure.mean((1, 2, 3))


def ssim(a: Tensor, b: Tensor, planes: Planes = luma) -> Tensor:
    """Structural similarity of the luma: Gaussian window of 11, valid pixels only. Returns (N,)."""
    if min(a.shape[-2:]) < WINDOW:
        raise ValueError(f"SSIM needs {WINDOW} pixels on each side, got {tuple(a.shape[-2:])}")
    return _ssim_parts(planes(a), planes(b))[0]


def ms_ssim(a: Tensor, b: Tensor, planes: Planes = luma) -> Tensor:
    """Structural similarity of the luma over five scales (2x2 means between them). Returns (N,)."""
    if min(a.shape[-2:]) < SMALLEST_MS_SSIM:
        raise ValueError(
            f"MS-SSIM needs {SMALLEST_MS_SSIM} pixels on each side, got {tuple(a.shape[-2:])}"
        )
    x, y = planes(a), planes(b)
    score = torch.ones(len(a), dtype=torch.float64, device=a.device)
    for scale, weight in enumerate(SCALE_WEIGHTS):
        whole, structure = _ssim_parts(x, y)
        last = scale == len(SCALE_WEIGHTS) - 1
        # Anti-correlated scales would have no real power: they count as no similarity.
        score = score * (whole if last else structure).clamp(min=0) ** weight
        x, y = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)
    return score


def temporal_error(a: Tensor, b: Tensor) -> Tensor:
    """How wrongly the picture changes: mean |(a[t+1] - a[t]) - (b[t+1] - b[t])| in 8-bit steps.

    a, b: (N, 3, H, W), neighbouring frames in order. Returns (N-1,). Flicker raises it; so does
    motion that is rendered wrongly. 0 for a perfect copy, and for one off by a constant.
    """
    change = a.diff(dim=0) - b.diff(dim=0)
    return 127.5 * change.abs().mean((1, 2, 3), dtype=torch.float64)


def sharpness(frames: Tensor) -> Tensor:
    """Mean gradient of the luma in 8-bit steps a pixel; no reference needed. Returns (N,).

    Noise raises it as well as detail: compare clips of the same scene, and look at them.
    """
    y = luma(frames)
    across = y[..., :-1, 1:] - y[..., :-1, :-1]
    down = y[..., 1:, :-1] - y[..., :-1, :-1]
    return 255 * (across**2 + down**2).sqrt().mean((1, 2, 3))


def blockiness(frames: Tensor) -> Tensor:
    """How much stronger steps are on a regular grid than elsewhere; 1 is no grid. Returns (N,).

    Grids of 8, 16 and 32 pixels are tried, which codecs leave in a picture and in one enlarged two
    or four times. For each grid line the median step along all its repetitions counts, so that
    edges of the picture do not; then the strongest line over the median of all. No reference.
    """
    y = luma(frames)[:, 0]
    worst = y.new_ones(len(y))
    for picture in (y, y.mT):
        steps = picture.diff(dim=-1).abs().mean(-2)
        for period in GRIDS:
            count = steps.shape[-1] // period
            if count < 4:
                continue
            lines = steps[:, : count * period].unflatten(-1, (count, period)).median(1).values
            usual = lines.median(1).values + QUIET
            worst = torch.maximum(worst, (lines.amax(1) + QUIET) / usual)
    return worst


def temporal_change(frames: Tensor) -> Tensor:
    """Mean |frame[t+1] - frame[t]| in 8-bit steps. frames: (N, 3, H, W). Returns (N-1,)."""
    return 127.5 * frames.diff(dim=0).abs().mean((1, 2, 3), dtype=torch.float64)
