"""Clean clips to damaged ones, many at once: blur, resize, noise, JPEG, old film and interlacing.

The second-order pipeline of Real-ESRGAN (arXiv 2107.10833) as RealBasicVSR (arXiv 2111.12704) uses
it on video. Clips change size on the way, and differently from clip to clip. So a batch lives on
a square canvas: each picture in the upper left corner, its last row and column repeated to the
edge. A resize is then a pair of matrices for each frame, and everything is one launch for a batch.

Letters: N frames of all clips (clip by clip)   S canvas side   K kernel side
Pictures are (N, 3, S, S), RGB, 0 to 255, float32. `Draws` makes the parameters.
"""

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from oasis_cli.train.draws import BlurDraw, FilmDraw, NoiseDraw

KERNEL = 21
"""Side of the largest blur kernel."""


def blur_kernels(draw: BlurDraw) -> Tensor:
    """(N, K, K) kernels of all types, each normalised to sum 1.

    Gaussian exp(-q/2), generalised exp(-q^b/2) and plateau 1/(1+q^b) with q = x' C^-1 x, and the
    circular low-pass w J1(w r) / (2 pi r).
    """
    n = torch.arange(KERNEL, device=draw.angle.device) - KERNEL // 2
    y, x = torch.meshgrid(n.float(), n.float(), indexing="ij")
    cos, sin = draw.angle.cos()[:, None, None], draw.angle.sin()[:, None, None]
    u = (x * cos + y * sin) / draw.sigma_x[:, None, None]
    v = (y * cos - x * sin) / draw.sigma_y[:, None, None]
    q = u * u + v * v
    q_beta = q.clamp(min=1e-12) ** draw.beta[:, None, None]
    cutoff = draw.cutoff[:, None, None]
    r = (x * x + y * y).sqrt().expand_as(q)
    low_pass = torch.where(
        r > 0,
        cutoff * torch.special.bessel_j1(cutoff * r) / (2 * math.pi * r.clamp(min=1e-6)),
        cutoff**2 / (4 * math.pi),
    )
    shape = draw.shape[:, None, None]
    kernel = torch.where(shape == 0, (-q / 2).exp(), (-q_beta / 2).exp())
    kernel = torch.where(shape == 2, 1 / (1 + q_beta), kernel)
    kernel = torch.where(shape == 3, low_pass, kernel)
    radius = (draw.size // 2)[:, None, None]
    kernel = kernel * ((x.abs() <= radius) & (y.abs() <= radius))
    return kernel / kernel.sum((-2, -1), keepdim=True)


def sharpening(kernels: Tensor, strength: Tensor, sigma: Tensor) -> Tensor:
    """Kernels (N, K, K) with an unsharp mask in them, which leaves halos along edges.

    strength, sigma: (N,); 0 leaves a kernel as it is.
    """
    line = _gaussians(sigma, KERNEL // 2)
    strength = strength[:, None, None]
    return (1 + strength) * kernels - strength * line[:, :, None] * line[:, None]


def _gaussians(sigma: Tensor, radius: int) -> Tensor:
    """Weights from -radius to radius that sum to 1. sigma: (N,); returns (N, 2 * radius + 1)."""
    n = torch.arange(-radius, radius + 1, device=sigma.device)
    line = (-(n**2) / (2 * sigma[:, None] ** 2)).exp()
    return line / line.sum(1, keepdim=True)


def harder(clips: Tensor, amount: float) -> Tensor:
    """Clips with harder edges: an unsharp mask of `HARDER_SIGMA` pixels (Real-ESRGAN's sharpened
    originals, arXiv 2107.10833, 3.3).

    Grain fainter than `GRAIN` stays as it is, so that smooth places stay smooth. clips: (..., H, W)
    in [-1, 1]; returns the same.
    """
    planes = clips.reshape(-1, 1, *clips.shape[-2:])
    radius = math.ceil(3 * HARDER_SIGMA)
    line = _gaussians(clips.new_tensor([HARDER_SIGMA]), radius)

    def soft(x: Tensor) -> Tensor:
        x = F.pad(x, (radius,) * 4, mode="replicate")
        return F.conv2d(F.conv2d(x, line.view(1, 1, 1, -1)), line.view(1, 1, -1, 1))

    detail = planes - soft(planes)
    loud = soft((detail.abs() > GRAIN).to(planes))
    return (planes + amount * loud * detail).clamp(-1, 1).view_as(clips)


HARDER_SIGMA = 2.0
GRAIN = 10 / 127.5
"""Ten 8-bit steps."""


def blur(x: Tensor, kernels: Tensor) -> Tensor:
    """Convolve every frame with its own kernel, edges repeated. By FFT: the kernels are large."""
    side, radius = x.shape[-1], KERNEL // 2
    full = _fast_length(side + 2 * radius)
    padded = F.pad(x, (radius, full - side - radius) * 2, mode="replicate")
    spectrum = torch.fft.rfft2(padded)
    spectrum *= torch.fft.rfft2(kernels, s=(full, full))[:, None]
    out = torch.fft.irfft2(spectrum, s=(full, full))
    return out[..., 2 * radius : 2 * radius + side, 2 * radius : 2 * radius + side]


def _fast_length(n: int) -> int:
    """The next length whose only prime factors are 2, 3 and 5."""
    while True:
        rest = n
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return n
        n += 1


def resize_matrix(size: Tensor, to: Tensor, how: Tensor, canvas: int, to_canvas: int) -> Tensor:
    """(N, to_canvas, canvas): rows that make `to` pixels from the first `size` of a line.

    how: (N,) 0 bilinear, 1 area, 2 bicubic (a = -0.75). Rows past `to` repeat the last one.
    """
    ratio = (size / to)[:, None, None]
    row = torch.arange(to_canvas, device=size.device)[None].minimum(to[:, None] - 1)[..., None]
    column = torch.arange(canvas, device=size.device)[None, None]
    centre = (row + 0.5) * ratio - 0.5
    d = (column - centre).abs()
    bilinear = (1 - d).clamp(min=0)
    half = ratio.clamp(min=1) / 2
    area = ((centre + half).minimum(column + 0.5) - (centre - half).maximum(column - 0.5)).clamp(
        min=0
    )
    a = -0.75
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((d - 5) * d + 8) * d * a - 4 * a
    bicubic = torch.where(d < 1, near, torch.where(d < 2, far, 0.0))
    how = how[:, None, None]
    weight = torch.where(how == 0, bilinear, torch.where(how == 1, area, bicubic))
    weight = weight * (column < size[:, None, None])
    return weight / weight.sum(-1, keepdim=True)


def resize_by(x: Tensor, matrix: Tensor) -> Tensor:
    """Apply the same (N, S', S) matrix to rows and columns. Returns (N, 3, S', S')."""
    matrix = matrix[:, None]
    return matrix @ x @ matrix.transpose(-1, -2)


def add_noise(x: Tensor, draw: NoiseDraw, generator: torch.Generator) -> Tensor:
    """Gaussian noise, or Poisson noise by its normal approximation, coloured or grey."""
    shape = (x.shape[0], 3, *x.shape[2:])
    noise = torch.randn(shape, device=x.device, generator=generator)
    grey = draw.grey[:, None, None, None]
    noise = torch.where(grey, noise[:, :1], noise)
    level = draw.level[:, None, None, None]
    light = torch.where(grey, x.mean(1, keepdim=True), x).clamp(0, 255)
    poisson = level * (255 * light / draw.counts[:, None, None, None]).sqrt()
    return x + noise * torch.where(draw.poisson[:, None, None, None], poisson, level)


def jpeg(x: Tensor, quality: Tensor) -> Tensor:
    """Compress and decompress as baseline JPEG with 4:2:0 chroma. quality: (N,) 1 to 100."""
    side = x.shape[-1]
    over = -side % 16
    x = F.pad(x.clamp(0, 255).round(), (0, over, 0, over), mode="replicate")
    to_ycc, to_rgb, luma_table, chroma_table, dct = _jpeg_tables(x.device)
    ycc = torch.einsum("rc,nchw->nrhw", to_ycc, x)
    scale = torch.where(quality < 50, 5000 / quality, 200 - 2 * quality)[:, None, None]

    def coded(plane: Tensor, table: Tensor) -> Tensor:
        steps = ((table * scale + 50) / 100).floor().clamp(1, 255)
        blocks = (plane - 128).unflatten(-1, (-1, 8)).unflatten(-3, (-1, 8)).transpose(-3, -2)
        frequencies = dct @ blocks @ dct.T
        steps = steps[:, None, None, None]
        blocks = dct.T @ ((frequencies / steps).round() * steps) @ dct
        return blocks.transpose(-3, -2).flatten(-4, -3).flatten(-2) + 128

    luma = coded(ycc[:, :1], luma_table)
    chroma = coded(F.avg_pool2d(ycc[:, 1:] + 128, 2), chroma_table) - 128
    # Decoders interpolate chroma linearly.
    chroma = F.interpolate(chroma, scale_factor=2.0, mode="bilinear")
    ycc = torch.cat([luma, chroma], dim=1)
    rgb = torch.einsum("rc,nchw->nrhw", to_rgb, ycc)
    return rgb.clamp(0, 255)[..., :side, :side]


def interlace(x: Tensor, clips: Tensor, frames: int) -> Tensor:
    """Odd rows of the chosen clips come from the next frame, as in interlaced recordings.

    clips: (N / frames,) bool.
    """
    video = x.unflatten(0, (-1, frames))
    woven = video.clone()
    woven[:, :-1, :, 1::2] = video[:, 1:, :, 1::2]
    return torch.where(clips[:, None, None, None, None], woven, video).flatten(0, 1)


def old_film(x: Tensor, draw: FilmDraw, generator: torch.Generator) -> Tensor:
    """Flicker, colour shift, vertical scratches and coarse grain on the chosen frames."""
    on = draw.on[:, None, None, None]
    column = torch.arange(x.shape[-1], device=x.device)
    distance = (column - draw.scratch[..., None]).abs().amin(1)  # (N, S) to the nearest scratch
    scratch = (draw.brightness[:, None] * (-(distance**2)).exp())[:, None, None]
    grain = torch.randn(
        (x.shape[0], 1, x.shape[-1] // 2, x.shape[-1] // 2), device=x.device, generator=generator
    )
    grain = (
        F.interpolate(grain, size=x.shape[-2:], mode="bilinear") * draw.grain[:, None, None, None]
    )
    return torch.where(on, x * draw.gain[:, :, None, None] + scratch + grain, x)


@lru_cache
def _jpeg_tables(device: torch.device) -> tuple[Tensor, ...]:
    """Colour matrix, its inverse, the two quantisation tables, the DCT; made once for a device."""
    colour = torch.tensor(YCC)
    tables = (torch.tensor(_LUMA).float(), torch.tensor(_CHROMA).float())
    return tuple(x.to(device) for x in (colour, colour.inverse(), *tables, _dct()))


def _dct() -> Tensor:
    """The orthonormal 8-point DCT-II matrix."""
    k = torch.arange(8.0)
    matrix = torch.cos((2 * k[None] + 1) * k[:, None] * math.pi / 16) / 2
    matrix[0] /= math.sqrt(2)
    return matrix


YCC = [[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]]

# The example tables of ITU-T T.81, Annex K.1, which every encoder scales by its quality.
_LUMA = [
    [16, 11, 10, 16, 24, 40, 51, 61],
    [12, 12, 14, 19, 26, 58, 60, 55],
    [14, 13, 16, 24, 40, 57, 69, 56],
    [14, 17, 22, 29, 51, 87, 80, 62],
    [18, 22, 37, 56, 68, 109, 103, 77],
    [24, 35, 55, 64, 81, 104, 113, 92],
    [49, 64, 78, 87, 103, 121, 120, 101],
    [72, 92, 95, 98, 112, 100, 103, 99],
]
_CHROMA = [
    [17, 18, 24, 47, 99, 99, 99, 99],
    [18, 21, 26, 66, 99, 99, 99, 99],
    [24, 26, 56, 99, 99, 99, 99, 99],
    [47, 66, 99, 99, 99, 99, 99, 99],
    *[[99] * 8] * 4,
]
