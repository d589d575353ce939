"""The verb `calibrate-heads`: clips in, a head table with its evidence out.

    clips -> enlarged clips -> measure every head -> rule, bootstrap -> table file

On a CPU all of it runs in float64: then threads and processors do not show in the rounded numbers,
and the same command gives the same file.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from oasis_cli.checkpoints.format import describe, load_model
from oasis_cli.checkpoints.registry import DENSE, find, sha256
from oasis_cli.errors import MediaError, UsageError
from oasis_cli.media.color import frames_to_clip
from oasis_cli.media.input.probe import probe
from oasis_cli.media.input.reader import Reader
from oasis_cli.model.heads.assignment import Rule, assign_heads
from oasis_cli.model.heads.calibration import MIN_FRAMES, measure_heads
from oasis_cli.model.heads.table_file import Document, to_document
from oasis_cli.model.latent import bicubic_upsample
from oasis_cli.pipeline.run import Report
from oasis_cli.runtime.devices import capabilities

LONG_SIDE, SHORT_SIDE = 1280, 720
"""Target pixels: of a larger picture, the middle is looked at."""

SAMPLE_PARTS = 3
"""The bundled sample has three shots of 17 frames."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrateOptions:
    """What to measure on, and how to decide."""

    model: str = DENSE
    also_for: tuple[str, ...] = ()
    """Checkpoints trained from `model` that do not say so: the table will be taken for them too."""
    frames: int = 17
    """Frames of a clip."""
    parts: int = 1
    """Clips taken from each file, one after the other."""
    scale: float = 4.0
    """How much larger the target is than the file."""
    queries: int = 512
    tiles: int = 2
    seed: int = 0
    resamples: int = 1000
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    rule: Rule = field(default_factory=Rule)

    def __post_init__(self) -> None:
        if self.frames < MIN_FRAMES:
            raise UsageError(
                f"clips of {self.frames} frames are too short, {MIN_FRAMES} is the least",
                hint="17 is a good length",
            )
        if self.parts < 1 or self.resamples < 0:
            raise UsageError("take at least one clip from a file, and no negative resamples")
        if not 1 <= self.scale <= 4:
            raise UsageError(f"a scale of {self.scale:g} is not possible", hint="choose 1 to 4")


def sample_clip() -> Path:
    """The sample, in the installed package or in the checkout. Raises UsageError without it."""
    packaged = Path(__file__).parents[1] / "_samples" / "demo.mp4"
    checkout = Path(__file__).parents[3] / "samples" / "demo.mp4"
    path = packaged if packaged.is_file() else checkout
    if not path.is_file():
        raise UsageError(
            "there are no clips to calibrate on, and this installation has no sample",
            hint="name some clips: low-quality ones like those you want to enlarge",
        )
    return path


def calibrate(files: Sequence[Path], options: CalibrateOptions, report: Report) -> Document:
    """Measure `options.model` on clips and decide each head's group. Returns the table document."""
    parts = options.parts
    if not files:
        files, parts = [sample_clip()], max(parts, SAMPLE_PARTS)
        _note(report, "calibrating on the bundled sample; a dozen clips of your own are better")
    about = describe(options.model)
    if any(set(groups) != {"g"} for groups in about["heads"]["layers"]):
        _note(
            report,
            f"{about['name']} was trained with routed heads: measured as if all were global, they "
            "say little; calibrate a dense checkpoint",
        )
    others = [
        {"name": describe(name)["name"], "sha256": sha256(find(name))} for name in options.also_for
    ]
    exact = capabilities(options.device).host
    kind = torch.float64 if exact else torch.bfloat16
    model = load_model(options.model, device=options.device, dtype=kind)
    found = [clip for file in files for clip in clips_of(file, options, parts)]
    clips, origins = [clip for clip, _ in found], [origin for _, origin in found]
    _note(report, f"measuring {_count(len(clips), 'clip')} of {about['name']}'s heads")
    with torch.inference_mode():
        statistics = measure_heads(
            model,
            [clip if exact else clip.float() for clip in clips],
            queries=options.queries,
            seed=options.seed,
            tiles=options.tiles,
        )
    decision = assign_heads(
        statistics, options.rule, resamples=options.resamples, seed=options.seed
    )
    document = to_document(
        statistics,
        decision,
        options.rule,
        model={"name": about["name"], "sha256": sha256(find(options.model))},
        config=model.config,
        clips=origins,
        settings={
            "also_for": others,
            "tiles_per_clip": options.tiles,
            "seed": options.seed,
            "resamples": options.resamples,
            "dtype": "float64" if exact else "bf16 forward, fp32 statistics",
        },
    )
    if decision.spent > options.rule.budget and options.rule.name == "budget":
        _note(
            report,
            f"unstable heads became more global: the table costs {decision.spent:.0%} of "
            f"all-global attention, not {options.rule.budget:.0%}; more clips make it cheaper",
        )
    if len(clips) < 4:
        _note(report, f"{_count(len(clips), 'clip')}: the stability figures mean little")
    return document


def clips_of(
    file: Path, options: CalibrateOptions, parts: int
) -> Iterator[tuple[Tensor, dict[str, Any]]]:
    """The enlarged clips (F, 3, H, W) float64 in [-1, 1] from one file, and where they are from."""
    video = read(file, options.frames * parts)
    if len(video) < MIN_FRAMES:
        raise UsageError(
            f"{file} has {len(video)} frames; calibration needs {MIN_FRAMES}",
            hint="with fewer, intra-frame and global attention are the same",
        )
    digest = sha256(file)
    for first in range(0, len(video), options.frames):
        some = video[first : first + options.frames]
        if len(some) < MIN_FRAMES:
            break
        low = crop_middle(some.double(), options.scale)
        size = tuple(max(16, round(side * options.scale)) for side in low.shape[-2:])
        yield (
            bicubic_upsample(low[None], (size[0], size[1]))[0],
            {
                "id": file.name,
                "sha256": digest,
                "first_frame": first,
                "frames": len(some),
                "size": [size[1], size[0]],
            },
        )


def read(file: Path, most: int) -> Tensor:
    """The first frames of a video, (F, 3, h, w) float32 RGB in [-1, 1]."""
    with Reader(probe(file)) as reader:
        frames = list(islice(reader, most))
        if not frames:
            raise MediaError(f"not one frame of {file} can be read")
        return frames_to_clip(frames, reader.spec)


def crop_middle(low: Tensor, scale: float) -> Tensor:
    """The middle of pictures (F, 3, h, w) that are larger than 1280x720 after enlarging."""
    height, width = low.shape[-2:]
    long, short = (math.floor(side / scale) for side in (LONG_SIDE, SHORT_SIDE))
    rows, cols = (short, long) if width >= height else (long, short)
    rows, cols = min(rows, height), min(cols, width)
    top, left = (height - rows) // 2, (width - cols) // 2
    return low[..., top : top + rows, left : left + cols]


def _note(report: Report, text: str) -> None:
    report({"event": "note", "text": text})


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
