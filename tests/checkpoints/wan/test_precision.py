"""Half precision of routed networks against float32, on frames of the sample."""

import copy
from pathlib import Path

import av
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from typer.testing import CliRunner

from oasis_cli.checkpoints.format import load_model
from oasis_cli.cli.main import app
from oasis_cli.evaluation.metrics.pixels import psnr
from oasis_cli.model.heads.routing import HeadTable

SAMPLE = Path(__file__).parents[3] / "samples" / "demo.mp4"
SIZE = (96, 128)


@pytest.fixture(scope="module")
def low():
    """Nine frames of 64x48 from the sample, (1, 9, 3, 48, 64) in [-1, 1]."""
    with av.open(SAMPLE) as source:
        frames = zip(range(9), source.decode(video=0), strict=False)
        pixels = np.stack([frame.to_ndarray(format="rgb24") for _, frame in frames])
    clip = torch.from_numpy(pixels[:, 40:88, 100:164]).permute(0, 3, 1, 2)
    return clip[None].float() / 127.5 - 1


def decibels(got, expected):
    """PSNR of the worst frame."""
    return float(psnr(got[0].clamp(-1, 1), expected[0].clamp(-1, 1)).min())


def test_a_routed_transformer_in_bf16_decodes_to_the_same_frames(published, low, tmp_path):
    """Wan2.1's transformer and decoder at toy size, whose random velocity changes every pixel."""
    start = tmp_path / "start.safetensors"
    command = ["weights", "import", published.diffusers, "-o", start, "--eos", published.end]
    assert CliRunner().invoke(app, [*map(str, command)]).exit_code == 0
    model = load_model(str(start))
    model.dit.route(HeadTable(("wgiw", "igwg")))
    half = copy.deepcopy(model.dit).bfloat16()
    with torch.inference_mode():
        latent = model.to_latent(F.interpolate(low[0], SIZE, mode="bicubic")[None])
        velocities = model.dit(latent), half(latent.bfloat16()).float(), torch.zeros_like(latent)
        full, rounded, none = (
            model.decoder.decode(latent - model.config.sigma * velocity) for velocity in velocities
        )
    assert decibels(none, full) < 20  # so the transformer matters to what is compared
    assert decibels(rounded, full) >= 45


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_model_that_ships_in_half_precision_makes_the_same_frames(low, dtype):
    with torch.inference_mode():
        full = load_model()(low, SIZE)
        half = load_model(dtype=dtype)(low, SIZE)
    assert decibels(half, full) >= 50
