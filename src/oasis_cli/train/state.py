"""The files of a run: state, weights, samples. A killed save leaves the previous state."""

import dataclasses
import json
import os
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from oasis_cli.checkpoints.format import describe, load_model, save_model
from oasis_cli.checkpoints.registry import sha256
from oasis_cli.errors import UsageError
from oasis_cli.media.pictures import encode_picture
from oasis_cli.model.heads.routing import HeadTable
from oasis_cli.model.oasis import Oasis
from oasis_cli.runtime.devices import capabilities
from oasis_cli.train.options import STATE

if TYPE_CHECKING:
    from oasis_cli.train.loop import Trainer

LAST = "last.safetensors"
DENSE = "dense.safetensors"
"""The averaged weights before routing: what head calibration measures."""


def save(run: "Trainer") -> None:
    """Write the state and the averaged weights; a killed save leaves the previous ones.

    All processes call this, at the same step when the optimiser is sharded; the first writes.
    """
    optimizer = run.optimizer.state_dict()
    if run.rank:
        return
    state = {
        "config": json.dumps(asdict(run.config)),
        "step": run.step,
        "stage": run.stage_number,
        "stage_step": run.stage_step,
        "seconds": run.seconds,
        "table": list(run.model.dit.table.layers),
        "model": run.model.state_dict(),
        "average": run.average.state_dict(),
        "optimizer": optimizer,
        "chunks": run.pool.finished,
        "varying": run.pool.varying,
        "rng": torch.get_rng_state(),
        "judge": run.judge.state_dict() if run.judge else None,
    }
    target = run.options.out / STATE
    part = target.with_suffix(".part")
    with part.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    part.replace(target)
    write_model(run, run.options.out / LAST)
    run.good_step = run.step


def load(run: "Trainer") -> dict[str, Any]:
    path = run.options.out / STATE
    if not path.is_file():
        raise UsageError(
            f"{run.options.out} holds no run to resume", hint="leave out --resume to start one"
        )
    state: dict[str, Any] = torch.load(path, map_location=run.device, weights_only=True)
    changed = _differences(json.loads(state["config"]), run.config)
    if changed:
        raise UsageError(
            f"the run in {run.options.out} has another configuration: {', '.join(changed[:3])}",
            hint="resume it with the preset or file it was started with",
        )
    return state


def _differences(saved: Any, config: Any, where: str = "") -> list[str]:
    """The settings in which a saved configuration differs.

    A setting that an older version did not have counts as its default.
    """
    if dataclasses.is_dataclass(config) and isinstance(saved, dict):
        found = [f"{where}{name}" for name in saved.keys() - {f.name for f in fields(config)}]
        for f in fields(config):
            if f.name in saved:
                value = saved[f.name]
            elif f.default is not dataclasses.MISSING:
                value = json.loads(json.dumps(f.default, default=asdict))
            else:
                found.append(f"{where}{f.name}")
                continue
            found += _differences(value, getattr(config, f.name), f"{where}{f.name}.")
        return found
    if isinstance(config, tuple) and isinstance(saved, list) and len(saved) == len(config):
        pairs = enumerate(zip(saved, config, strict=True))
        return [d for n, (a, b) in pairs for d in _differences(a, b, f"{where}{n}.")]
    return [] if saved == config else [where.removesuffix(".")]


def restore_state(run: "Trainer", state: dict[str, Any]) -> None:
    table = HeadTable(tuple(state["table"]))
    for model, key in ((run.model, "model"), (run.average, "average")):
        model.dit.route(table)
        model.load_state_dict(state[key])
    run.optimizer.load_state_dict(state["optimizer"])
    if run.judge is not None:
        run.judge.load_state_dict(state["judge"])
    run.step, run.seconds = state["step"], state["seconds"]
    torch.set_rng_state(state["rng"].cpu())
    run.pool.varying = state["varying"]
    run.pool.restart(state["chunks"])


def ancestors(out: Path, start_from: Path | None) -> dict[str, Any]:
    """Checkpoints that a run's descend from: a head table measured on one fits them all."""
    found: dict[str, Any] = {}
    if (out / DENSE).is_file():
        found["dense"] = sha256(out / DENSE)
    if start_from is not None:
        known = describe(str(start_from))["provenance"]
        found["started_from"] = {"sha256": sha256(start_from), **known}
    return found


def write_model(run: "Trainer", path: Path, model: Oasis | None = None, **more: Any) -> None:
    """Write `model`, the average if None, with where it comes from."""
    provenance = {
        "steps": run.step,
        "minutes": round(run.seconds / 60, 2),
        "stage": run.stages[run.stage_number].name,
        "seed": run.config.seed,
        "device": capabilities(run.device).name,
        "processes": run.world,
        "footage": run.footage_hash,
        **run.ancestors,
    }
    model, others = model or run.average, run.decoders
    trained, look = model.decoder, run.config.look
    if run.own_decoder is not None:
        others = others | {look: trained}
        model.decoder = run.own_decoder
    try:
        save_model(model, path, name=run.config.name, provenance=provenance | more, others=others)
    finally:
        model.decoder = trained


def write_final(run: "Trainer") -> None:
    """Write the run's result: the last average, blended with the stage before if asked."""
    before = run.options.out / f"stage-{run.stage_number - 1}.safetensors"
    if run.rank or not before.is_file():
        return
    earlier = load_model(str(before), device=run.device, decoder=run.config.look or "auto")
    earlier.dit.route(run.average.dit.table)
    with torch.no_grad():
        for old, new in zip(earlier.parameters(), run.average.parameters(), strict=True):
            old.lerp_(new, run.config.blend)
    path = run.options.out / f"{run.config.name}.safetensors"
    write_model(run, path, earlier, blend=run.config.blend)


def write_samples(run: "Trainer") -> None:
    """A PNG of six pooled clips: input, output of the averaged weights, target."""
    if run.rank:
        return
    shown = min(6, run.pool.have)
    low = run.pool.low[:shown, -4:].float()
    low = torch.cat([low, low[:, -1:]], dim=1)
    with torch.inference_mode():
        output = torch.cat([run.average(clip[None], clip.shape[-2:]) for clip in low])
    high = run.pool.high[:shown, -1].float() / 127.5 - 1
    rows = torch.cat([low[:, -1], output[:, -1], high], dim=-1)
    picture = (torch.cat(list(rows), dim=1) * 127.5 + 127.5).round().clamp(0, 255)
    picture = picture.permute(1, 2, 0).to("cpu", torch.uint8).contiguous()
    path = run.options.out / f"samples-{run.step:06}.png"
    path.write_bytes(encode_picture(picture.numpy()))
