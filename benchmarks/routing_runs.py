"""What a head table does to what a network learns: a short training run for each question.

    python benchmarks/routing_runs.py --start DENSE --data DIR --pairs FOLDER --perceptual FILE \\
        --vgg FILE --out DIR [--steps 1500] [--devices cuda:0,cuda:1] [--minutes 25] \\
        [--only NAME ...]

Every run continues from the same dense weights, whose heads are all global: they are measured on
clips of the run's own data, routed by the run's rule, and trained for the same steps on the same
clips (of the seed), with the losses of `--preset small`. Printed for each: Y-PSNR, Y-SSIM, LPIPS
and temporal error on FOLDER (as `quality.py`), the share of attention FLOPs on a full tile of
5x32x32 tokens, training steps a second, and milliseconds of the transformer for 17 frames of
1280x720, which are taken when no run is under way. A device named twice trains two networks at
once: slower each, but one of them works while another compiles or is measured.
Finished runs lie in DIR/results.jsonl and are not made again. Two seeds give a spread, not a test.
"""

import argparse
import gc
import json
import math
import multiprocessing
import shutil
import statistics
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from gpu_rig import Rig  # the folder of this script is on the path
from judges.cases import eight_bits, read
from quality import scores
from routing import TILE, USUAL, WINDOWS

from oasis_cli.checkpoints.format import load_model, save_model
from oasis_cli.evaluation.metrics.perceptual import SqueezeLpips
from oasis_cli.model.attention import Grid
from oasis_cli.model.heads.assignment import Rule, spent
from oasis_cli.model.heads.calibration import head_cost
from oasis_cli.model.heads.routing import HeadTable
from oasis_cli.model.inference import prepare_for_inference
from oasis_cli.model.latent import bicubic_upsample
from oasis_cli.model.oasis import Oasis
from oasis_cli.train import loop
from oasis_cli.train.data_config import DataConfig
from oasis_cli.train.footage import load_footage
from oasis_cli.train.options import RunOptions
from oasis_cli.train.presets import SMALL_RUN, Stage, TrainConfig

TOY = DataConfig(side=48, crop=32, frames=5, batch=2, chunk=2, pool=4, every=2)
"""Data for trying the script out."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One run."""

    name: str
    rule: Rule
    window: Grid = USUAL
    seed: int = 0

    def __str__(self) -> str:
        return f"{self.name}, seed {self.seed}"


def trials() -> Iterator[Trial]:
    """The most important first: a session on a GPU may end early."""
    for seed in (0, 1, 2):
        yield Trial("all global", Rule(budget=1.0), seed=seed)
        yield Trial("shipped rule", SMALL_RUN.rule, seed=seed)
    yield Trial("budget 0.5", Rule(budget=0.5))
    yield Trial("budget 0.2, no global head needed", Rule(budget=0.2, min_global=0))
    for window in WINDOWS:
        yield Trial(f"budget 0.35, window {window}", Rule(budget=0.35), window)
    yield Trial("threshold", Rule(name="threshold"))
    yield Trial("argmin", Rule(name="argmin"))
    for window in (USUAL, (1, 3, 3), (5, 5, 5)):
        yield Trial(f"budget 0.35, window {window}", Rule(budget=0.35), window, seed=1)
    yield Trial("budget 0.5", Rule(budget=0.5), seed=1)
    yield Trial("budget 0.2, no global head needed", Rule(budget=0.2, min_global=0), seed=1)


def configuration(trial: Trial, start: Oasis, given: argparse.Namespace) -> TrainConfig:
    """The training run of a trial."""
    losses = SMALL_RUN.stages[1].losses
    if given.toy:
        losses = replace(losses, perceptual=0.0, vgg=0.0)
    stage = Stage(name="trial", share=1.0, varying=0.3, rate=(1e-3, 0.0), losses=losses)
    return replace(
        SMALL_RUN,
        name=trial.name,
        model=start.config,
        data=TOY if given.toy else replace(SMALL_RUN.data, pool=512),  # several share a device
        rule=trial.rule,
        stages=(stage,),
        seed=trial.seed,
    )


def dense_start(source: Path, window: Grid, folder: Path) -> Path:
    """The dense weights with heads that may get another window: all global, they have none."""
    model = load_model(str(source))
    if not model.dit.table.is_dense:
        raise SystemExit(f"{source} is routed: a run starts where all heads are global")
    config = replace(model.config, dit=replace(model.config.dit, window=window))
    other = Oasis(config)
    other.load_state_dict(model.state_dict())
    path = folder / f"dense-{'x'.join(map(str, window))}.safetensors"
    save_model(other, path, name=path.stem, provenance={"stage": "dense", "source": source.name})
    return path


