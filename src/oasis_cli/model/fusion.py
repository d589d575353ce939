"""What a frame has lost, other frames of the clip may hold: they are moved onto it and read.

    features of each frame -> flow between neighbours, from their correlation, in steps of 8 pixels
    flow at their size     -> refined from what still differs once the neighbour is moved by it
    flows are chained      -> each frame sees up to `reach` frames before and after it, in place
    attention in time      -> at each place, from the frames that have something to say
    a correction           -> added to the clip, before latents are made of it

Flow-guided alignment as in BasicVSR (arXiv 2012.02181), without recurrence, so that all frames of a
window are worked on alike; what is chosen where is attention, as in EDVR (arXiv 1905.02716).

Letters: B batch   T frames   N = B * T   K channels   h, w a quarter of the target's size
"""

from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from oasis_cli.model.decoders.fast import HALF, ResidualBlock
from oasis_cli.model.latent import keep_variance
from oasis_cli.runtime.devices import in_pieces

AT_ONCE, CPU_AT_ONCE = 4, 1
"""Frames that are corrected at a time without gradients: what is moved onto them is large."""
NEAR = 2
"""Positions of 4 target pixels within which a flow is refined."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FusionConfig:
    """The size of `Fusion`."""

    width: int = 48
    """Channels of the features."""
    heads: int = 4
    """Heads of the attention in time; they share the channels evenly."""
    reach: int = 4
    """Frames before and after each one that it sees."""
    search: int = 4
    """How far content may move from a frame to the next, in positions of 8 target pixels; the
    layers behind the correlation add what is between them."""
    refine: int = 2
    """How often the flow is refined, by the same layers, at the features' size."""

    def __post_init__(self) -> None:
        if self.heads < 1 or self.width % self.heads:
            raise ValueError(f"{self.width} channels do not split into {self.heads} even heads")


