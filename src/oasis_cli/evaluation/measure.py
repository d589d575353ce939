"""Verb: score a video against the video it should look like.

Frames of both are read side by side; memory is a few frames, whatever the length.
"""

import csv
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from oasis_cli.errors import OasisError, UsageError
from oasis_cli.evaluation.align import Shift, cut, find_shift, kept, together
from oasis_cli.evaluation.metrics import flicker, flow, hatching, pixels
from oasis_cli.evaluation.metrics.perceptual import SqueezeLpips
from oasis_cli.pipeline.clips import Clip, lockstep

ABOUT = {
    "psnr": "PSNR over R, G and B, dB; higher is better",
    "psnr_y": "PSNR of the BT.601 luma, dB; higher is better",
    "ssim": "SSIM of the luma (Gaussian window 11, sigma 1.5, valid pixels); higher is better",
    "ms_ssim": "MS-SSIM of the luma, five scales; higher is better",
    "ssim_rgb": "SSIM, mean of R, G and B; higher is better",
    "ms_ssim_rgb": "MS-SSIM, mean of R, G and B; higher is better",
    "temporal": "temporal error: mean |change of output - change of reference|, 8-bit steps",
    "warp": "E*_warp of the output, x1000 (Farneback motion, half size); lower is steadier",
    "change": "mean change from the frame before, 8-bit steps; flicker raises it",
    "warp_ref": "E*_warp of the reference itself, for comparison",
    "sharpness": "mean gradient of the output's luma, 8-bit steps a pixel; noise raises it",
    "blockiness": "steps on a grid over steps elsewhere, in the output; 1 is no grid",
    "flicker": "change that the reference, or the input, does not explain, 8-bit steps",
    "hatching": "regular patterns on smooth places, over the reference's or input's; 1 is none",
    "lpips_squeeze": "LPIPS on SqueezeNet features; lower is better",
}
"""Every score that needs nothing installed, and what it means."""

EXTRA = {
    "lpips": "lpips",
    "dists": "dists",
    "clipiqa": "clipiqa",
    "niqe": "niqe",
    "musiq": "musiq",
}
"""Scores through pyiqa: our name -> pyiqa's."""
NEED_REFERENCE = ("lpips", "dists")
"""Those of EXTRA that compare; the others look at the output alone."""

PAIRWISE = ("temporal", "warp", "warp_ref", "change", "flicker")
"""Scores of a frame and the one before it: frame 0 has none."""
ON_REQUEST = ("sharpness", "blockiness", "change", "flicker", "hatching")
"""Scores of the output's looks, measured when they are named."""

Score = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What must be the same for numbers to be comparable."""

    border: int = 0
    """Pixels left out on each side."""
    align: bool = False
    """Take out a shift of the output in space and time."""
    rgb: bool = False
    """SSIM over R, G and B instead of the luma."""
    matlab: bool = False
    """The luma in 8 bits, rounded, with its offset of 16."""
    only: tuple[str, ...] = ()
    """Names from ABOUT; all when empty. `ssim` stands for `ssim_rgb` too."""

    def __post_init__(self) -> None:
        if unknown := [name for name in self.only if name not in ABOUT]:
            raise UsageError(
                f"there is no score called {unknown[0]!r}", hint=f"known: {', '.join(ABOUT)}"
            )

    def wants(self, name: str, extra: Sequence[str] = ()) -> bool:
        """Whether a score is asked for; `extra` comes on top."""
        if name in extra:
            return True
        if not self.only:
            return name not in ON_REQUEST
        return bool({name, name.removesuffix("_rgb")} & {*self.only})


RULES = Rules()


@dataclass(frozen=True, slots=True)
class Scores:
    """The scores of every frame."""

    output: str
    reference: str
    """Empty for scores of the output's looks."""
    columns: dict[str, list[float]] = field(default_factory=dict)
    """For each score its value at every frame; nan where a frame has none."""
    notes: tuple[str, ...] = ()
    shift: Shift | None = None
    """Where the output lies; None when that could not be told."""
    aligned: bool = False
    """Whether the shift was taken out."""
    source: str = ""
    """What the output was made from, when that was asked for instead of a reference."""

    @property
    def frames(self) -> int:
        """How many frames were scored."""
        return len(next(iter(self.columns.values()), []))

    def means(self) -> dict[str, float]:
        """Mean of each score over the frames that have it."""
        out = {}
        for name, values in self.columns.items():
            real = [v for v in values if not math.isnan(v)]
            out[name] = sum(real) / len(real) if real else math.nan
        return out

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; nan becomes null."""

        def plain(value: float) -> float | None:
            return None if math.isnan(value) else value

        return {
            "output": self.output,
            "reference": self.reference or None,
            "input": self.source or None,
            "frames": self.frames,
            "mean": {name: plain(value) for name, value in self.means().items()},
            "shift": self.shift.to_dict() if self.shift is not None else None,
            "aligned": self.aligned,
            "per_frame": {k: [plain(v) for v in values] for k, values in self.columns.items()},
            "notes": list(self.notes),
        }

    def to_csv(self) -> str:
        """A header, a line for each frame and a line of means; empty where a frame has no score."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["frame", *self.columns])
        rows = zip(*self.columns.values(), strict=True)
        for label, row in [*enumerate(rows), ("mean", self.means().values())]:
            writer.writerow([label, *("" if math.isnan(v) else f"{v:.6g}" for v in row)])
        return text.getvalue()


