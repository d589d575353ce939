"""First pass over the videos: curves, scene cuts, and the places that differ most.

Everything is measured at one size, the reference's or else the largest: smaller pictures are
enlarged bicubically first, so that their numbers can be compared.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from oasis_cli.errors import UsageError
from oasis_cli.evaluation.metrics import pixels
from oasis_cli.evaluation.metrics.flicker import flicker
from oasis_cli.evaluation.metrics.hatching import FEWEST_IN_FRAME, hatching
from oasis_cli.pipeline.clips import Clip, lockstep
from oasis_cli.pipeline.scenes import CutDetector, thumbnail

SPOTS = 8
"""Places shown in the gallery."""
SPOT_SHARE = 5
"""A place is a square of the height divided by this."""
SAME_PLACE_FRAMES = 12
"""The same place so many frames later is not news."""

Score = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Spot:
    """A place where the inputs differ."""

    frame: int
    box: tuple[float, float, float, float]
    """x, y, width and height as shares of the picture."""
    difference: float
    """Mean |difference| in 8-bit steps."""


@dataclass(slots=True)
class Look:
    """Findings of the first pass."""

    total: int = 0
    """Frames that every input has."""
    scenes: list[int] = field(default_factory=list)
    """The first frame of each scene."""
    spots: list[Spot] = field(default_factory=list)
    """The places that differ most, worst first."""
    curves: dict[str, dict[int, list[float | None]]] = field(default_factory=dict)
    """Score -> number of the input -> value at each frame; None where it has none."""


ABOUT = {
    "sharpness": "mean gradient of the luma, 8-bit steps a pixel; noise raises it too",
    "change": "mean change from the frame before, 8-bit steps; flicker raises it",
    "blockiness": "steps on a grid of 8, 16 or 32 pixels over steps elsewhere; 1 is no grid",
    "flicker": "change that the base does not explain, 8-bit steps; lower is steadier",
    "hatching": "regular patterns on smooth places, over the base's; 1 is none",
    "PSNR": "luma against the reference, dB; higher is better",
    "SSIM": "luma against the reference; higher is better",
    "LPIPS": "SqueezeNet features against the reference; lower is better",
}

EXTRA = ("flicker", "hatching")
"""Curves that take long, and need a base: the reference, or an input that the others enlarge."""


def look(
    clips: Sequence[Clip],
    *,
    reference: int | None = None,
    lpips: Score | None = None,
    extra: Sequence[str] = (),
    seen: Callable[[int, tuple[Tensor, ...], bool], None] = lambda number, frames, cut: None,
) -> Look:
    """Read all clips side by side to the end of the shortest.

    reference: the number of the clip that the others should look like. extra: names from EXTRA.
    seen: told each frame, as (number, the inputs' frames as read, whether a scene starts).
    """
    width, height = common_size(clips, reference)
    base = base_of(clips, reference)
    found, detector, worst = Look(), CutDetector(), _Worst()
    previous: list[Tensor] = []
    with torch.inference_mode():
        for number, frames in enumerate(lockstep(clips, strict=False)):
            luma = pixels.luma(frames[0][None])[0, 0].float().numpy()
            starts = detector(thumbnail(luma, 219 / 255)) or number == 0
            if starts:
                found.scenes.append(number)
            same = [resize(frame, (height, width)) for frame in frames]
            before = [] if starts else previous  # a cut is no flicker
            scores = _frame_scores(same, before, reference, lpips)
            if extra and base is not None:
                scores |= _against_base(same, before, base, extra)
            for (name, which), value in scores.items():
                found.curves.setdefault(name, {}).setdefault(which, []).append(value)
            worst.add(number, same, reference)
            seen(number, frames, starts)
            previous = same
            found.total = number + 1
    found.spots = worst.best()
    return found


def common_size(clips: Sequence[Clip], reference: int | None = None) -> tuple[int, int]:
    """(width, height) at which all are looked at. Raises UsageError when the shapes differ."""
    size = max((c.size for c in clips), key=lambda s: s[0] * s[1])
    if reference is not None:
        size = clips[reference].size
    first = clips[0]
    for clip in clips[1:]:
        shape = clip.size[0] * first.size[1] / (clip.size[1] * first.size[0])
        if not 0.97 < shape < 1.03:
            raise UsageError(
                f"{clip.name} is {clip.size[0]}x{clip.size[1]}, {first.name} is "
                f"{first.size[0]}x{first.size[1]}: the shapes differ",
                hint="compare videos of the same shape; crop or pad one of them first",
            )
    return size


def base_of(clips: Sequence[Clip], reference: int | None) -> int | None:
    """What tells the input's own noise and motion: the reference, or else the smallest input.

    None when all are of one size: then none of them is the input of another.
    """
    if reference is not None:
        return reference
    sizes = [clip.size for clip in clips]
    return sizes.index(min(sizes)) if min(sizes) != max(sizes) else None


def check_extra(clips: Sequence[Clip], reference: bool, extra: Sequence[str]) -> None:
    """Raise UsageError for curves that nobody knows or that cannot be drawn."""
    if unknown := [name for name in extra if name not in EXTRA]:
        raise UsageError(
            f"there is no curve called {unknown[0]!r}", hint=f"known: {', '.join(EXTRA)}"
        )
    if extra and base_of(clips, 0 if reference else None) is None:
        raise UsageError(
            f"{' and '.join(extra)} need a reference, or the video that was enlarged",
            hint="name it with --ref, or compare IN OUT",
        )


def resize(frame: Tensor, size: tuple[int, int]) -> Tensor:
    """Bicubic, clamped. frame: (3, h, w) -> (3, H, W) for size = (H, W)."""
    if frame.shape[-2:] == size:
        return frame
    out = F.interpolate(frame[None], size=size, mode="bicubic", align_corners=False)
    return out[0].clamp(-1, 1)


def _frame_scores(
    frames: Sequence[Tensor],
    previous: Sequence[Tensor],
    reference: int | None,
    lpips: Score | None,
) -> dict[tuple[str, int], float | None]:
    """(score, number of the input) -> value for one frame of every input."""
    out: dict[tuple[str, int], float | None] = {}
    for which, frame in enumerate(frames):
        one = frame[None]
        out["sharpness", which] = pixels.sharpness(one).item()
        out["blockiness", which] = pixels.blockiness(one).item()
        pair = torch.stack([previous[which], frame]) if previous else None
        out["change", which] = None if pair is None else pixels.temporal_change(pair).item()
        if reference is None or which == reference:
            continue
        wanted = frames[reference][None]
        out["PSNR", which] = pixels.psnr_luma(one, wanted).item()
        if min(one.shape[-2:]) >= pixels.WINDOW:
            out["SSIM", which] = pixels.ssim(one, wanted).item()
        if lpips is not None:
            out["LPIPS", which] = lpips(one, wanted).item()
    return out


def _against_base(
    frames: Sequence[Tensor], previous: Sequence[Tensor], base: int, extra: Sequence[str]
) -> dict[tuple[str, int], float | None]:
    """The curves of EXTRA for one frame of every input but the base."""
    out: dict[tuple[str, int], float | None] = {}
    for which, frame in enumerate(frames):
        if which == base:
            continue
        if "flicker" in extra:
            pairs = [torch.stack([previous[n], frames[n]]) for n in (which, base) if previous]
            out["flicker", which] = _real(flicker(*pairs).item()) if pairs else None
        if "hatching" in extra:
            found = hatching(frame[None], frames[base][None], FEWEST_IN_FRAME)[0]
            out["hatching", which] = _real(found)
    return out


def _real(value: float) -> float | None:
    return None if math.isnan(value) else value


class _Worst:
    """Keeps the places with the largest difference, no two of the same place and time."""

    def __init__(self) -> None:
        self._spots: list[Spot] = []

    def add(self, number: int, frames: Sequence[Tensor], reference: int | None) -> None:
        """Compare every input with the first (the reference, when there is one)."""
        base = reference or 0
        others = [f for n, f in enumerate(frames) if n != base]
        if not others:
            return
        gap = torch.stack([(f - frames[base]).abs().mean(0) for f in others]).amax(0)
        height, width = gap.shape
        side = max(8, height // SPOT_SHARE)
        side = min(side, height, width)
        means = F.avg_pool2d(gap[None, None] * 127.5, side, stride=max(1, side // 2))[0, 0]
        value, place = means.flatten().max(0)
        row, column = divmod(int(place), means.shape[1])
        y, x = row * max(1, side // 2), column * max(1, side // 2)
        box = (x / width, y / height, side / width, side / height)
        self._keep(Spot(number, box, float(value)))

    def _keep(self, spot: Spot) -> None:
        for other in self._spots:
            if _same_place(spot, other):
                if spot.difference > other.difference:
                    self._spots.remove(other)
                    break
                return
        self._spots.append(spot)
        self._spots = self.best()

    def best(self) -> list[Spot]:
        """The worst places, worst first."""
        return sorted(self._spots, key=lambda s: -s.difference)[:SPOTS]


def _same_place(a: Spot, b: Spot) -> bool:
    near = abs(a.frame - b.frame) <= SAME_PLACE_FRAMES
    return near and all(abs(a.box[i] - b.box[i]) < a.box[2 + i] for i in (0, 1))