def carry_out(trial: Trial, given: argparse.Namespace) -> dict[str, Any] | None:
    """Train and measure, in a process that has a device. None where it is too late to begin."""
    if time.time() > given.last_start:
        return None
    device = _device
    folder = given.out / str(trial)
    shutil.rmtree(folder, ignore_errors=True)  # what a run left that was cut off
    folder.mkdir(parents=True)
    start = dense_start(given.start, trial.window, folder)
    options = RunOptions(
        data=given.data,
        out=folder,
        max_steps=given.steps,
        start_from=start,
        perceptual=given.perceptual,
        vgg=given.vgg,
        device=device,
        workers=given.workers,
        compile=device.startswith("cuda"),
        log_every=min(50, given.steps),
        save_minutes=60,
    )
    with (folder / "log.txt").open("w") as log:
        run = loop.Trainer(
            configuration(trial, load_model(str(start)), given),
            options,
            lambda text: print(text, file=log, flush=True),
        )
        run.run()
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    network = run.average.eval()
    config = network.config.dit
    found = quality(network, given) | {
        "heads": " ".join(network.dit.table.layers),
        "cost": spent(
            network.dit.table, head_cost(TILE, config.window, config.width // config.heads)
        ),
        "steps_per_second": statistics.median(line["steps_per_second"] for line in lines),
    }
    del run, network
    gc.collect()
    torch._dynamo.reset()
    if device.startswith("cuda"):
        torch.cuda.empty_cache()
    return found


@torch.inference_mode()
def quality(network: Oasis, given: argparse.Namespace) -> dict[str, float]:
    """Mean scores over the pairs."""
    device = network.to_latent.linear.weight.device
    lpips = SqueezeLpips(given.perceptual).to(device) if given.perceptual else None
    rows = []
    for path in sorted(given.pairs.glob("*.hr.mkv")):
        high = read(path).to(device)
        low = read(path.with_name(path.name.replace(".hr.", ".lr."))).to(device)
        size = (high.shape[-2], high.shape[-1])
        out, base = network(low[None], size)[0].float(), bicubic_upsample(low, size)
        rows.append(scores(eight_bits(out), high, eight_bits(base), lpips))
    return {key: sum(row[key] for row in rows) / len(rows) for key in rows[0]}


@torch.inference_mode()
def transformer_ms(found: dict[str, Any], given: argparse.Namespace) -> float:
    """Median milliseconds for 17 frames of 1280x720 under a run's table, in fp16 on a GPU."""
    device = given.devices.split(",")[0]
    rig = Rig(torch.device(device), toy=given.toy, compiled=False, seconds=0.5)
    dtype = torch.float16 if rig.cuda else torch.float32
    config = load_model(str(given.start)).config
    config = replace(config, dit=replace(config.dit, window=tuple(found["window"])))
    network = Oasis(config).to(rig.device, dtype).eval()
    network.dit.route(HeadTable(tuple(found["heads"].split())))
    if rig.cuda:
        prepare_for_inference(network.dit)
    rows, cols = (8, 12) if given.toy else (90, 160)
    latent = torch.randn(
        1, config.dit.latent_channels, 5, rows, cols, device=rig.device, dtype=dtype
    )
    return float(rig.measure(lambda: network.refine(latent))["ms"])


_device = "cpu"


def begin(devices: "multiprocessing.Queue[str]") -> None:
    """A process takes a device, and reads the footage once for all its runs."""
    global _device
    _device = devices.get()
    if _device.startswith("cuda"):
        torch.cuda.set_device(_device)
    vars(loop)["load_footage"] = cache(load_footage)


def line(name: str, runs: list[dict[str, Any]]) -> str:
    """A row of the table: means over the seeds."""
    columns = ("psnr", "ssim", "lpips", "temporal", "cost", "transformer_ms", "steps_per_second")
    values = [
        f"{statistics.mean(run[column] for run in runs):.4g}" if column in runs[0] else ""
        for column in columns
    ]
    return f"| {name} | {len(runs)} | " + " | ".join(values) + " |"


def write(results: Path, done: list[dict[str, Any]]) -> None:
    """What is known, a line for each run."""
    results.write_text("".join(json.dumps(run) + "\n" for run in done))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--start", type=Path, required=True, help="a dense checkpoint")
    parser.add_argument("--data", type=Path, required=True, help="photographs and videos")
    parser.add_argument("--pairs", type=Path, required=True, help="NAME.lr.mkv, NAME.hr.mkv")
    parser.add_argument("--perceptual", type=Path, help="SqueezeNet features with LPIPS heads")
    parser.add_argument("--vgg", type=Path, help="VGG-16 features, for the loss of the preset")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--devices", default="cuda:0")
    parser.add_argument("--workers", type=int, default=6, help="codec processes of each run")
    parser.add_argument("--minutes", type=float, default=math.inf, help="begin no run after these")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these runs; also 'NAME, seed N'")
    parser.add_argument("--toy", action="store_true", help="tiny clips, for any device")
    parser.add_argument("--json", type=Path, help="write the numbers here")
    given = parser.parse_args()
    given.last_start = time.time() + 60 * given.minutes
    given.out.mkdir(parents=True, exist_ok=True)
    results = given.out / "results.jsonl"
    done = (
        [json.loads(text) for text in results.read_text().splitlines()] if results.exists() else []
    )
    known = {(run["name"], run["seed"]) for run in done}
    wanted = [
        trial
        for trial in trials()
        if (not given.only or {trial.name, str(trial)} & {*given.only})
        and (trial.name, trial.seed) not in known
    ]
    context = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
    devices = context.Queue()
    names = given.devices.split(",")
    for name in names:
        devices.put(name)
    with ProcessPoolExecutor(len(names), context, begin, (devices,)) as pool:
        futures = {pool.submit(carry_out, trial, given): trial for trial in wanted}
        for future in as_completed(futures):
            trial = futures[future]
            if error := future.exception():
                print(f"{trial} failed", *traceback.format_exception(error), sep="\n", flush=True)
            elif found := future.result():
                done.append(asdict(trial) | found)
                write(results, done)
                print(line(str(trial), done[-1:]), flush=True)
    for run in done:
        if "transformer_ms" not in run:
            run["transformer_ms"] = transformer_ms(run, given)
    write(results, done)
    print("| | seeds | Y-PSNR | Y-SSIM | LPIPS | temporal | FLOPs | transformer, ms | steps/s |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for name in dict.fromkeys(run["name"] for run in done):
        print(line(name, [run for run in done if run["name"] == name]))
    if given.json:
        given.json.write_text(json.dumps({"steps": given.steps, "runs": done}, indent=2) + "\n")


if __name__ == "__main__":
    main()
