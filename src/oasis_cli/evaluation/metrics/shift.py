"""By how much one clip lies off another: a shift of the whole picture, to a part of a pixel.

The shift is where the cross-correlation of both is largest, taken over all frames together. Powers
of natural pictures fall as 1/f^2, so the slopes of both are correlated, not their light: the peak
is narrow, and a change of light does not count. A Gaussian leaves out the fine detail, in which a
restored clip and a clean one do not agree. Noise of one side has no part in the correlation, and
blur does not move its peak.

Letters: H, W pixels. A shift (x, y) means: what is at p in the reference is at p + shift
in the output.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

SIGMA = 1.5
"""Width in pixels of the Gaussian that leaves fine detail out."""
REACH = 16
"""Largest shift that is looked for, in pixels each way."""
NEWTON_STEPS = 8
ROUNDS = 3
"""Weights and shift depend on each other: so often both are found anew."""
MOST_COHERENT = 0.99
"""A frequency on which both agree fully counts for no more than this."""
LOUDEST = 2.0
"""An output sharper than its reference by more than this has other reasons."""
RING = 2.0
"""Frequencies that lie together in a ring, of 1 / the longer side."""
TAPS = 4
"""Pixels that the filter of `moved` needs on each side (Lanczos)."""

Pair = tuple[Tensor, Tensor]
"""Frames of the output and the reference's, each (T, H, W), in any light."""
Partners = tuple[slice, slice]
"""Which frames of the output belong to which of the reference; both slices have one length."""


@dataclass(frozen=True, slots=True)
class Found:
    """The best shift, and how well both agree there."""

    x: float
    """Pixels to the right."""
    y: float
    """Pixels down."""
    agreement: float
    """Correlation of the slopes, at most 1."""
    unexplained: float = 0.0
    """Log of the share of the output that the reference does not explain, at most 0: the mean over
    all frequencies. A little fine detail in common counts for much."""

    @property
    def whole(self) -> tuple[int, int]:
        """To the next pixel, right and down."""
        return round(self.x), round(self.y)


class Search:
    """The one shift of some windows, of one size, at least 32 pixels a side.

    Spectra are made once for each cut, so shifts that are looked for one after the other should
    have the same whole pixels.
    """

    def __init__(self, windows: Sequence[Pair]) -> None:
        self._windows = windows
        self._cut: tuple[int, int] | None = None
        self._spectra: list[Pair] = []

    def rough(self, partners: Sequence[Partners]) -> Found:
        """From both as they lie: a little too small. partners: one for each window."""
        whole = self._correlation(partners, 0, 0)
        y, x = whole.climb(*whole.highest())
        return Found(x, y, whole.agreement(y, x))

    def fine(self, partners: Sequence[Partners], near: Found) -> Found:
        """From where they overlap: what a window cuts off in one only pulls the peak towards zero.

        near: what `rough` said.
        """
        right, down = near.whole
        cut = self._correlation(partners, right, down)
        y, x = cut.climb(near.y - down, near.x - right)
        agreement = cut.agreement(y, x)
        y, x = cut.settle(y, x)
        return Found(right + x, down + y, agreement, cut.unexplained(y, x))

    def final(self, partners: Sequence[Partners], near: Found) -> Found:
        """With the reference as soft as the output is: what a window cuts off a soft picture and a
        sharp one pulls the peak anywhere.

        near: what `fine` said.
        """
        right, down = near.whole
        y, x = near.y - down, near.x - right
        cut = self._correlation(partners, right, down)
        pairs = []
        for window, (outs, refs) in zip(self._windows, partners, strict=True):
            out, ref = overlap(*window, right, down)
            pairs.append((spectra(out[outs]), spectra(cut.softened(ref[refs], y, x))))
        alike = _Correlation(pairs, cut.size)
        alike.weigh(cut.coherence(y, x))
        y, x = alike.climb(y, x)
        return replace(near, x=right + x, y=down + y)

    def likeness(self, partners: Sequence[Partners]) -> float:
        """How well frames of the reference agree with others of its own, at most 1."""
        self._cut_to(0, 0)
        pairs = [(r[a], r[b]) for (_, r), (a, b) in zip(self._spectra, partners, strict=True)]
        return _Correlation(pairs, self._size).agreement(0, 0)

    def _correlation(self, partners: Sequence[Partners], right: int, down: int) -> "_Correlation":
        self._cut_to(right, down)
        both = zip(self._spectra, partners, strict=True)
        return _Correlation([(o[outs], r[refs]) for (o, r), (outs, refs) in both], self._size)

    def _cut_to(self, right: int, down: int) -> None:
        if self._cut == (right, down):
            return
        self._spectra.clear()  # before the next are made: they are large
        for window in self._windows:
            out, ref = overlap(*window, right, down)
            self._spectra.append((spectra(out), spectra(ref)))
            self._size = out.shape[-2], out.shape[-1]
        self._cut = right, down