def measure(
    output: Clip,
    reference: Clip,
    rules: Rules = RULES,
    *,
    perceptual: Path | None = None,
    extra: Sequence[str] = (),
    progress: Callable[[int], None] = lambda frames: None,
) -> Scores:
    """Score `output` against `reference`, frame by frame.

    perceptual: a file of SqueezeNet features for `lpips_squeeze`. extra: names from ON_REQUEST, and
    from EXTRA, which need pyiqa. Raises UsageError when sizes differ and OasisError when frame
    counts differ; with `align` they may differ by up to three.
    """
    check_sizes(output, reference, rules.border)
    found = find_shift(output, reference)
    applied = found if rules.align and found is not None else Shift()
    size = _compared(output.size, applied, rules.border)
    singles, notes = _single_scores(size, rules, perceptual, extra)
    chosen = [*singles, *(name for name in PAIRWISE if rules.wants(name, extra))]
    if not chosen:
        raise UsageError(
            f"{', '.join(rules.only)} cannot be measured here",
            hint="lpips_squeeze needs --perceptual, MS-SSIM 161 pixels on each side",
        )
    columns: dict[str, list[float]] = {name: [] for name in chosen}
    last: tuple[Tensor, Tensor] | None = None
    alone: list[int] = []
    pairs = (
        together(output, reference, applied.frames, alone)
        if rules.align
        else lockstep([output, reference], strict=True)
    )
    count = 0
    with torch.inference_mode():
        # One frame at a time: larger batches are slower, their buffers are mapped anew each time.
        for out, ref in pairs:
            a, b = cut(out[None], ref[None], applied, rules.border)
            for name, score in singles.items():
                columns[name] += score(a, b).tolist()
            for name, value in _pair_scores(last, (a, b), chosen).items():
                columns[name].append(value)
            last = a, b
            count += 1
            progress(count)
    if not count:
        raise OasisError(f"{output.name} and {reference.name} have no frames")
    notes += _about_shift(found, rules.align, sum(alone))
    return Scores(output.name, reference.name, columns, notes, found, bool(applied))


def check_sizes(output: Clip, reference: Clip, border: int) -> None:
    """Raise UsageError when two clips cannot be compared."""
    if output.size != reference.size:
        raise UsageError(
            f"{output.name} is {_size(output)}, {reference.name} is {_size(reference)}",
            hint="a reference has the size of the output; enlarge or shrink one of them first",
        )
    if min(output.size) - 2 * border < pixels.WINDOW:
        raise UsageError(
            f"a border of {border} pixels leaves too little of {_size(output)}",
            hint="choose a smaller --border",
        )


def _compared(size: tuple[int, int], applied: Shift, border: int) -> tuple[int, int]:
    """(width, height) of what is left when a shift is taken out."""
    spans = [kept(n, by, border) for n, by in zip(size, (applied.x, applied.y), strict=True)]
    width, height = (last - first for first, last in spans)
    if min(width, height) < pixels.WINDOW:
        raise OasisError(f"a shift of {applied} leaves too little", hint="score without --align")
    return width, height


def _about_shift(found: Shift | None, align: bool, alone: int) -> tuple[str, ...]:
    """What to say about a shift."""
    if found is None:
        return ("a shift cannot be told: too small, too flat or too different",) if align else ()
    if not align:
        hint = "--align takes that out"
        return (f"the output is off by {found}: {hint}",) if found else ()
    lost = f"; {alone} frames have no partner" if alone else ""
    return (f"taken out: {found}{lost}",) if found or alone else ()


def _size(clip: Clip) -> str:
    return f"{clip.size[0]}x{clip.size[1]}"


