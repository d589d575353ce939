"""A folder of tiny footage and a run of toy size."""

import numpy as np
import pytest
import torch

from oasis_cli.media.pictures import encode_picture
from oasis_cli.train import loop
from oasis_cli.train.codec import CodecPool
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


@pytest.fixture
def toy_file(tmp_path):
    path = tmp_path / "toy.toml"
    path.write_text(TOY)
    return path


@pytest.fixture
def toy(toy_file) -> TrainConfig:
    return read_config(str(toy_file))


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
