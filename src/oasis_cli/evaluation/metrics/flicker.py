"""Flicker, without a clean clip: change from frame to frame that a base does not explain.

Frame t+1 is pulled back onto frame t along the motion of a base, and subtracted. The base is the
input enlarged by bicubic, or a reference. Of what remains, three things are no flicker of the
restorer's: what the base changes itself (noise, compression), more or less strongly; and what a
motion that is wrong by a fraction of a pixel leaves at edges, which grows with sharpness. So in the
neighbourhood of every pixel the change is explained as well as possible by the base's own change
and by the two slopes of the picture (least squares). Flicker is what no such explanation covers, in
8-bit steps: 0 for the base by definition, 0 for a steady clip however sharp and for one from which
the base's noise is gone.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from oasis_cli.evaluation.metrics import flow

SIDE = 25
"""Side in pixels of the neighbourhood in which one explanation must do."""
STEP = 8
"""Pixels from one neighbourhood to the next; explanations between them are interpolated."""
LARGEST_SHIFT = 0.5
"""Pixels by which the motion may be wrong; what would need more is flicker."""
RIDGE = 0.25
"""8-bit steps, squared, added to the normal equations: nothing is explained by next to nothing."""


def flicker(out: Tensor, base: Tensor) -> Tensor:
    """Change that the base does not explain, in 8-bit steps (root mean square over what is seen).

    out, base: (T, 3, H, W) in [-1, 1], the restored clip and the base. Returns (T-1,), nan where
    no pixel can be followed.
    """
    forward, seen = _motion(base)
    own, change = (_grey(flow.warp(x[1:], forward)) - _grey(x[:-1]) for x in (base, out))
    rest = change - _explained(change, own, _grey(out[:-1]))
    return ((rest.square() * seen).sum((1, 2, 3)) / seen.sum((1, 2, 3))).sqrt()


def _motion(frames: Tensor) -> tuple[Tensor, Tensor]:
    """The motion from each frame to the next, and where it can be trusted; found at half size.

    frames: (T, 3, H, W). Returns (T-1, 2, H, W) in pixels, (T-1, 1, H, W).
    """
    small = F.avg_pool2d(frames, 2) if min(frames.shape[-2:]) >= 64 else frames
    first, second = small[:-1], small[1:]
    forward, backward = flow.dense_motion(first, second), flow.dense_motion(second, first)
    seen = flow.trusted(forward, backward)
    size = frames.shape[-2:]
    forward = F.interpolate(forward, size=size, mode="bilinear") * (size[0] / small.shape[-2])
    return forward, F.interpolate(seen, size=size)


def _grey(frames: Tensor) -> Tensor:
    """(N, 1, H, W) in 8-bit steps."""
    return 127.5 * frames.float().mean(1, keepdim=True)


def _around(x: Tensor) -> Tensor:
    """Mean over neighbourhoods, every STEP pixels, edges repeated. (N, C, H, W) -> (N, C, h, w)."""
    return F.avg_pool2d(F.pad(x, (SIDE // 2,) * 4, mode="replicate"), SIDE, STEP)


def _explained(change: Tensor, own: Tensor, picture: Tensor) -> Tensor:
    """The part of `change` that the base's own change and a small shift explain.

    All (N, 1, H, W). The share of the own change is not negative, the shift at most LARGEST_SHIFT.
    """
    padded = F.pad(picture, (1, 1, 1, 1), mode="replicate")
    across = (padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]) / 2
    down = (padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]) / 2
    parts = torch.cat([own, across, down], dim=1)
    products = parts[:, :, None] * parts[:, None]
    normal = _around(products.flatten(1, 2)).unflatten(1, (3, 3)).permute(0, 3, 4, 1, 2)
    normal = normal + RIDGE * torch.eye(3)
    right = _around(parts * change).permute(0, 2, 3, 1)
    weights = torch.linalg.solve(normal, right).permute(0, 3, 1, 2)
    share, shift = weights[:, :1].clamp(min=0), weights[:, 1:]
    length = shift.norm(dim=1, keepdim=True)
    shift = shift * (LARGEST_SHIFT / length.clamp(min=LARGEST_SHIFT))
    weights = torch.cat([share, shift], dim=1)
    weights = F.interpolate(weights, size=change.shape[-2:], mode="bilinear")
    return (weights * parts).sum(1, keepdim=True)
