"""A folder of tiny footage and a run of toy size."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from oasis_cli.evaluation.metrics.vgg import LAYERS
from oasis_cli.media.pictures import encode_picture
from oasis_cli.train import loop
from oasis_cli.train.codec import CodecPool
from oasis_cli.train.options import RunOptions
from oasis_cli.train.presets import TrainConfig, read_config

TOY = """
name = "toy"
blend = 0.75
warm_up = 2
perceptual_frames = 1
[rule]
proportion = [1, 1, 2]
[model.dit]
width = 48
layers = 2
heads = 4
ffn = 64
latent_channels = 8
[model.decoder]
latent_channels = 8
low_width = 16
low_blocks = 2
high_width = 8
high_blocks = 2
[data]
side = 48
crop = 32
frames = 5
batch = 2
chunk = 2
pool = 4
every = 2
[[stages]]
name = "dense"
share = 0.4
routed = false
[[stages]]
name = "routed"
share = 0.6
varying = 1.0
rate = [1e-3, 0.0]
losses = { frequency = 0.1 }
"""


@pytest.fixture(scope="session")
def footage_folder(tmp_path_factory):
    """Three pictures with edges and texture, 96x80."""
    folder = tmp_path_factory.mktemp("footage")
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:80, :96]
    for number in range(3):
        stripes = 128 + 90 * np.sin(x / (2 + number)) * np.cos(y / 5)
        picture = np.stack([stripes, stripes[::-1], rng.uniform(0, 255, stripes.shape)], -1)
        pixels = picture.clip(0, 255).astype(np.uint8)
        (folder / f"{number}.png").write_bytes(encode_picture(pixels))
    return folder


@pytest.fixture(scope="session")
def toy_text() -> str:
    return TOY


@pytest.fixture
def toy_file(toy_text, tmp_path):
    path = tmp_path / "toy.toml"
    path.write_text(toy_text)
    return path


@pytest.fixture
def toy(toy_file) -> TrainConfig:
    return read_config(str(toy_file))


@pytest.fixture
def trainer():
    """trainer(config, footage, out, max_steps=10, ...): a run that has not begun."""

    def make(config: TrainConfig, folder: Path, out: Path, **options: Any) -> loop.Trainer:
        out.mkdir(exist_ok=True)
        given = {"max_steps": 10, "workers": 1, "log_every": 5} | options
        options = RunOptions(data=folder, out=out, **given)
        return loop.Trainer(config, options, lambda text: None)

    return make


@pytest.fixture(scope="session")
def vgg_file(tmp_path_factory) -> Path:
    """A file of VGG-16's layers with random numbers."""
    generator = torch.Generator().manual_seed(0)
    path, inside, tensors = tmp_path_factory.mktemp("vgg") / "vgg.safetensors", 3, {}
    for name in LAYERS:
        outside = 64 << min(int(name[4]) - 1, 3)
        scale = (2 / (9 * inside)) ** 0.5
        weight = scale * torch.randn(outside, inside, 3, 3, generator=generator)
        tensors |= {f"{name}.weight": weight, f"{name}.bias": torch.zeros(outside)}
        inside = outside
    save_file(tensors, path)
    return path


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def codec_workers():
    pool = CodecPool(1)
    yield pool
    CodecPool.close(pool)


@pytest.fixture(autouse=True)
def _one_codec_pool(codec_workers, monkeypatch):
    """All runs of these tests share a worker: starting one costs more than a toy run."""
    monkeypatch.setattr(codec_workers, "close", lambda: None)
    monkeypatch.setattr(loop, "CodecPool", lambda workers: codec_workers)
