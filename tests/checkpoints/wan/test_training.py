"""Published weights in, `oasis train` started from them."""

import json

import numpy as np
import torch
from typer.testing import CliRunner

from oasis_cli.checkpoints.format import describe, load_model
from oasis_cli.cli.main import app
from oasis_cli.media.pictures import encode_picture

RUN = """
preset = "paper"
warm_up = 1
core = 2
[rule]
budget = 1.0
[model.dit]
width = 48
layers = 2
heads = 4
ffn = 40
[model.decoder]
width = 4
[data]
side = 48
crop = 32
frames = 5
batch = 1
chunk = 1
pool = 2
every = 2
[[stages]]
name = "both"
share = 1.0
rate = [1e-3, 1e-3]
losses = { latent = 1.0 }
"""


def oasis(*args):
    result = CliRunner().invoke(app, [str(a) for a in args])
    assert result.exit_code == 0, result.output
    return result.output


def test_training_starts_from_imported_weights(published, tiny_clip, tmp_path, look):
    start, run, footage = tmp_path / "start.safetensors", tmp_path / "run", tmp_path / "footage"
    tiny = ("--tiny-decoder", published.tiny)
    oasis("weights", "import", published.diffusers, "-o", start, "--eos", published.end, *tiny)
    (tmp_path / "run.toml").write_text(RUN)
    footage.mkdir()
    pixels = np.random.default_rng(0).integers(0, 255, (2, 80, 96, 3), np.uint8)
    for number, picture in enumerate(pixels):
        (footage / f"{number}.png").write_bytes(encode_picture(picture))

    said = oasis(
        *("train", tmp_path / "run.toml", "--data", footage, "--out", run, "--workers", 1),
        *("--start-from", start, "--encoder", start, "--max-steps", 1),
    )

    assert "linear map: R^2" in said and "head table" in said
    before, after = load_model(str(start)), load_model(str(run / "last.safetensors"))
    assert not torch.equal(after.to_latent.linear.weight, before.to_latent.linear.weight)
    assert not torch.equal(after.dit.blocks[0].ffn[0].weight, before.dit.blocks[0].ffn[0].weight)
    close = after.dit.head.weight - before.dit.head.weight
    assert 0 < close.abs().max() < 0.02  # one step away from what was published
    for name, tensor in before.decoder.state_dict().items():
        assert torch.equal(after.decoder.state_dict()[name], tensor.half().float())
    assert describe(str(run / "last.safetensors"))["provenance"]["steps"] == 1
    assert json.loads((run / "log.jsonl").read_text() or "{}") == {}

    made = {}
    for kind in ("auto", "wan", "tiny"):
        target = tmp_path / f"{kind}.mkv"
        usual = ("--scale", 2, "--codec", "ffv1", "--model", run / "last.safetensors")
        command = ("upscale", tiny_clip, target, *usual, "--decoder", kind)
        plan = json.loads(oasis(*command, "--dry-run", "--json").splitlines()[0])
        assert plan["decoder"] == ("wan" if kind == "auto" else kind)
        oasis(*command)
        made[kind] = look.frames(target)
    assert all(np.array_equal(*pair) for pair in zip(made["auto"], made["wan"], strict=True))
    assert not any(np.array_equal(*pair) for pair in zip(made["auto"], made["tiny"], strict=True))
