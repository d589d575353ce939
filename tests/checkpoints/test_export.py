"""`oasis export`: what another engine makes of the file."""

import json

import numpy as np
import onnxruntime
import pytest
import torch
from typer.testing import CliRunner

from oasis_cli.checkpoints import export
from oasis_cli.checkpoints.export import OPSET
from oasis_cli.checkpoints.format import load_model, save_model
from oasis_cli.cli.main import app
from oasis_cli.model.decoders.fast import DecoderConfig
from oasis_cli.model.dit import DiTConfig
from oasis_cli.model.heads.routing import HeadTable
from oasis_cli.model.oasis import Oasis, OasisConfig


def run(*args):
    return CliRunner().invoke(app, ["export", *map(str, args)])


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """A checkpoint with every group of heads, in tiles, of which nothing is zero."""
    torch.manual_seed(0)
    dit = DiTConfig(width=32, layers=1, heads=4, ffn=32, ffn_kernel=3, latent_channels=8, patch=1)
    narrow = {"low_width": 16, "high_width": 16, "low_blocks": 1, "high_blocks": 1}
    decoder = DecoderConfig(latent_channels=8, low_frames=0, **narrow)
    network = Oasis(OasisConfig(dit=dit, decoder=decoder, dit_tile=8, dit_overlap=2)).eval()
    network.dit.route(HeadTable(("giww",)))
    for parameter in network.parameters():
        if not parameter.abs().sum():
            torch.nn.init.normal_(parameter, std=0.05)
    path = tmp_path_factory.mktemp("toy") / "toy.safetensors"
    save_model(network, path, name="toy", provenance={}, dtype=torch.float32)
    return path


def test_another_engine_makes_the_same_frames(toy, tmp_path):
    file = tmp_path / "toy.onnx"
    done = run("-o", file, "--model", toy, "--frames", 3, "--size", "23x15", "--scale", 3)
    assert done.exit_code == 0, done.output
    assert f"3 frames of 23x15 to 69x45, opset {OPSET}" in done.stdout

    session = onnxruntime.InferenceSession(str(file))
    low = torch.rand(1, 3, 3, 15, 23) * 2 - 1
    (high,) = session.run(["high"], {"low": low.numpy()})
    with torch.inference_mode():
        ours = load_model(str(toy))(low, (45, 69)).clamp(-1, 1)
    assert np.abs(high - ours.numpy()).max() < 1e-3
    assert high.min() >= -1 and high.max() <= 1
    about = json.loads(session.get_modelmeta().custom_metadata_map["oasis"])
    assert about == {"model": "toy", "frames": 3, "size": [23, 15], "target": [69, 45]}


def test_what_cannot_be_exported_is_refused_before_any_work(toy, tmp_path, monkeypatch):
    file = tmp_path / "out.onnx"
    tiny = run("-o", file, "--model", toy, "--size", "3x3")
    assert tiny.exit_code == 2 and "16x16" in tiny.stderr
    huge = run("-o", file, "--model", toy, "--size", "999999x999999")
    assert huge.exit_code == 2 and "too large a window" in huge.stderr
    monkeypatch.setattr(export, "MOST_BYTES", 1000)
    large = run("-o", file, "--model", toy)
    assert large.exit_code == 2 and "an ONNX file holds 2" in large.stderr
    monkeypatch.setattr(export, "find_spec", lambda name: None)
    bare = run("-o", file, "--model", toy)
    assert bare.exit_code == 1 and "oasis-cli[export]" in bare.stderr
    file.write_text("mine")
    there = run("-o", file, "--model", toy)
    assert there.exit_code == 1 and "--overwrite" in there.stderr
    assert file.read_text() == "mine"
