"""Training steps at the paper's size on one device: does the loss fall, how long, how much memory?

    python benchmarks/paper_step.py [--device cuda] [--steps 20] [--toy] [--json out.json]

The preset's own path with random weights: ridge start, calibration, then steps on one batch over
and over, with latent and pixel losses through the frozen decoder. --toy is the same at toy size.
"""

import argparse
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from oasis_cli.media.pictures import encode_picture
from oasis_cli.model.decoders.wan import WanVAE, WanVAEConfig
from oasis_cli.model.dit import DiTConfig
from oasis_cli.model.heads.assignment import Rule
from oasis_cli.model.oasis import OasisConfig
from oasis_cli.train.loop import Trainer
from oasis_cli.train.options import RunOptions
from oasis_cli.train.presets import PRESETS, LossWeights, Stage, TrainConfig


def config(toy: bool) -> TrainConfig:
    """The preset with one stage of all losses that need no features file."""
    paper = PRESETS["paper"]
    losses = LossWeights(latent=0.5)
    rate = 3e-4 if toy else 1e-4
    stages = (Stage(name="all", share=1.0, rate=(rate, rate), losses=losses),)
    paper = replace(paper, stages=stages, warm_up=5, data=replace(paper.data, pool=16))
    if not toy:
        return paper
    dit = DiTConfig(
        width=48, layers=2, heads=4, ffn=64, latent_channels=16, context_rows=512, gate=0.0
    )
    data = replace(paper.data, side=48, crop=32, frames=5, chunk=2, pool=4)
    model = OasisConfig(dit=dit, decoder=WanVAEConfig(width=4), dit_tile=0)
    return replace(paper, model=model, data=data, rule=Rule(budget=1.0), core=2)


def footage(folder: Path, side: int) -> None:
    """Six pictures of coloured rectangles: something with edges to film."""
    rng = np.random.default_rng(0)
    for number in range(6):
        picture = np.zeros((side, side, 3), np.uint8)
        for _ in range(60):
            top, left = rng.integers(0, side, 2)
            high, wide = rng.integers(4, side // 3, 2)
            picture[top : top + high, left : left + wide] = rng.integers(0, 256, 3)
        (folder / f"{number}.png").write_bytes(encode_picture(picture))


def measure(chosen: TrainConfig, device: str, steps: int) -> dict[str, object]:
    """Seconds of each step after the first three, the losses, and peak memory."""
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        footage(folder, 512 if chosen.data.side > 128 else 96)
        encoder = folder / "encoder.safetensors"
        assert isinstance(chosen.model.decoder, WanVAEConfig)
        save_file(WanVAE(chosen.model.decoder).state_dict(), encoder)
        options = RunOptions(
            data=folder, out=folder, max_steps=steps, encoder=encoder, device=device, workers=1
        )
        began = time.perf_counter()
        run = Trainer(chosen, options, lambda text: print(text, flush=True))
        start = time.perf_counter() - began
        batch = run.pool.batch(0)
        losses, seconds = [], []
        for step in range(steps):
            torch.manual_seed(1)  # the same part of the frames every time
            began = time.perf_counter()
            found = {k: float(v) for k, v in run._step(batch, step / steps).items()}
            found["total"] = sum(run._weight(k) * v for k, v in found.items() if k != "norm")
            run.step += 1
            losses.append(found)
            seconds.append(time.perf_counter() - began)
        run.pool.codecs.close()
    peak = torch.cuda.max_memory_allocated() / 2**30 if run.device.type == "cuda" else None
    after = sorted(seconds[3:] or seconds)
    return {
        "device": torch.cuda.get_device_name(0) if peak is not None else "CPU",
        "torch": torch.__version__,
        "parameters": sum(p.numel() for p in run.model.parameters()),
        "trained": sum(p.numel() for p in run.model.parameters() if p.requires_grad),
        "clip": [chosen.data.batch, chosen.data.frames, chosen.data.crop, chosen.data.crop],
        "seconds_to_start": round(start, 1),
        "seconds_per_step": round(after[len(after) // 2], 3),
        "first_steps_seconds": [round(s, 2) for s in seconds[:3]],
        "peak_gib": None if peak is None else round(peak, 1),
        "first": losses[0],
        "last": losses[-1],
        "total": [round(step["total"], 4) for step in losses],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--toy", action="store_true")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    result = measure(config(given.toy), given.device, given.steps)
    text = json.dumps(result, indent=2)
    print(text)
    if given.json:
        given.json.write_text(text)


if __name__ == "__main__":
    main()