def _pair_scores(
    last: tuple[Tensor, Tensor] | None, now: tuple[Tensor, Tensor], chosen: Sequence[str]
) -> dict[str, float]:
    """The chosen scores of PAIRWISE, for output, reference and the frames before."""
    names = [name for name in PAIRWISE if name in chosen]
    if last is None:
        return dict.fromkeys(names, math.nan)
    a, b = (torch.cat(pair) for pair in zip(last, now, strict=True))
    scores = {
        "temporal": lambda: pixels.temporal_error(a, b),
        "warp": lambda: flow.warping_error(a),
        "warp_ref": lambda: flow.warping_error(b),
        "change": lambda: pixels.temporal_change(a),
        "flicker": lambda: flicker.flicker(a, b),
    }
    return {name: scores[name]().item() for name in names}


def _single_scores(
    size: tuple[int, int], rules: Rules, perceptual: Path | None, extra: Sequence[str]
) -> tuple[dict[str, Score], tuple[str, ...]]:
    """The scores that need one frame, by name, and what had to be left out."""
    y = pixels.matlab_luma if rules.matlab else pixels.luma
    planes, mark = (pixels.unit, "_rgb") if rules.rgb else (y, "")
    scores: dict[str, Score] = {
        "psnr": pixels.psnr,
        "psnr_y": partial(pixels.psnr, planes=y),
        f"ssim{mark}": partial(pixels.ssim, planes=planes),
        f"ms_ssim{mark}": partial(pixels.ms_ssim, planes=planes),
        "sharpness": lambda a, b: pixels.sharpness(a),
        "blockiness": lambda a, b: pixels.blockiness(a),
        "hatching": _hatching,
    }
    notes = []
    scores = {name: score for name, score in scores.items() if rules.wants(name, extra)}
    if min(size) < pixels.SMALLEST_MS_SSIM and scores.pop(f"ms_ssim{mark}", None):
        notes.append(f"no MS-SSIM: it needs {pixels.SMALLEST_MS_SSIM} pixels on each side")
    if perceptual is not None:
        try:
            scores["lpips_squeeze"] = SqueezeLpips(perceptual)
        except ValueError as error:
            raise OasisError(
                str(error), hint="--perceptual takes a .safetensors file of SqueezeNet features"
            ) from error
    for name in extra:
        if name not in ON_REQUEST:
            scores[name] = pyiqa_score(name)
    return scores, tuple(notes)


def _hatching(a: Tensor, b: Tensor) -> Tensor:
    return torch.tensor([hatching.hatching(a, b, hatching.FEWEST_IN_FRAME)[0]])


def pyiqa_score(name: str) -> Score:
    """A score of pyiqa's, which may download weights the first time."""
    if name not in EXTRA:
        known = ", ".join((*EXTRA, *ON_REQUEST))
        raise UsageError(f"there is no score called {name!r}", hint=f"known: {known}")
    try:
        import pyiqa
    except ImportError as error:
        raise OasisError(
            f"{name} needs pyiqa, which is not installed",
            hint="pip install 'oasis-cli[metrics]'",
        ) from error
    metric = pyiqa.create_metric(EXTRA[name], device="cpu")
    with_reference = getattr(metric, "metric_mode", "FR") == "FR"

    def score(a: Tensor, b: Tensor) -> Tensor:
        # pyiqa wants [0, 1]; scores without a reference look at the output alone.
        units = [((x + 1) / 2).clamp(0, 1) for x in ((a, b) if with_reference else (a,))]
        return torch.stack([metric(*(u[n : n + 1] for u in units)).mean() for n in range(len(a))])

    return score


def check_plot(path: Path) -> None:
    """Refuse a plot that could not be drawn, before any work is done."""
    if find_spec("matplotlib") is None:
        raise OasisError(
            "--plot needs matplotlib, which is not installed", hint="pip install 'oasis-cli[plot]'"
        )
    if path.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise UsageError(f"{path} is no picture", hint="name the plot .png, .svg or .pdf")
    if not path.parent.is_dir():
        raise UsageError(f"the folder {path.parent} does not exist", hint=f"mkdir -p {path.parent}")


def plot(scores: Scores, path: Path) -> None:
    """Draw every score over the frames. Raises OasisError when the file cannot be written."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names, means = list(scores.columns), scores.means()
    figure, axes = pyplot.subplots(
        len(names), 1, figsize=(9, 1.7 * len(names)), sharex=True, squeeze=False
    )
    for name, axis in zip(names, axes[:, 0], strict=True):
        axis.plot(scores.columns[name], marker="." if scores.frames < 60 else "", linewidth=1)
        axis.axhline(means[name], linewidth=0.7, linestyle="--", color="grey")
        axis.set_title(f"{name}: mean {means[name]:.4g}", fontsize=9, loc="left")
    axes[-1, 0].set_xlabel("frame")
    figure.tight_layout()
    try:
        figure.savefig(path, dpi=110)
    except OSError as error:
        raise OasisError(f"{path} cannot be written: {error.strerror}") from error
    finally:
        pyplot.close(figure)
