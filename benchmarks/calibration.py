"""Is the head table stable? Measures a dense checkpoint under many conditions and compares.

    python benchmarks/calibration.py CLEAN... [--model NAME|PATH] [--count 8] [--json out.json]

CLEAN are sharp clips of one scene and 33 frames or more, 2 * count of them. The first half is the
reference set, the second half the other set. Every clip is made small and damaged by this script,
then enlarged four times, as `oasis calibrate-heads` would see a low-quality video. Each condition
changes one thing. Printed for each: rank correlation of the KLs with the reference (Spearman, over
all heads), the share of heads in the same group, and what the table costs.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from oasis_cli.checkpoints.format import load_model
from oasis_cli.checkpoints.registry import DENSE
from oasis_cli.cli.heads import parse_proportion
from oasis_cli.errors import OasisError, UsageError
from oasis_cli.evaluation.calibrate import read
from oasis_cli.media.training import Compression, compress
from oasis_cli.model.heads.assignment import Assignment, Rule, assign_heads
from oasis_cli.model.heads.calibration import HeadStatistics, measure_heads
from oasis_cli.model.latent import bicubic_upsample
from oasis_cli.model.oasis import Oasis

SCALE = 4
HEIGHTS = {360: (640, 360), 720: (1280, 720), 1080: (1920, 1080)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """How clips are prepared and looked at."""

    name: str
    height: int = 720
    frames: int = 17
    damage: str = "codec"
    other_clips: bool = False
    seed: int = 0


def conditions() -> list[Condition]:
    """The reference first; each of the others changes one thing."""
    reference = Condition(name="reference")
    return [
        reference,
        replace(reference, name="other tokens", seed=1),
        replace(reference, name="other clips", other_clips=True),
        *(replace(reference, name=f"{h}p", height=h) for h in HEIGHTS if h != 720),
        *(replace(reference, name=f"{n} frames", frames=n) for n in (5, 9, 33)),
        *(replace(reference, name=f"damage: {name}", damage=name) for name in DAMAGES
          if name != "codec"),
    ]  # fmt: skip


def blurred(low: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of every frame."""
    radius = 4
    x = torch.arange(-radius, radius + 1.0)
    line = (-x.square() / (2 * sigma * sigma)).exp()
    kernel = (line[:, None] * line / line.sum() ** 2).expand(3, 1, -1, -1)
    return F.conv2d(F.pad(low, (radius,) * 4, mode="replicate"), kernel, groups=3)


def noisy(low: Tensor, levels: Tensor) -> Tensor:
    """Gaussian noise; levels: (F, 1, 1, 1), standard deviations in 8-bit steps."""
    draw = torch.Generator().manual_seed(low.shape[0])
    return low + torch.randn(low.shape, generator=draw) * levels / 127.5


def coded(low: Tensor, bits: float) -> Tensor:
    """H.264 and back at `bits` a pixel."""
    pictures = ((low.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1)
    out = compress(np.ascontiguousarray(pictures), Compression("libx264", bits))
    return torch.from_numpy(out).permute(0, 3, 1, 2).float() / 127.5 - 1


def varying(low: Tensor) -> Tensor:
    """Noise and blur that change from frame to frame."""
    steps = torch.arange(len(low))
    sharp = noisy(low, 4.0 + 12.0 * (steps % 3 == 0).float().view(-1, 1, 1, 1))
    soft = blurred(sharp, 1.2)
    return torch.where((steps % 2 == 0).view(-1, 1, 1, 1), sharp, soft)


DAMAGES: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda low: low,
    "blur": lambda low: blurred(low, 1.5),
    "noise": lambda low: noisy(low, torch.tensor(12.0)),
    "codec": lambda low: coded(blurred(low, 0.7), 0.08),
    "hard codec": lambda low: coded(blurred(low, 0.7), 0.02),
    "all": lambda low: coded(noisy(blurred(low, 1.0), torch.tensor(6.0)), 0.05),
    "varying by frame": varying,
}


