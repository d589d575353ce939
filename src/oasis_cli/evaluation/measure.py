"""Verb: score a video against the video it should look like.

Frames of both are read side by side; memory is a few frames, whatever the length.
"""

import csv
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from oasis_cli.errors import OasisError, UsageError
from oasis_cli.evaluation.metrics import flow, pixels
from oasis_cli.evaluation.metrics.perceptual import SqueezeLpips
from oasis_cli.pipeline.clips import Clip, lockstep

ABOUT = {
    "psnr": "PSNR over R, G and B, dB; higher is better",
    "psnr_y": "PSNR of the BT.601 luma, dB; higher is better",
    "ssim": "SSIM of the luma (Gaussian window 11, sigma 1.5, valid pixels); higher is better",
    "ms_ssim": "MS-SSIM of the luma, five scales; higher is better",
    "temporal": "temporal error: mean |change of output - change of reference|, 8-bit steps",
    "warp": "E*_warp of the output, x1000 (Farneback motion, half size); lower is steadier",
    "warp_ref": "E*_warp of the reference itself, for comparison",
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

PAIRWISE = ("temporal", "warp", "warp_ref")
"""Scores of a frame and the one before it: frame 0 has none."""

Score = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Scores:
    """The scores of every frame."""

    output: str
    reference: str
    columns: dict[str, list[float]] = field(default_factory=dict)
    """For each score its value at every frame; nan where a frame has none."""
    notes: tuple[str, ...] = ()

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
            "reference": self.reference,
            "frames": self.frames,
            "mean": {name: plain(value) for name, value in self.means().items()},
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
    *,
    border: int = 0,
    perceptual: Path | None = None,
    extra: Sequence[str] = (),
    progress: Callable[[int], None] = lambda frames: None,
) -> Scores:
    """Score `output` against `reference`, frame by frame.

    border: pixels left out on each side. perceptual: a file of SqueezeNet features for
    `lpips_squeeze`. extra: names from EXTRA, which need pyiqa. Raises UsageError when sizes differ
    and OasisError when frame counts differ.
    """
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
    singles, notes = _single_scores(output.size, border, perceptual, extra)
    columns: dict[str, list[float]] = {name: [] for name in (*singles, *PAIRWISE)}
    last: tuple[Tensor, Tensor] | None = None
    with torch.inference_mode():
        # One frame at a time: larger batches are slower, their buffers are mapped anew each time.
        for pair in lockstep([output, reference], strict=True):
            a, b = (pixels.crop(frame[None], border) for frame in pair)
            for name, score in singles.items():
                columns[name] += score(a, b).tolist()
            for name, value in _pair_scores(last, (a, b)).items():
                columns[name].append(value)
            last = a, b
            progress(len(columns["psnr"]))
    if not columns["psnr"]:
        raise OasisError(f"{output.name} and {reference.name} have no frames")
    return Scores(output.name, reference.name, columns, notes)


def _size(clip: Clip) -> str:
    return f"{clip.size[0]}x{clip.size[1]}"


def _pair_scores(
    last: tuple[Tensor, Tensor] | None, now: tuple[Tensor, Tensor]
) -> dict[str, float]:
    """PAIRWISE for the frames of output and reference and those before them."""
    if last is None:
        return dict.fromkeys(PAIRWISE, math.nan)
    a, b = (torch.cat(pair) for pair in zip(last, now, strict=True))
    return {
        "temporal": pixels.temporal_error(a, b).item(),
        "warp": flow.warping_error(a).item(),
        "warp_ref": flow.warping_error(b).item(),
    }


def _single_scores(
    size: tuple[int, int], border: int, perceptual: Path | None, extra: Sequence[str]
) -> tuple[dict[str, Score], tuple[str, ...]]:
    """The scores that need one frame, by name, and what had to be left out."""
    scores: dict[str, Score] = {
        "psnr": pixels.psnr,
        "psnr_y": pixels.psnr_luma,
        "ssim": pixels.ssim,
        "ms_ssim": pixels.ms_ssim,
    }
    notes = []
    if min(size) - 2 * border < pixels.SMALLEST_MS_SSIM:
        del scores["ms_ssim"]
        notes.append(f"no MS-SSIM: it needs {pixels.SMALLEST_MS_SSIM} pixels on each side")
    if perceptual is not None:
        try:
            scores["lpips_squeeze"] = SqueezeLpips(perceptual)
        except ValueError as error:
            raise OasisError(
                str(error), hint="--perceptual takes a .safetensors file of SqueezeNet features"
            ) from error
    for name in extra:
        scores[name] = _pyiqa_score(name)
    return scores, tuple(notes)


def _pyiqa_score(name: str) -> Score:
    """A score of pyiqa's, which may download weights the first time."""
    if name not in EXTRA:
        raise UsageError(f"there is no score called {name!r}", hint=f"known: {', '.join(EXTRA)}")
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
