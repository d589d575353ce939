"""The integrations, against stand-ins for the programs they plug into."""

import importlib.util
import random
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

ROOT = Path(__file__).parents[1] / "integrations"


def load(path, name):
    spec = importlib.util.spec_from_file_location(
        name, path, submodule_search_locations=[str(path.parent)]
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda p: p.name)
def test_integrations_are_short(path):
    assert len(path.read_text().splitlines()) < 150


def test_the_comfyui_node_enlarges_a_batch(tiny_weights):
    package = load(ROOT / "comfyui" / "__init__.py", "oasis_comfyui")
    node = package.NODE_CLASS_MAPPINGS["OasisUpscale"]()
    assert set(package.NODE_DISPLAY_NAME_MAPPINGS) == set(package.NODE_CLASS_MAPPINGS)
    assert node.INPUT_TYPES()["required"]["color_fix"][0][0] == "none"
    images = torch.rand(6, 16, 24, 3)
    (out,) = node.run(images, 2.0, str(tiny_weights), 1.0, "none", 5)
    assert out.shape == (6, 32, 48, 3)
    assert out.min() >= 0 and out.max() <= 1
    small = torch.nn.functional.avg_pool2d(out.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)
    assert (small - images).abs().mean() < 0.15


class Planes(list):
    """A VapourSynth frame: three planes."""

    props: dict[str, int] = {}

    def copy(self):
        return Planes(plane.copy() for plane in self)


class FakeClip:
    """As much of a VapourSynth clip as the filter uses."""

    def __init__(self, frames):
        self.frames = frames
        self.height, self.width = frames[0][0].shape
        self.num_frames = len(frames)
        self.format = SimpleNamespace(color_family="YUV")
        self.resized = []
        self.resize = SimpleNamespace(Bicubic=self.bicubic)
        self.std = SimpleNamespace(ModifyFrame=lambda clip, fill: Filled(self, fill))

    def bicubic(self, **options):
        self.resized.append(options)
        return self

    def get_frame(self, number):
        return self.frames[number]


class Filled:
    def __init__(self, clip, fill):
        self.clip, self.fill = clip, fill

    def get_frame(self, number):
        return self.fill(number, self.clip.get_frame(number))


@pytest.fixture
def vapoursynth(monkeypatch):
    def blank(clip, width, height, format, length):
        return FakeClip([Planes(np.zeros((height, width), np.uint8) for _ in "rgb")] * length)

    fake = ModuleType("vapoursynth")
    fake.RGB24, fake.RGB = "RGB24", "RGB"
    fake.core = SimpleNamespace(std=SimpleNamespace(BlankClip=blank))
    monkeypatch.setitem(sys.modules, "vapoursynth", fake)


def test_the_vapoursynth_filter_gives_any_frame_to_any_thread(vapoursynth, tiny_weights):
    enlarge = load(ROOT / "vapoursynth" / "oasis_vs.py", "oasis_vs").enlarge
    frames = [Planes(np.full((16, 16), 20 * n, np.uint8) for _ in "rgb") for n in range(8)]
    clip = enlarge(FakeClip(frames), scale=2, model=str(tiny_weights), window=5)

    def value(number):
        return int(clip.get_frame(number)[1][16, 16])

    assert [value(n) for n in (0, 1, 2, 6, 7, 3)] == [0, 20, 40, 120, 140, 60]
    numbers = list(range(8)) * 4
    random.Random(0).shuffle(numbers)
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(value, numbers)) == [20 * n for n in numbers]


def test_the_vapoursynth_filter_guesses_a_matrix_only_where_none_is_named(
    vapoursynth, tiny_weights, monkeypatch
):
    enlarge = load(ROOT / "vapoursynth" / "oasis_vs.py", "oasis_vs").enlarge

    def matrix(**props):
        monkeypatch.setattr(Planes, "props", props)
        clip = FakeClip([Planes(np.zeros((16, 16), np.uint8) for _ in "rgb")])
        enlarge(clip, scale=2, model=str(tiny_weights), window=5)
        return clip.resized[0].get("matrix_in_s")

    assert matrix() == "170m" and matrix(_Matrix=2) == "170m"
    assert matrix(_Matrix=1) is None
