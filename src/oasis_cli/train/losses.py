"""One small function for each loss. Clips are (B, T, 3, H, W) in [-1, 1]; every loss is a scalar.

The networks behind perceptual losses are in `evaluation.metrics`, discriminators in
`adversary.py`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from oasis_cli.evaluation.metrics.pixels import ssim
from oasis_cli.evaluation.metrics.vgg import LAYERS, VggFeatures
from oasis_cli.model.fusion import moved_by
from oasis_cli.model.latent import PIXELS
from oasis_cli.train.camera import CELL


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


def warping(output: Tensor, target: Tensor, motion: Tensor) -> Tensor:
    """L1 between the error of a frame and that of the frame before, moved as the picture moves.

    What is wrong may not change from frame to frame, or it flickers: the warping loss of Lai et
    al. (arXiv 1808.00449), with the motion of filmed photographs instead of an estimated one.
    Where the target itself does not move that way (`SAME`), something else came into view, and
    nothing counts. output, target: (B, T, 3, H, W); motion: `data.Batch.motion`.
    """
    height, width = output.shape[-2:]
    flow = F.interpolate(motion.flatten(0, 1), (height, width), mode="bilinear")
    both = torch.cat([output - target, target], 2)
    before, inside = moved_by(both[:, :-1].flatten(0, 1), flow)
    error, known = (before - both[:, 1:].flatten(0, 1)).split(3, 1)
    inside = inside & (known.detach().abs().mean(1) < SAME)
    return (error.abs().mean(1) * inside).sum() / inside.sum().clamp(min=1)


SAME = 0.1
"""Largest mean difference of three colours, in [-1, 1], at which two places show the same."""


def flow_error(flow: Tensor, motion: Tensor) -> Tensor:
    """Mean distance of the fusion's flow to the frame before from what is known of it, in positions
    of 8 pixels; far misses count as `FAR`.

    flow: (B, T - 1, 2, h, w), in positions of its own grid, on which (H, W) is a multiple of it;
    motion: `data.Batch.motion`. Where motion leads out of the picture nothing counts.
    """
    rows, cols = flow.shape[-2:]
    coarser = motion.shape[-1] // cols
    pixels = CELL * coarser
    known = F.avg_pool2d(motion.flatten(0, 1), coarser) / pixels
    down = torch.arange(rows, device=known.device)[:, None] + known[:, 1]
    right = torch.arange(cols, device=known.device) + known[:, 0]
    inside = (down >= 0) & (down <= rows - 1) & (right >= 0) & (right <= cols - 1)
    distance = (flow.flatten(0, 1).float() - known).square().sum(1).add(1e-4).sqrt()
    distance = (distance * (pixels / PIXELS)).clamp(max=FAR)
    return (distance * inside).sum() / inside.sum().clamp(min=1)


FAR = 8.0


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


BANDS = (3, 7, 15)
"""Sides in pixels of the means that `excess` takes away: waves of about 4, 8 and 16 pixels."""


def excess(output: Tensor, target: Tensor, bands: tuple[int, ...] = BANDS) -> Tensor:
    """How much more fine structure the luma has than the target's has there; less costs nothing.

    A weave on a smooth wall costs its amplitude, which a perceptual loss forgives, and true texture
    is free as long as it is not louder than the original's. The mean over `bands` of the local
    standard deviation of what a mean over each side takes away. output, target: (N, 3, H, W).
    """
    weights = output.new_tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    both = (torch.cat([output, target]) * weights).sum(1, keepdim=True)
    total = output.new_zeros(())
    for side in bands:
        detail = both - _mean(both, side)
        strength = (_mean(detail.square(), side) + 1e-6).sqrt()
        mine, theirs = strength.chunk(2)
        total = total + F.relu(mine - theirs).mean()
    return total / len(bands)


def hatching(output: Tensor, target: Tensor, low: Tensor, side: int = 15) -> Tensor:
    """Fine structure of the output that the target does not have, where the input is smooth.

    Where an input says nothing, a network that is rewarded for texture draws a weave of its own:
    fainter than the target's grain, so `excess` forgives it, and unlike it. Here the output's
    detail is what a mean over `side` pixels takes away. In every square of that side the part that
    follows the target's detail is subtracted, and the standard deviation of the rest counts, so
    the pull on a faint weave is as strong as on a loud one. Too little detail costs nothing. The
    weight of a place falls from 1 on a flat input to a half where its detail has a standard
    deviation of `SMOOTH`. output, target, low (the input at the output's size): (N, 3, H, W).
    """
    mine, theirs, given = (x - _mean(x, side) for x in (output, target, low))
    own, common = _mean(mine.square(), side), _mean(mine * theirs, side)
    rest = own - common.square() / (_mean(theirs.square(), side) + 1e-9)
    rough = _mean(given.square(), side).mean(1, keepdim=True)
    strength = (rest.clamp(min=0) + 1e-7).sqrt() - 1e-7**0.5
    return (strength * (SMOOTH**2 / (SMOOTH**2 + rough))).mean()


SMOOTH = 3 / 127.5
"""Three 8-bit steps: the standard deviation of detail at which a place is half smooth."""


def colour(output: Tensor, target: Tensor, side: int = 16) -> Tensor:
    """L1 between pictures that a mean over `side` pixels has blurred: colours and brightness hold,
    whatever is done to detail. output, target: (N, 3, H, W)."""
    return F.avg_pool2d(output - target, side, side // 2).abs().mean()


def artifact(output: Tensor, target: Tensor, side: int = 7) -> Tensor:
    """L1, weighted by how much the error varies around a pixel (after LDL, arXiv 2203.09195).

    Invented texture errs in all directions within a few pixels, a blurred or shifted edge does not.
    The weights are the variance of the error's luma over side x side pixels, times the fifth root
    of that of the whole picture; no gradient flows through them. output, target: (N, 3, H, W).
    """
    error = target - output
    with torch.no_grad():
        grey = error.float().mean(1, keepdim=True)
        local = _mean(grey.square(), side) - _mean(grey, side).square()
        whole = grey.var((-3, -2, -1), keepdim=True)
        weights = local.clamp(min=0) * (whole + 1e-12) ** 0.2
    return (weights * error.abs()).mean()


def _mean(x: Tensor, side: int) -> Tensor:
    """The mean over side x side pixels around each, edges repeated. x: (N, C, H, W)."""
    edge = side // 2
    return F.avg_pool2d(F.pad(x, (edge, edge, edge, edge), mode="replicate"), side, stride=1)


def vgg_distance(
    features: VggFeatures,
    output: Tensor,
    target: Tensor,
    layers: tuple[tuple[str, float], ...],
    before_relu: bool,
) -> Tensor:
    """Weighted L1 between VGG-16 feature maps (Johnson et al., 2016, arXiv 1603.08155).

    layers: names and weights. output, target: (N, 3, H, W) in [-1, 1].
    """
    names = [name for name, _ in layers]
    with torch.no_grad():
        wanted = features.taps(target, names, before_relu)
    found = features.taps(output, names, before_relu)
    weights = [weight for _, weight in sorted(layers, key=lambda layer: LAYERS.index(layer[0]))]
    distances = [(f - w).abs().float().mean() for f, w in zip(found, wanted, strict=True)]
    return torch.stack([w * d for w, d in zip(weights, distances, strict=True)]).sum()


def frequency(output: Tensor, target: Tensor) -> Tensor:
    """L1 between the two-dimensional spectra of frames, orthonormal (MIMO-UNet, 2108.05054)."""
    spectrum = torch.fft.rfft2((output - target).float(), norm="ortho")
    return torch.view_as_real(spectrum).abs().mean()


def hinge_generator(scores: Tensor) -> Tensor:
    """What the restorer minimises: judged damaged (hinge GAN, arXiv 1802.05957)."""
    return -scores.float().mean()


def hinge_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """What a discriminator minimises."""
    return F.relu(1 - real.float()).mean() + F.relu(1 + fake.float()).mean()


def feature_matching(fake: list[Tensor], real: list[Tensor]) -> Tensor:
    """L1 between a discriminator's features (pix2pixHD, arXiv 1711.11585)."""
    pairs = zip(fake, real, strict=True)
    return torch.stack([(f - r.detach()).abs().mean() for f, r in pairs]).mean()


def pick(clips: list[Tensor], count: int) -> list[Tensor]:
    """The same frames of each clip, `count` of them. clips: (B, T, 3, S, S); (B * count, 3, S, S)
    each."""
    some = torch.randperm(clips[0].shape[1])[:count].tolist()
    return [clip[:, some].flatten(0, 1) for clip in clips]


def cuts(frames: list[Tensor], side: int) -> list[Tensor]:
    """The same square of each, anywhere; whole pictures if `side` is 0 or no less than theirs."""
    whole = frames[0].shape[-1]
    if not side or side >= whole:
        return frames
    top, left = torch.randint(whole - side + 1, (2,)).tolist()
    return [x[..., top : top + side, left : left + side].contiguous() for x in frames]


def views(frames: list[Tensor]) -> list[Tensor]:
    """What SqueezeNet looks at: the same cut of each.

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