def clip_of(file: Path, condition: Condition) -> Tensor:
    """A low-quality clip, already enlarged: (F, 3, H, W)."""
    width, height = HEIGHTS[condition.height]
    clean = read(file, condition.frames)
    if len(clean) < condition.frames:
        raise UsageError(f"{file} has {len(clean)} frames, {condition.frames} are needed")
    if clean.shape[-1] < clean.shape[-2]:
        clean = clean.transpose(-1, -2)
    small = (height // SCALE, width // SCALE)
    low = F.interpolate(clean, size=small, mode="bicubic", antialias=True)
    return bicubic_upsample(DAMAGES[condition.damage](low)[None], (height, width))[0]


def measure(model: Oasis, files: list[Path], condition: Condition, tiles: int) -> HeadStatistics:
    """All clips of a condition, one in memory at a time."""
    parts = [
        measure_heads(
            model, [clip_of(file, condition)], seed=1000 * condition.seed + number, tiles=tiles
        )
        for number, file in enumerate(files)
    ]
    return replace(
        parts[0],
        kl=torch.cat([part.kl for part in parts], 1),
        error=torch.cat([part.error for part in parts], 1),
        norm=torch.cat([part.norm for part in parts]),
    )


def spearman(a: Tensor, b: Tensor) -> float:
    """Rank correlation of two sets of numbers."""
    ranks = torch.stack([x.flatten().argsort().argsort().double() for x in (a, b)])
    return float(torch.corrcoef(ranks)[0, 1])


def agreement(a: tuple[str, ...], b: tuple[str, ...]) -> float:
    """Share of heads in the same group."""
    pairs = list(zip("".join(a), "".join(b), strict=True))
    return sum(x == y for x, y in pairs) / len(pairs)


def compare(
    statistics: HeadStatistics, decision: Assignment, reference: tuple[HeadStatistics, Assignment]
) -> dict[str, Any]:
    """A condition beside the reference."""
    kl, other = statistics.mean_kl, reference[0].mean_kl
    letters = "".join(decision.table.layers)
    return {
        "grid": "x".join(map(str, statistics.grid)),
        "rho_intra": round(spearman(kl[0], other[0]), 3),
        "rho_window": round(spearman(kl[1], other[1]), 3),
        "same_by_rule": round(agreement(decision.first.layers, reference[1].first.layers), 3),
        "same_in_table": round(agreement(decision.table.layers, reference[1].table.layers), 3),
        "stable": round(decision.stable, 3),
        "cost": round(decision.spent, 3),
        "g/i/w": "/".join(str(letters.count(letter)) for letter in "giw"),
    }


def main() -> None:
    """Measure every condition and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("clean", nargs="+", type=Path)
    parser.add_argument("--model", default=DENSE)
    parser.add_argument("--count", type=int, default=8, help="clips of a set")
    parser.add_argument("--tiles", type=int, default=2, help="transformer tiles of a clip")
    parser.add_argument("--budget", type=float, default=0.35)
    parser.add_argument("--proportion", help="g,i,w of a layer, such as 1,1,2, and no budget")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if len(arguments.clean) < 2 * arguments.count:
        raise UsageError(f"{len(arguments.clean)} clips, {2 * arguments.count} are needed")
    model = load_model(arguments.model)
    halves = arguments.clean[: arguments.count], arguments.clean[arguments.count :]
    rule = Rule(budget=arguments.budget)
    if arguments.proportion:
        rule = Rule(name="proportion", proportion=parse_proportion(arguments.proportion))
    rows: list[dict[str, Any]] = []
    reference: tuple[HeadStatistics, Assignment] | None = None
    for condition in conditions():
        start = time.perf_counter()
        files = halves[condition.other_clips][: arguments.count]
        with torch.inference_mode():
            statistics = measure(model, files, condition, arguments.tiles)
        # The length differs between conditions: price heads where the reference does.
        grid = reference[0].cost_grid if reference else None
        decision = assign_heads(statistics, rule, grid=grid)
        reference = reference or (statistics, decision)
        row = {"condition": condition.name} | compare(statistics, decision, reference)
        rows.append(row | {"seconds": round(time.perf_counter() - start, 1)})
        if len(rows) == 1:
            print("| " + " | ".join(row) + " |\n|" + " --- |" * len(row))
        print("| " + " | ".join(map(str, row.values())) + " |", flush=True)
    if arguments.json:
        about = {"model": arguments.model, "rule": str(rule), "clips": arguments.count}
        arguments.json.write_text(json.dumps(about | {"rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    try:
        main()
    except OasisError as error:
        sys.exit(f"error: {error}")