class FlowStep(nn.Module):
    """Where the content of one frame is in another, as far as it lies within `search` positions.

    It is the mean of where it is likely to be by correlation, and what convolutions add to that.
    """

    def __init__(
        self, width: int, search: int, sharpness: float, *, half: bool = False, given: int = 0
    ) -> None:
        """width: channels of the features. sharpness: how much more likely the better of two
        matches is, at first. half: at half of the features' size. given: channels that the
        convolutions see besides."""
        super().__init__()
        self.search = search
        size, stride = (3, 2) if half else (1, 1)
        compared = width // 2
        self.match = nn.Conv2d(width, compared, size, stride, padding=size // 2, bias=False)
        self.sharpness = nn.Parameter(torch.tensor(sharpness))
        self.flow = nn.Sequential(
            nn.Conv2d((2 * search + 1) ** 2 + compared + given, 64, 3, padding=1),
            nn.LeakyReLU(0.1),
            nn.Conv2d(64, 64, 3, padding=1),
            nn.LeakyReLU(0.1),
            nn.Conv2d(64, 2, 3, padding=1),
        )
        keep_variance(self.match)
        for parameter in self.flow[-1].parameters():
            nn.init.zeros_(parameter)

    def described(self, features: Tensor) -> Tensor:
        """What is compared of features (N, K, h, w): what differs around a place, of length 1.

        Returns (N, K/2, h, w), or a quarter of that many places.
        """
        found = self.match(features).float()
        found = found - F.avg_pool2d(found, 5, 1, 2, count_include_pad=False)
        return F.normalize(found, dim=1, eps=1e-3).to(features.dtype)

    def forward(self, a: Tensor, b: Tensor, *given: Tensor) -> Tensor:
        """Where the content of a is in b: (N, 2, h, w) in positions, right and down.

        a, b: (N, K/2, h, w), described. given: (N, ., h, w).
        """
        likely = self.sharpness * _correlation(a, b, self.search).float()
        seen = torch.cat([likely, a, *given], dim=1).to(a.dtype)
        return _expected(likely, self.search) + self.flow(seen).float()


class Fusion(nn.Module):
    """A clip (B, T, 3, H, W) in [-1, 1] to a better one of the same shape; H and W are multiples of
    8.

    The last convolution starts at zero: an untrained one corrects nothing.
    """

    def __init__(self, config: FusionConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.first = nn.Conv2d(3 * HALF**2, width, 3, padding=1)
        self.blocks = nn.ModuleList(ResidualBlock(width) for _ in range(2))
        self.coarse = FlowStep(width, config.search, 20.0, half=True)
        self.fine = FlowStep(width, NEAR, 10.0, given=2)
        self.q = nn.Conv2d(width, width, 1)
        self.kv = nn.Conv2d(width, 2 * width, 1, bias=False)
        self.distance = nn.Parameter(torch.zeros(config.heads, 2 * config.reach + 1))
        """Added to the logits, for each frame by where it lies from the one it is read for."""
        self.join = nn.Conv2d(2 * width, width, 3, padding=1)
        self.after = nn.ModuleList(ResidualBlock(width) for _ in range(2))
        self.last = nn.Conv2d(width, 3 * HALF**2, 3, padding=1)
        for made in (self.first, self.q, self.kv, self.join):
            keep_variance(made)
        for parameter in self.last.parameters():
            nn.init.zeros_(parameter)

    def forward(self, clip: Tensor) -> Tensor:
        """The corrected clip, as `clip`: (B, T, 3, H, W)."""
        frames = clip.shape[1]
        features = self.features(clip)
        moved = {}
        if frames > 1:
            ahead, back = (self.flows(features, ahead=way)[-1] for way in (True, False))
            moved = self._chained(ahead, back)
        step = _at_once(frames, clip.device)
        if step >= frames:
            return clip + self._correction(features, moved, 0, frames).to(clip.dtype)
        out = torch.empty_like(clip)
        for first in range(0, frames, step):
            some = slice(first, min(first + step, frames))
            part = self._correction(features, moved, some.start, some.stop)
            torch.add(clip[:, some], part.to(clip.dtype), out=out[:, some])
        return out

    def features(self, clip: Tensor) -> Tensor:
        """What each frame shows: (B, T, 3, H, W) to (B, T, K, h, w)."""
        step = _at_once(clip.shape[1], clip.device)
        return torch.cat([self._features(some) for some in clip.split(step, dim=1)], dim=1)

    def _features(self, clip: Tensor) -> Tensor:
        x = F.pixel_unshuffle(clip.flatten(0, 1).to(self.first.weight.dtype), HALF)
        x = F.leaky_relu(self.first(x.contiguous(memory_format=torch.channels_last)), 0.1)
        for block in cast(list[ResidualBlock], list(self.blocks)):
            x = block.added(x, x)
        return x.unflatten(0, clip.shape[:2])

    def flows(self, features: Tensor, *, ahead: bool) -> list[Tensor]:
        """Where the content of each place is in the next frame, or else in the one before.

        features: (B, T, K, h, w). Returns tensors for frames 0 ... T-2, or 1 ... T-1: first (B, T -
        1, 2, h/2, w/2), then (B, T - 1, 2, h, w) for each time that was refined. They count
        positions of their own grid, right and down.
        """
        here, there = features[:, :-1], features[:, 1:]
        if not ahead:
            here, there = there, here
        step = _at_once(here.shape[1], here.device)
        pieces = zip(here.split(step, dim=1), there.split(step, dim=1), strict=True)
        found = zip(*(self._flow(a, b) for a, b in pieces), strict=True)
        return [torch.cat(level, dim=1) for level in found]

    def _flow(self, a: Tensor, b: Tensor) -> list[Tensor]:
        """Where the content of a is in b, as `flows`. a, b: (B, T, K, h, w)."""
        shape, size = a.shape[:2], a.shape[-2:]
        a, b = a.flatten(0, 1), b.flatten(0, 1)
        flows = [self.coarse(self.coarse.described(a), self.coarse.described(b))]
        flow = 2 * F.interpolate(flows[0], size, mode="bilinear")
        here, there = self.fine.described(a), self.fine.described(b)
        for _ in range(self.config.refine):
            # What a flow leads to is looked at afresh: no gradient flows through where it led.
            known = flow.detach()
            flow = flow + self.fine(here, moved_by(there, known)[0], known)
            flows.append(flow)
        return [flow.unflatten(0, shape) for flow in flows]

    def _chained(self, ahead: Tensor, back: Tensor) -> dict[int, Tensor]:
        """By how many frames away: where the content of each frame's places is there.

        ahead, back: the last of `flows`, each way. Returns tensors of their size, for all T frames;
        those without such a frame hold what is ignored.
        """
        moved = {}
        for sign, ends in ((1, (0, 1)), (-1, (1, 0))):
            step = F.pad(ahead if sign > 0 else back, (0,) * 6 + ends)
            moved[sign] = total = step
            for away in range(2, min(self.config.reach, step.shape[1] - 1) + 1):
                following = _frames(step, sign * (away - 1), 0, step.shape[1])
                more, _ = moved_by(following.flatten(0, 1), total.flatten(0, 1))
                moved[sign * away] = total = total + more.view_as(total)
        return moved

    def _correction(
        self, features: Tensor, moved: dict[int, Tensor], first: int, end: int
    ) -> Tensor:
        """What is added to frames `first` ... `end` - 1. features: (B, T, K, h, w)."""
        count = features.shape[1]
        own = features[:, first:end].flatten(0, 1)
        number = torch.arange(first, end, device=own.device).repeat(len(features))
        q = self._heads(self.q(own)) * (self.config.width // self.config.heads) ** -0.5
        # A softmax over frames, one frame at a time: what was read so far, and its weight.
        top, weight = own.new_full((), -torch.inf, dtype=torch.float32), 0.0
        read: Tensor | float = 0.0
        for away in (0, *sorted(moved)):
            there, seen = _frames(features, away, first, end).flatten(0, 1), None
            if away:
                there, seen = moved_by(there, moved[away][:, first:end].flatten(0, 1))
                exists = (number + away >= 0) & (number + away < count)
                seen = (seen & exists.view(-1, 1, 1)).unsqueeze(1)
            k, v = self.kv(there).chunk(2, dim=1)
            logit = (q * self._heads(k)).sum(2).float()
            logit = logit + self.distance[:, self.config.reach + away, None, None]
            logit = logit if seen is None else logit.masked_fill(~seen, -torch.inf)
            higher = torch.maximum(top, logit)
            kept, share = (top - higher).exp(), (logit - higher).exp()
            read = read * kept.unsqueeze(2) + share.unsqueeze(2) * self._heads(v)
            weight, top = weight * kept + share, higher
        assert isinstance(read, Tensor) and isinstance(weight, Tensor)
        read = (read / weight.unsqueeze(2)).flatten(1, 2).to(own.dtype)
        x = F.leaky_relu(self.join(torch.cat([own, read], dim=1)), 0.1)
        for block in cast(list[ResidualBlock], list(self.after)):
            x = block.added(x, x)
        return F.pixel_shuffle(self.last(x), HALF).unflatten(0, (len(features), -1))

    def _heads(self, x: Tensor) -> Tensor:
        """(N, K, h, w) to (N, heads, K / heads, h, w)."""
        return x.unflatten(1, (self.config.heads, -1))


def _at_once(count: int, device: torch.device) -> int:
    """How many of `count` pictures are worked on at a time: all, where gradients need all."""
    if torch.is_grad_enabled():
        return count
    return CPU_AT_ONCE if in_pieces(device) else AT_ONCE


def _frames(x: Tensor, away: int, first: int, end: int) -> Tensor:
    """Frames of (B, T, ...) that lie `away` after `first` ... `end` - 1; beyond the ends the last
    ones are repeated."""
    number = torch.arange(first + away, end + away, device=x.device)
    return x.index_select(1, number.clamp(0, x.shape[1] - 1))


def _correlation(a: Tensor, b: Tensor, search: int) -> Tensor:
    """Products of each place of a with the places of b around it: (N, (2 search + 1)^2, h, w), row
    by row. a, b: (N, K, h, w); outside of b is 0."""
    rows, cols = a.shape[-2:]
    wide = F.pad(b, (search,) * 4)
    steps = range(2 * search + 1)
    return torch.stack(
        [(a * wide[..., y : y + rows, x : x + cols]).sum(1) for y in steps for x in steps], dim=1
    )


def _expected(likely: Tensor, search: int) -> Tensor:
    """Logits (N, (2 search + 1)^2, h, w) to the mean displacement, (N, 2, h, w) right and down."""
    steps = torch.arange(-search, search + 1, device=likely.device, dtype=likely.dtype)
    down, right = torch.meshgrid(steps, steps, indexing="ij")
    where = torch.stack([right.flatten(), down.flatten()])
    return torch.einsum("cp,nphw->nchw", where, likely.softmax(1))


def moved_by(x: Tensor, flow: Tensor) -> tuple[Tensor, Tensor]:
    """x (N, K, h, w) where `flow` (N, 2, h, w) leads from each place, right and down in positions;
    and whether that is inside.

    Returns (N, K, h, w) and bool (N, h, w). Positions are computed in float32.
    """
    rows, cols = x.shape[-2:]
    right, down = (torch.arange(n, device=x.device, dtype=torch.float32) for n in (cols, rows))
    flow = flow.float()
    grid = torch.stack(
        [
            (flow[:, 0] + right + 0.5) * 2 / cols - 1,
            (flow[:, 1] + down[:, None] + 0.5) * 2 / rows - 1,
        ],
        -1,
    )
    out = F.grid_sample(x.float(), grid, padding_mode="border", align_corners=False)
    return out.to(x.dtype), grid.abs().amax(-1) < 1
