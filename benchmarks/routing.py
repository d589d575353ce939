"""What a head table does to a dense network that is not trained again: quality, cost and time.

    python benchmarks/routing.py PAIRS CLIP... [--model NAME|PATH] [--json out.json]

PAIRS is a folder of NAME.lr.mkv and NAME.hr.mkv, CLIP are low-quality clips to calibrate on. Tables
are made for several budgets, rules and window sizes. Printed for each: Y-PSNR against the sharp
clips (dB, 8 pixels cut off), PSNR of the change to the dense network's output, the share of
attention FLOPs, and processor seconds (over all threads, so that other work on the machine counts
little) of the transformer on a full tile of 5 x 32 x 32 tokens, best of 2.

Training repairs much of the damage, so this shows what a table takes away, not what is left of it
after training.
"""

import argparse
import json
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from oasis_cli.checkpoints.format import load_model
from oasis_cli.checkpoints.registry import DENSE
from oasis_cli.errors import OasisError, UsageError
from oasis_cli.evaluation.calibrate import CalibrateOptions, clips_of, read
from oasis_cli.evaluation.metrics.pixels import crop, psnr, psnr_luma
from oasis_cli.model.attention import Grid
from oasis_cli.model.heads.assignment import Rule, assign_heads
from oasis_cli.model.heads.calibration import HeadStatistics, measure_heads
from oasis_cli.model.heads.routing import HeadTable
from oasis_cli.model.oasis import Oasis

TILE: Grid = (5, 32, 32)
BORDER = 8
WINDOWS: tuple[Grid, ...] = ((1, 3, 3), (3, 3, 3), (3, 5, 5), (3, 7, 7), (5, 5, 5))
USUAL: Grid = (3, 5, 5)


@dataclass(frozen=True, slots=True)
class Variant:
    """A table to try."""

    name: str
    rule: Rule | None
    """None: dense."""
    window: Grid = USUAL


def variants() -> list[Variant]:
    """Dense first; then budgets, rules, windows."""
    return [
        Variant("dense", None),
        *(Variant(f"budget {share:.0%}", Rule(budget=share)) for share in (0.5, 0.35)),
        Variant("budget 20%, no global floor", Rule(budget=0.2, min_global=0)),
        *(Variant(name, Rule(name=name)) for name in ("threshold", "argmin", "proportion")),
        *(
            Variant(f"budget 35 %, window {'x'.join(map(str, window))}", Rule(), window)
            for window in WINDOWS
            if window != USUAL
        ),
    ]


def with_window(model: Oasis, window: Grid) -> Oasis:
    """The same dense network whose window heads would see another window."""
    config = replace(model.config, dit=replace(model.config.dit, window=window))
    state = {name: tensor.clone() for name, tensor in model.checkpoint_state().items()}
    table = HeadTable.dense(config.dit.layers, config.dit.heads)
    return Oasis.from_checkpoint(config, state, table).eval().requires_grad_(False)


def seconds_of_transformer(model: Oasis) -> float:
    """One full tile, best of 2."""
    side = 2 * TILE[1]
    latent = torch.zeros(1, model.config.dit.latent_channels, TILE[0], side, side)
    model.dit(latent)
    best = float("inf")
    for _ in range(2):
        start = time.process_time()
        model.dit(latent)
        best = min(best, time.process_time() - start)
    return best


def pairs_of(folder: Path) -> list[tuple[Tensor, Tensor]]:
    """(low, high) clips, (F, 3, h, w) and (F, 3, H, W)."""
    names = sorted(folder.glob("*.lr.mkv"))
    if not names:
        raise UsageError(f"{folder} has no NAME.lr.mkv")
    return [
        (read(low, 99), read(low.with_name(low.name.replace(".lr.", ".hr.")), 99)) for low in names
    ]


def outputs(model: Oasis, pairs: list[tuple[Tensor, Tensor]]) -> list[Tensor]:
    """What the network makes of each low clip, 8-pixel border cut off."""
    made = []
    for low, high in pairs:
        size = (high.shape[-2], high.shape[-1])
        made.append(crop(model(low[None], size)[0].clamp(-1, 1), BORDER))
    return made


def measured(
    model: Oasis, clips: list[Tensor], pairs: list[tuple[Tensor, Tensor]]
) -> list[dict[str, Any]]:
    """Every variant."""
    statistics: dict[Grid, HeadStatistics] = {}
    rows: list[dict[str, Any]] = []
    dense: list[Tensor] = []
    sharp = [crop(high, BORDER) for _, high in pairs]
    for variant in variants():
        network = with_window(model, variant.window)
        row: dict[str, Any] = {"table": variant.name, "g/i/w": "", "flop": 1.0}
        if variant.rule:
            if variant.window not in statistics:
                statistics[variant.window] = measure_heads(network, clips)
            decision = assign_heads(statistics[variant.window], variant.rule, grid=TILE)
            network.dit.route(decision.table)
            row["flop"] = round(decision.spent, 3)
        letters = "".join(network.dit.table.layers)
        row["g/i/w"] = "/".join(str(letters.count(letter)) for letter in "giw")
        made = outputs(network, pairs)
        dense = dense or made
        row["psnr_y"] = _mean(psnr_luma, made, sharp)
        row["psnr_to_dense"] = _mean(psnr, made, dense) if variant.rule else "inf"
        row["seconds"] = round(seconds_of_transformer(network), 2)
        rows.append(row)
        if len(rows) == 1:
            print("| " + " | ".join(row) + " |\n|" + " --- |" * len(row))
        print("| " + " | ".join(map(str, row.values())) + " |", flush=True)
    return rows


def _mean(score: Any, made: list[Tensor], wanted: list[Tensor]) -> float:
    values = [score(a, b).mean() for a, b in zip(made, wanted, strict=True)]
    return round(float(torch.stack(values).mean()), 3)


def main() -> None:
    """Try every table and print what it costs."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("pairs", type=Path)
    parser.add_argument("clips", nargs="+", type=Path)
    parser.add_argument("--model", default=DENSE)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    model = load_model(arguments.model)
    if not model.dit.table.is_dense:
        raise UsageError(f"{arguments.model} is routed; this needs a dense checkpoint")
    options = CalibrateOptions(model=arguments.model)
    with torch.inference_mode():
        files = arguments.clips
        clips = [clip.float() for file in files for clip, _ in clips_of(file, options, 1)]
        rows = measured(model, clips, pairs_of(arguments.pairs))
    if arguments.json:
        about = {"model": arguments.model, "clips": [file.name for file in files]}
        arguments.json.write_text(json.dumps(about | {"rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    try:
        main()
    except OasisError as error:
        sys.exit(f"error: {error}")