def overlap(output: Tensor, reference: Tensor, right: int, down: int) -> Pair:
    """Both without what the other does not have, for a shift in whole pixels. (..., H, W)."""
    out = output[..., max(0, down) :, max(0, right) :]
    ref = reference[..., max(0, -down) :, max(0, -right) :]
    height, width = (min(out.shape[d], ref.shape[d]) for d in (-2, -1))
    return out[..., :height, :width], ref[..., :height, :width]


class _Correlation:
    """The cross-correlation of two clips, summed over their frames, as a function of the shift."""

    def __init__(self, pairs: Sequence[Pair], size: tuple[int, int]) -> None:
        """pairs: spectra; size: (H, W) of the pictures that they are of."""
        self.size = height, width = size
        f_y = torch.fft.fftfreq(height, dtype=torch.float64)[:, None]
        f_x = torch.fft.rfftfreq(width, dtype=torch.float64)
        self.turns = 2j * math.pi * f_y, 2j * math.pi * f_x
        self.length = (f_y.square() + f_x.square()).sqrt()
        # A real picture's spectrum holds every column once for two but the first and the last.
        self.share = torch.full_like(f_x, 2.0)
        self.share[0] = 1
        if width % 2 == 0:
            self.share[-1] = 1
        self.ring = (self.length * max(self.size) / RING).round().long()
        self.cross = torch.zeros(self.length.shape, dtype=torch.complex128)
        self.powers = torch.zeros(2, *self.length.shape, dtype=torch.float64)
        for a, b in pairs:
            self.cross += (a * b.conj()).sum(0)
            self.powers += torch.stack([p.abs().square().sum(0) for p in (a, b)])
        self.weight = self.length**2 * torch.exp(-((2 * math.pi * SIGMA * self.length) ** 2))

    def highest(self) -> tuple[int, int]:
        """The shift (y, x) in whole pixels within REACH."""
        height, width = self.size
        seen = torch.fft.irfft2(self.cross * self.weight, s=self.size)
        far_y, far_x = min(REACH, height // 4), min(REACH, width // 4)
        near = torch.roll(seen, (far_y, far_x), (0, 1))[: 2 * far_y + 1, : 2 * far_x + 1]
        row, column = divmod(int(near.argmax()), near.shape[1])
        return row - far_y, column - far_x

    def agreement(self, y: float, x: float) -> float:
        """The correlation at a shift, at most 1."""
        a, b = (float((power * self.weight * self.share).sum()) for power in self.powers)
        top = float(self._turned(y, x).sum().real)
        return top / math.sqrt(a * b) if a * b > 0 else 0.0

    def settle(self, y: float, x: float) -> tuple[float, float]:
        """From near the top to where `unexplained` is least.

        Each frequency is weighed by how well both agree on it there. These are the weights of least
        variance (Hannan and Thomson, 1973), from the coherence of all frequencies of about one
        length: noise and lost detail count for as much as they are worth.
        """
        for _ in range(ROUNDS):
            self.weigh(self.coherence(y, x))
            y, x = self.climb(y, x)
        return y, x

    def weigh(self, coherence: Tensor) -> None:
        """Set the weights for a coherence of each ring; what chance alone explains has none."""
        chance = (4 / self._counts().clamp(min=4)).clamp(max=1 - 1e-6)
        square = ((coherence.square() - chance) / (1 - chance)).clamp(min=0)
        self.weight = (square.sqrt() / (1 - square) / self._strength())[self.ring]

    def unexplained(self, y: float, x: float) -> float:
        """As in Found: the likelihood of a shift when each ring has a gain and noise of its own."""
        left = (1 - self.coherence(y, x).square()).log()
        return float((self._counts() * left).sum() / self._counts().sum())

    def coherence(self, y: float, x: float) -> Tensor:
        """How well both agree in each ring, 0 to MOST_COHERENT."""
        return (self._rings(self._aligned(y, x)) / self._strength()).clamp(0, MOST_COHERENT)

    def _strength(self) -> Tensor:
        out, ref = (self._rings(power) for power in self.powers)
        return (out * ref).sqrt().clamp(min=1e-12)

    def softened(self, reference: Tensor, y: float, x: float) -> Tensor:
        """The reference with as much of each frequency as the output has. (T, H, W)."""
        power = self._rings(self.powers[1]).clamp(min=1e-12)
        gain = (self._rings(self._aligned(y, x)) / power).clamp(0, LOUDEST)
        gain[0] = 1
        spectrum = torch.fft.rfft2(reference.float()) * gain.float()[self.ring]
        return torch.fft.irfft2(spectrum, s=self.size)

    def _aligned(self, y: float, x: float) -> Tensor:
        """What both have in common in each frequency, at a shift."""
        down, across = self.turns
        return (self.cross * torch.exp(down * y) * torch.exp(across * x)).real

    def _counts(self) -> Tensor:
        return self._rings(torch.ones_like(self.length))

    def _rings(self, values: Tensor) -> Tensor:
        """Sums over all frequencies of about one length."""
        out = torch.zeros(int(self.ring.max()) + 1, dtype=torch.float64)
        return out.index_add_(0, self.ring.flatten(), (values * self.share).flatten())

    def climb(self, y: float, x: float) -> tuple[float, float]:
        """From a shift near the top of the correlation to the top, by Newton's steps."""
        start = y, x
        for _ in range(NEWTON_STEPS):
            here = self._turned(y, x)
            down, across = self.turns
            g_y, g_x, h_yy, h_xy, h_xx = (
                float((here * turn).sum().real)
                for turn in (down, across, down**2, down * across, across**2)
            )
            det = h_yy * h_xx - h_xy**2
            if h_yy >= 0 or det <= 0:
                return start  # no hill here
            step_y, step_x = (h_xx * g_y - h_xy * g_x) / det, (h_yy * g_x - h_xy * g_y) / det
            y, x = y - step_y, x - step_x
            if max(abs(y - start[0]), abs(x - start[1])) > 1.5:
                return start
            if max(abs(step_y), abs(step_x)) < 1e-4:
                break
        return y, x

    def _turned(self, y: float, x: float) -> Tensor:
        """The weighted spectrum, turned back by a shift: its sum is the correlation there."""
        down, across = self.turns
        return self.cross * self.weight * self.share * torch.exp(down * y) * torch.exp(across * x)


def spectra(pictures: Tensor) -> Tensor:
    """(T, H, W) -> (T, H, W // 2 + 1), of what a Hann window shows."""
    down, across = (torch.hann_window(n, dtype=torch.float32) for n in pictures.shape[-2:])
    level = pictures.float() - pictures.float().mean((-2, -1), keepdim=True)
    return torch.fft.rfft2(level * down[:, None] * across)


def moved(frames: Tensor, amount: float, dim: int) -> Tensor:
    """What lies `amount` pixels, 0 to 1, further along `dim`, for every place that has neighbours.

    Lanczos with TAPS pixels on each side, which keeps detail down to 2.5 pixels a period. Returns
    2 * TAPS - 1 pixels fewer along `dim`: the first belongs to pixel TAPS - 1. float32.
    """
    at = torch.arange(1 - TAPS, TAPS + 1, dtype=torch.float64) - amount
    heights = torch.sinc(at) * torch.sinc(at / TAPS)
    weight = (heights / heights.sum()).tolist()
    length = frames.shape[dim] - 2 * TAPS + 1
    out = frames.narrow(dim, 0, length) * weight[0]
    for place, share in enumerate(weight[1:], start=1):
        out.add_(frames.narrow(dim, place, length), alpha=share)
    return out
