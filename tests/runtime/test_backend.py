"""A second backend: everything beside the network works with it, and asks PyTorch for no module."""

import pickle
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch
from torch import nn
from toys import bicubic

from oasis_cli import JobOptions, Options, Upscaler, WindowOptions
from oasis_cli.errors import OasisError
from oasis_cli.jobs.job import folder_for
from oasis_cli.media.output.plan import EncodeOptions
from oasis_cli.pipeline import torch_backend


@dataclass(frozen=True)
class Bicubic:
    """Stands for another library: numbers in, numbers out, and too little memory for a window."""

    name: str = "bicubic"
    frames: int = 9
    """That fit."""
    said: list = field(default_factory=list, hash=False)

    def load(self, spec):
        self.said.append(spec)
        return self.enlarge

    def release(self, device):
        self.said.append(device)

    def enlarge(self, low, size, tile=None):
        if low.shape[1] > self.frames:
            raise MemoryError
        return bicubic(low, size)


@pytest.fixture
def no_torch_modules(monkeypatch):
    """A machine on which no module of PyTorch can be called."""

    def refuse(*args, **options):
        raise AssertionError("a torch module")

    monkeypatch.setattr(nn.Module, "__call__", refuse)
    monkeypatch.setattr(torch_backend, "load_model", refuse)


@pytest.fixture
def options(tiny_weights):
    windows = WindowOptions(frames=13, overlap=2)
    return Options(scale=2, model=str(tiny_weights), device="cpu", precision="fp32",
                   windows=windows, encode=EncodeOptions(codec="ffv1", overwrite=True))  # fmt: skip


def test_a_whole_file_goes_through_another_backend(
    options, make_clip, tmp_path, look, no_torch_modules
):
    backend, events, source = Bicubic(), [], make_clip(frames=30, cuts=(11,))
    with Upscaler(options, backend=backend, report=events.append) as ours:
        ours.file(source, tmp_path / "whole.mkv")
        ours.file(source, tmp_path / "parts.mkv",
                  jobs=JobOptions(resume=True, segment_frames=13, workers=1))  # fmt: skip
        ours.preview(source, tmp_path / "look.png")
        frames = list(ours.frames(look.frames(source)))
    spec, device = backend.said  # loaded once, released once
    assert (spec.name, spec.precision, device) == (options.model, "fp32", torch.device("cpu"))
    assert any(event.get("text", "").startswith("out of memory: going on") for event in events)
    whole, parts = look.frames(tmp_path / "whole.mkv"), look.frames(tmp_path / "parts.mkv")
    assert len(whole) == len(frames) == 30 and whole[0].shape == (48, 64, 3)
    assert all(np.array_equal(a, b) for a, b in zip(whole, parts, strict=True))
    assert np.abs(whole[3].astype(int) - frames[3]).mean() < 2


def test_another_process_runs_the_plan_with_the_same_backend(options, tiny_clip, tmp_path):
    plan = Upscaler(options, backend=Bicubic()).plan(tiny_clip, tmp_path / "o.mkv")
    assert pickle.loads(pickle.dumps(plan)).backend == plan.backend
    assert len({plan.backend, torch_backend.TORCH}) == 2


def test_a_job_is_not_continued_by_another_backend(options, make_clip, tmp_path):
    source, target = make_clip(frames=12), tmp_path / "o.mkv"
    jobs = JobOptions(resume=True, segment_frames=6, workers=1)

    def stop(event):
        if event["event"] == "progress":
            raise KeyboardInterrupt

    short = replace(options, windows=WindowOptions(frames=5, overlap=1))
    with pytest.raises(KeyboardInterrupt):
        Upscaler(short, backend=Bicubic()).file(source, target, jobs=jobs, report=stop)
    assert folder_for(str(target), None).is_dir()
    with pytest.raises(OasisError, match="another backend"):
        Upscaler(short).file(source, target, jobs=jobs)
    assert Upscaler(short, backend=Bicubic()).file(source, target, jobs=jobs).frames == 12
