"""Planes <-> RGB clips, in torch and in floating point.

swscale is not used here: its fast paths lose up to 13 of 255 levels in chroma, it takes untagged
video for BT.601 whatever its size, and it centres chroma that H.264 has on the left.

Letters used for shapes in this file: T frames, H rows, W columns.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Sequence
from functools import cache
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from oasis_cli.media.picture import PictureSpec, Planes
from oasis_cli.runtime.devices import capabilities

# Kr, Kb of ITU-T H.273, table 4.
_WEIGHTS = {
    "bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722), "bt2020": (0.2627, 0.0593),
    "fcc": (0.30, 0.11), "smpte240m": (0.212, 0.087),
}  # fmt: skip


STRIP = 1 << 19
"""Values of RGB in rows that are converted together on a CPU."""

ABOVE = 4
"""Rows above them that chroma on every other row is filtered from."""


class HasPlanes(Protocol):
    """A frame as the reader gives it."""

    @property
    def planes(self) -> Planes: ...


def ycbcr_matrix(name: str) -> Tensor:
    """(3, 3) float64: RGB in [0, 1] -> Y in [0, 1], Cb and Cr in [-0.5, 0.5]."""
    if name == "ycgco":
        return torch.tensor(
            [[0.25, 0.5, 0.25], [-0.25, 0.5, -0.25], [0.5, 0.0, -0.5]], dtype=torch.float64
        )
    kr, kb = _WEIGHTS[name]
    kg = 1 - kr - kb
    return torch.tensor(
        [
            [kr, kg, kb],
            [-kr / (2 * (1 - kb)), -kg / (2 * (1 - kb)), 0.5],
            [0.5, -kg / (2 * (1 - kr)), -kb / (2 * (1 - kr))],
        ],
        dtype=torch.float64,
    )


def _levels(spec: PictureSpec) -> tuple[float, float, float, float]:
    """(luma offset, luma span, chroma offset, chroma span) in codes (ITU-T H.273, 8.3)."""
    depth = spec.layout.depth
    if spec.full_range:
        top = float((1 << depth) - 1)
        return 0.0, top, float(1 << (depth - 1)), top
    unit = float(1 << (depth - 8))
    return 16 * unit, 219 * unit, 128 * unit, 224 * unit


def frames_to_clip(
    frames: Sequence[HasPlanes], spec: PictureSpec, device: torch.device | str = "cpu"
) -> Tensor:
    """Frames -> (T, 3, H, W) float32 RGB in [-1, 1]; H, W as `spec.display_size`.

    Values are clamped: limited-range video has codes that no RGB stands for.
    """
    device = torch.device(device)
    if not capabilities(device).host or not frames:
        return _rgb(frames, spec, device)
    size = spec.display_size
    clip = torch.empty(len(frames), 3, size[1], size[0])
    for number, frame in enumerate(frames):  # one at a time: a whole window's scratch is large
        clip[number] = _rgb([frame], spec, device)[0]
    return clip


def _rgb(frames: Sequence[HasPlanes], spec: PictureSpec, device: torch.device) -> Tensor:
    """`frames_to_clip`, all frames at once."""
    layout = spec.layout
    count = 3 if layout.family != "gray" else 1
    planes = [
        _to_device(np.stack([f.planes[i] for f in frames]), device).float() for i in range(count)
    ]
    y_off, y_span, c_off, c_span = _levels(spec)
    y = planes[0].sub_(y_off).mul_(2 / y_span)  # twice the luma: [0, 2]
    if layout.family == "gray":
        rgb = y[:, None].expand(-1, 3, -1, -1).contiguous()
    elif layout.family == "rgb":
        b, r = (p.sub_(y_off).mul_(2 / y_span) for p in planes[1:])
        rgb = torch.stack([r, y, b], dim=1)
    else:
        chroma = [_enlarge_chroma(p.sub_(c_off).mul_(2 / c_span), spec) for p in planes[1:]]
        rgb = y.new_empty(y.shape[0], 3, *y.shape[1:])
        for channel, row in zip(rgb.unbind(1), _to_rgb(spec.matrix), strict=True):
            torch.mul(y, row[0], out=channel)
            channel.add_(chroma[0], alpha=row[1]).add_(chroma[1], alpha=row[2])
    return _orient(rgb.sub_(1).clamp_(-1, 1), spec.orientation).contiguous()


@cache
def _to_rgb(matrix: str) -> list[list[float]]:
    """The rows that turn Y, Cb, Cr into R, G, B."""
    rows: list[list[float]] = torch.linalg.inv(ycbcr_matrix(matrix)).tolist()
    return rows


def _to_device(array: np.ndarray, device: torch.device | str) -> Tensor:
    # torch's uint16 has few operators, so 10-bit codes travel as int16: none needs the sign bit
    # but those of 16-bit pictures, which are widened here.
    if array.dtype == np.uint16:
        array = array.astype(np.int32) if array.max(initial=0) > 32767 else array.view(np.int16)
    tensor = torch.from_numpy(array)
    if capabilities(device).streams:
        # From pinned memory the copy is queued; else it would wait for all that the device does.
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def _orient(clip: Tensor, orientation: tuple[int, bool]) -> Tensor:
    turns, mirrored = orientation
    if turns:
        clip = torch.rot90(clip, -turns, (-2, -1))
    return clip.flip(-1) if mirrored else clip


def _offsets(spec: PictureSpec) -> tuple[float, float]:
    """How far right and down of the first luma sample the first chroma sample lies, in pixels."""
    sub_x, sub_y = spec.layout.sub
    aside = ((1 << sub_x) - 1) / 2 if spec.siting == "center" else 0.0
    down = 0.0 if spec.siting == "topleft" else ((1 << sub_y) - 1) / 2
    return aside, down


def _enlarge_chroma(plane: Tensor, spec: PictureSpec) -> Tensor:
    """(T, h, w) chroma -> (T, H, W) by linear interpolation from where its samples lie."""
    (sub_x, sub_y), (aside, down) = spec.layout.sub, _offsets(spec)
    plane = _enlarge_axis(plane, 1, spec.height, sub_y, down)
    return _enlarge_axis(plane, 2, spec.width, sub_x, aside)


def _enlarge_axis(plane: Tensor, axis: int, length: int, sub: int, offset: float) -> Tensor:
    if sub == 0:
        return plane
    where = (torch.arange(length, device=plane.device, dtype=torch.float32) - offset) / (1 << sub)
    where = where.clamp(0, plane.shape[axis] - 1)
    below = where.floor().long()
    above = (below + 1).clamp(max=plane.shape[axis] - 1)
    weight = (where - below).view([-1 if i == axis else 1 for i in range(plane.ndim)])
    return torch.lerp(plane.index_select(axis, below), plane.index_select(axis, above), weight)


@torch.inference_mode()
def clip_to_planes(clip: Tensor, spec: PictureSpec) -> list[Planes]:
    """(T, 3, H, W) RGB in [-1, 1] -> one tuple of planes (uint8 or uint16) per frame, no alpha.

    A clip smaller than `spec` (an encoder wants even sizes) is padded by repeating its edge.
    """
    return [planes_later(picture, spec)() for picture in clip]


@torch.inference_mode()
def planes_later(picture: Tensor, spec: PictureSpec) -> Callable[[], Planes]:
    """Begin to turn one (3, H, W) picture into planes; calling the result waits for them.

    On CUDA the work is queued behind what the device is doing, and the planes arrive in pinned
    memory while the caller goes on. Elsewhere they are made at once.
    """
    if capabilities(picture.device).streams:
        return _fetch(_codes(picture, 0, picture.shape[-2], spec), spec.layout.depth)
    kind, rows = _code_type(spec.layout.depth), _strip(spec.width)
    planes = tuple(_apart(shape, kind) for shape in spec.plane_shapes()[:3])
    for top in range(0, picture.shape[-2], rows):
        for number, codes in enumerate(_codes(picture, top, rows, spec)):
            first = top >> (spec.layout.sub[1] if number and spec.layout.family == "yuv" else 0)
            planes[number][first : first + codes.shape[0]] = _array(codes, spec.layout.depth)
    return lambda: planes


def _apart(shape: tuple[int, int], kind: type[np.uint8] | type[np.uint16]) -> np.ndarray:
    """A new plane outside the heap: planes live longer than what is allocated around them, and
    would leave holes there that cost more memory than they do."""
    size = shape[0] * shape[1] * np.dtype(kind).itemsize
    return np.frombuffer(mmap.mmap(-1, size), kind).reshape(shape)


def _fetch(codes: list[Tensor], depth: int) -> Callable[[], Planes]:
    """Copy codes from a CUDA device to pinned memory; calling the result waits for them."""
    whole = torch.uint8 if depth == 8 else torch.int32  # fewer bytes than floats
    held = [torch.empty(plane.shape, dtype=whole, pin_memory=True) for plane in codes]
    for place, plane in zip(held, codes, strict=True):
        place.copy_(plane.to(whole), non_blocking=True)
    arrived = torch.cuda.Event(blocking=True)  # the waiting thread sleeps
    arrived.record(torch.cuda.current_stream(codes[0].device))

    def wait() -> Planes:
        arrived.synchronize()
        return tuple(_array(plane, depth) for plane in held)

    return wait


def _strip(width: int) -> int:
    """Rows converted together: few enough for the cache, and 32 n, so that neither chroma samples
    nor the dither's pattern are cut."""
    return max(32, STRIP // (3 * width) // 32 * 32)


def _codes(picture: Tensor, top: int, rows: int, spec: PictureSpec) -> list[Tensor]:
    """What rows [top, top + rows) of a (3, H, W) picture mean in each plane: whole numbers."""
    layout, last = spec.layout, top + rows >= picture.shape[-2]
    above = min(top, ABOVE if layout.sub[1] else 0)
    rgb = picture[None, :, top - above : top + rows].float().clamp(-1, 1)
    right, below = spec.width - rgb.shape[-1], spec.height - picture.shape[-2] if last else 0
    if right or below:
        rgb = F.pad(rgb, (0, right, 0, below), mode="replicate")
    y_off, y_span, c_off, c_span = _levels(spec)
    if layout.family == "gray":
        kr, kb = _WEIGHTS["bt709"]
        codes = [_weigh(rgb, (kr, 1 - kr - kb, kb), y_off, y_span)]
    elif layout.family == "rgb":
        codes = [(rgb[:, i] * (y_span / 2)).add_(y_off + y_span / 2) for i in (1, 2, 0)]
    else:
        luma, *chroma = ycbcr_matrix(spec.matrix).tolist()
        codes = [_weigh(rgb[:, :, above:], luma, y_off, y_span)]
        rgb = _reduce_chroma(rgb, spec)  # linear, as the matrix is: cheaper on this side of it
        rgb = rgb[:, :, above >> layout.sub[1] :]
        codes += [_weigh(rgb, row, c_off, c_span) for row in chroma]
    return [_round(plane[0], layout.depth, dither=spec.dither) for plane in codes]


def _weigh(rgb: Tensor, row: Sequence[float], offset: float, span: float) -> Tensor:
    """(T, 3, H, W) RGB in [-1, 1] -> (T, H, W) codes: `row` times RGB in [0, 1].

    In place, because at these sizes most of the time goes into memory that is new.
    """
    out = rgb[:, 0] * (row[0] * span / 2)
    for channel, weight in zip((rgb[:, 1], rgb[:, 2]), row[1:], strict=True):
        out.add_(channel, alpha=weight * span / 2)
    return out.add_(offset + sum(row) * span / 2)


def _reduce_chroma(rgb: Tensor, spec: PictureSpec) -> Tensor:
    """(T, 3, H, W) -> (T, 3, h, w): the inverse direction of `_enlarge_chroma`."""
    (sub_x, sub_y), (aside, down) = spec.layout.sub, _offsets(spec)
    rgb = _reduce_axis(rgb, -2, sub_y, down)
    return _reduce_axis(rgb, -1, sub_x, aside)


def _reduce_axis(rgb: Tensor, axis: int, sub: int, offset: float) -> Tensor:
    """Halve an axis: two taps for samples that lie between pixels, [1 2 1]/4 for those on one."""
    if sub == 0:
        return rgb
    if rgb.shape[axis] % 2:
        rgb = torch.cat([rgb, rgb.narrow(axis, -1, 1)], axis)
    here, after = rgb.unflatten(axis, (-1, 2)).unbind(axis)
    if offset > 0:
        half = (here + after).mul_(0.5)
    else:
        half = (here * 0.5).add_(after, alpha=0.25)
        others = half.shape[axis] - 1
        half.narrow(axis, 1, others).add_(after.narrow(axis, 0, others), alpha=0.25)
        half.narrow(axis, 0, 1).add_(here.narrow(axis, 0, 1), alpha=0.25)
    return _reduce_axis(half, axis, sub - 1, offset / 2 if offset > 0.5 else 0.0)


@cache
def _bayer() -> Tensor:
    """(8, 8) ordered-dither thresholds in (-0.5, 0.5)."""
    tile = torch.zeros(1, 1)
    for _ in range(3):
        tile = torch.cat(
            [torch.cat([4 * tile, 4 * tile + 2], 1), torch.cat([4 * tile + 3, 4 * tile + 1], 1)]
        )
    return (tile + 0.5) / 64 - 0.5


def _code_type(depth: int) -> type[np.uint8] | type[np.uint16]:
    return np.uint8 if depth == 8 else np.uint16


def _round(plane: Tensor, depth: int, *, dither: bool) -> Tensor:
    """Codes of `plane`, which is overwritten; still floating point."""
    if dither:
        rows, columns = -(-plane.shape[-2] // 8), -(-plane.shape[-1] // 8)
        noise = _bayer().to(plane.device).repeat(rows, columns)
        plane = plane.add_(noise[: plane.shape[-2], : plane.shape[-1]])
    return plane.round_().clamp_(0, float((1 << depth) - 1))


def _array(codes: Tensor, depth: int) -> np.ndarray:
    """Codes in the type that an encoder takes; numpy casts faster than torch on a CPU."""
    return codes.cpu().numpy().astype(_code_type(depth), copy=False)


def enlarge_alpha(
    alpha: np.ndarray, source: PictureSpec, target: PictureSpec, size: tuple[int, int]
) -> np.ndarray:
    """(h, w) alpha codes of the source -> codes for the target, enlarged bicubically to `size`.

    `size` is (W, H) of the picture; the target's own size may be padded by one.
    """
    value = _to_device(alpha, "cpu").float() / ((1 << source.layout.depth) - 1)
    value = _orient(value[None, None], source.orientation)
    large = F.interpolate(value, (size[1], size[0]), mode="bicubic").clamp(0, 1)
    large = F.pad(large, (0, target.width - size[0], 0, target.height - size[1]), mode="replicate")
    depth = target.layout.depth
    return _array(_round(large[0, 0] * ((1 << depth) - 1), depth, dither=False), depth)
