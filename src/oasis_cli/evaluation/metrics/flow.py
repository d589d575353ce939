"""Motion between two pictures, and the warping error E*_warp that is built on it.

The motion estimate is Farneback's: around every pixel the picture is a quadratic polynomial, and a
shift of the picture changes the polynomial in a known way (G. Farneback, SCIA 2003). Ours runs in
torch, so that every installation gives the same numbers.

Letters: N pairs   H, W pixels. A flow is (N, 2, H, W): what is at (x, y) in the first picture is at
(x + flow[0], y + flow[1]) in the second, in pixels.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

RADIUS = 3
"""The polynomial is fitted on (2 * RADIUS + 1)^2 pixels ..."""
SIGMA = 1.5
"""... with Gaussian weights of this width."""
SMOOTH = 4.0
"""Width (sigma) in pixels of the neighbourhood that moves as one."""
STEPS = 4
"""Refinements on each level of the pyramid."""
COARSEST = 24
"""No level of the pyramid has a side below this many pixels."""
RIDGE = 1e-2
"""Added to the normal equations: flat neighbourhoods keep the motion of the coarser level."""


def _gauss(radius: int, sigma: float, like: Tensor) -> Tensor:
    x = torch.arange(-radius, radius + 1, dtype=like.dtype, device=like.device)
    weight = torch.exp(-(x**2) / (2 * sigma**2))
    return weight / weight.sum()


def _separable(x: Tensor, down: Tensor, across: Tensor) -> Tensor:
    """Correlate with the outer product of two odd kernels, edges repeated. x: (N, C, H, W)."""
    channels, radius = x.shape[1], len(down) // 2
    x = F.pad(x, (radius,) * 4, mode="replicate")
    x = F.conv2d(x, down.view(1, 1, -1, 1).expand(channels, 1, -1, 1), groups=channels)
    return F.conv2d(x, across.view(1, 1, 1, -1).expand(channels, 1, 1, -1), groups=channels)


def polynomials(grey: Tensor) -> tuple[Tensor, Tensor]:
    """Fit f(p + x) = x'Ax + b'x + c around every pixel p, by weighted least squares.

    grey: (N, 1, H, W). Returns A as its entries xx, xy, yy (N, 3, H, W), and b (N, 2, H, W).
    """
    weight = _gauss(RADIUS, SIGMA, grey)
    x = torch.arange(-RADIUS, RADIUS + 1, dtype=grey.dtype, device=grey.device)
    second, fourth = (weight * x**2).sum(), (weight * x**4).sum()
    m_1 = _separable(grey, weight, weight)
    m_x, m_y = _separable(grey, weight, weight * x), _separable(grey, weight * x, weight)
    m_xx, m_yy = (
        _separable(grey, weight, weight * x**2),
        _separable(grey, weight * x**2, weight),
    )
    m_xy = _separable(grey, weight * x, weight * x)
    # The moments of 1, x^2 and y^2 mix; x, y and xy stand alone. With d = fourth - second^2 the
    # inverse of their 3x3 block reduces to these two lines.
    spread = fourth - second**2
    xx, yy = (m_xx - second * m_1) / spread, (m_yy - second * m_1) / spread
    a = torch.cat([xx, m_xy / (2 * second**2), yy], dim=1)
    return a, torch.cat([m_x, m_y], dim=1) / second


def warp(picture: Tensor, flow: Tensor) -> Tensor:
    """Look up `picture` at each pixel plus flow, bilinear, edges repeated. Returns its shape."""
    height, width = picture.shape[-2:]
    y = torch.arange(height, dtype=flow.dtype, device=flow.device).view(1, -1, 1)
    x = torch.arange(width, dtype=flow.dtype, device=flow.device).view(1, 1, -1)
    across = (x + flow[:, 0]) * (2 / max(width - 1, 1)) - 1
    down = (y + flow[:, 1]) * (2 / max(height - 1, 1)) - 1
    grid = torch.stack([across, down], dim=-1)
    return F.grid_sample(picture, grid, padding_mode="border", align_corners=True)


def _refine(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor], flow: Tensor) -> Tensor:
    """One Farneback step: solve for the motion that explains both sets of polynomials."""
    (a1, b1), (a2, b2) = first, second
    moved = warp(torch.cat([a2, b2], dim=1), flow)
    xx, xy, yy = ((a1 + moved[:, :3]) / 2).unbind(1)
    u, v = flow.unbind(1)
    change_x, change_y = ((b1 - moved[:, 3:]) / 2).unbind(1)
    h_x = change_x + xx * u + xy * v
    h_y = change_y + xy * u + yy * v
    parts = torch.stack(
        [
            xx * xx + xy * xy,
            xy * (xx + yy),
            xy * xy + yy * yy,
            xx * h_x + xy * h_y,
            xy * h_x + yy * h_y,
        ],
        dim=1,
    )
    kernel = _gauss(int(2 * SMOOTH), SMOOTH, flow)
    g_xx, g_xy, g_yy, r_x, r_y = _separable(parts, kernel, kernel).unbind(1)
    g_xx, g_yy, r_x, r_y = g_xx + RIDGE, g_yy + RIDGE, r_x + RIDGE * u, r_y + RIDGE * v
    determinant = g_xx * g_yy - g_xy**2
    return torch.stack([g_yy * r_x - g_xy * r_y, g_xx * r_y - g_xy * r_x], dim=1) / (
        determinant.unsqueeze(1)
    )


def dense_motion(first: Tensor, second: Tensor) -> Tensor:
    """Dense motion from `first` to `second`, coarse to fine.

    first, second: (N, 3, H, W) in [-1, 1]. Returns a flow (N, 2, H, W) in pixels.
    """
    grey = [(x.float().mean(1, keepdim=True) + 1) * 127.5 for x in (first, second)]
    levels = [grey]
    while min(levels[-1][0].shape[-2:]) >= 2 * COARSEST:
        levels.append([F.avg_pool2d(x, 2) for x in levels[-1]])
    flow = torch.zeros_like(levels[-1][0]).repeat(1, 2, 1, 1)
    for one, two in reversed(levels):
        if flow.shape[-2:] != one.shape[-2:]:
            flow = 2 * F.interpolate(flow, size=one.shape[-2:], mode="bilinear")
        fits = polynomials(one), polynomials(two)
        for _ in range(STEPS):
            flow = _refine(*fits, flow)
    return flow


def trusted(forward: Tensor, backward: Tensor) -> Tensor:
    """Where the motion can be trusted: the way back agrees, and the motion has no edge there.

    The two tests and their constants are Ruder et al. (2016), used by Lai et al. (2018); lengths
    are squared. forward, backward: flows (N, 2, H, W). Returns (N, 1, H, W), 1 visible, 0 not.
    """
    back = warp(backward, forward)

    def squared(x: Tensor) -> Tensor:
        return x.square().sum(1, keepdim=True)

    occluded = squared(back + forward) > 0.01 * (squared(back) + squared(forward)) + 0.5
    slope_x = F.pad(forward.diff(dim=-1), (0, 1, 0, 0))
    slope_y = F.pad(forward.diff(dim=-2), (0, 0, 0, 1))
    edge = squared(slope_x) + squared(slope_y) > 0.01 * squared(forward) + 0.002
    return (~(occluded | edge)).to(forward.dtype)


def warping_error(frames: Tensor) -> Tensor:
    """E*_warp of each neighbouring pair, x1000; lower is steadier.

    Frames in [0, 1] are halved (bilinear). Frame t+1 is pulled back to t along the motion from t to
    t+1; the squared difference, summed over the colours, is averaged over the visible pixels. Blur
    lowers it too: read it beside a score of detail, never alone. It uses Farneback's motion where
    published tables use RAFT, so compare it only with numbers from this program.

    frames: (N, 3, H, W) in [-1, 1], neighbours in order. Returns (N-1,), nan if nothing is visible.
    """
    if min(frames.shape[-2:]) >= 32:
        frames = F.interpolate(
            frames.float(), scale_factor=0.5, mode="bilinear", recompute_scale_factor=False
        )
    first, second = frames[:-1].float(), frames[1:].float()
    forward, backward = dense_motion(first, second), dense_motion(second, first)
    seen = trusted(forward, backward)
    difference = (first - warp(second, forward)) / 2
    error = (difference.square().sum(1, keepdim=True) * seen).sum((1, 2, 3)).double()
    return 1000 * error / seen.sum((1, 2, 3))
