"""Tiny media made with PyAV and a tiny network: tests need no file from anywhere else."""

import gc
import os
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

# Toy networks on several threads mostly wait for each other; set before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command does

MakeClip = Callable[..., Path]


@pytest.fixture(autouse=True)
def _no_real_time() -> Iterator[None]:
    """Whoever leaves a thread with real-time priority holds up the tests in all processes."""
    yield
    if hasattr(os, "sched_getscheduler"):
        assert os.sched_getscheduler(0) == os.SCHED_OTHER


def pytest_collection_finish() -> None:
    """What is loaded by now stays: collections of garbage, 0.4 s each, need not look at it."""
    gc.freeze()


def picture(number: int, width: int, height: int, scene: int = 0) -> np.ndarray:
    """A moving gradient with a bright square, different in each scene. (H, W, 3) uint8."""
    x = np.arange(width)[None, :] + 2 * number
    y = np.arange(height)[:, None] + number
    base = (40, 200, 90, 150)[scene % 4]
    out = np.zeros((height, width, 3), np.int64)
    out[..., 0] = base + 20 * np.sin(x / 7) + 0 * y
    out[..., 1] = base + 20 * np.cos(y / 5) + 0 * x
    out[..., 2] = base
    at = number % max(1, width - 8)
    out[height // 3 : height // 3 + 6, at : at + 8] = 255 - base
    return out.clip(0, 255).astype(np.uint8)


def write_clip(
    path: Path,
    *,
    frames: int = 8,
    size: tuple[int, int] = (32, 24),
    rate: int = 25,
    cuts: tuple[int, ...] = (),
    sound: bool = True,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
) -> Path:
    """A clip of moving shapes with scene cuts at `cuts` and a tone. size is (width, height)."""
    with av.open(str(path), "w") as out:
        video = out.add_stream(codec, rate=rate, options={"crf": "10", "preset": "ultrafast"})
        video.width, video.height, video.pix_fmt = *size, pix_fmt
        audio = out.add_stream("aac", rate=48000, layout="stereo") if sound else None
        scene = 0
        for number in range(frames):
            scene += number in cuts
            image = picture(number, *size, scene)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, rate)
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
        if audio is not None:
            samples = int(48000 * frames / rate) // 1024 * 1024 or 1024
            time = np.arange(samples) / 48000
            tone = np.stack([np.sin(2 * np.pi * 440 * time)] * 2).astype(np.float32) * 0.3
            for start in range(0, samples, 1024):
                chunk = np.ascontiguousarray(tone[:, start : start + 1024])
                sound_frame = av.AudioFrame.from_ndarray(chunk, format="fltp", layout="stereo")
                sound_frame.sample_rate = 48000
                sound_frame.pts, sound_frame.time_base = start, Fraction(1, 48000)
                out.mux(audio.encode(sound_frame))
            out.mux(audio.encode(None))
    return path


@pytest.fixture
def make_clip(tmp_path: Path) -> MakeClip:
    """make_clip("name.mp4", frames=8, size=(32, 24), cuts=(), sound=True, ...) -> path."""
    return lambda name="in.mp4", **options: write_clip(tmp_path / name, **options)


@pytest.fixture
def tiny_clip(make_clip: MakeClip) -> Path:
    """8 frames, 32x24, 25 a second, with sound."""
    return make_clip()


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[Any, str, str]]:
    """run("metrics", ...) -> (exit code, stdout, stderr)."""
    from oasis_cli.cli.main import app

    def call(*words: object) -> tuple[Any, str, str]:
        with pytest.raises(SystemExit) as left:
            app([str(word) for word in words])
        return (left.value.code, *capsys.readouterr())

    return call


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a toy network. Untrained: it returns the bicubic clip."""
    import torch

    from oasis_cli.checkpoints.format import save_model
    from oasis_cli.model.decoders.fast import DecoderConfig
    from oasis_cli.model.dit import DiTConfig
    from oasis_cli.model.oasis import Oasis, OasisConfig

    torch.manual_seed(0)
    dit = DiTConfig(width=32, layers=1, heads=2, ffn=32, latent_channels=4)
    config = OasisConfig(dit=dit, decoder=DecoderConfig(latent_channels=4))
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_model(Oasis(config), path, name="tiny", provenance={"trained": "not at all"})
    return path


def video_frames(path: Path) -> list[np.ndarray]:
    """Every decoded frame as (H, W, 3) uint8."""
    with av.open(str(path)) as container:
        return [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]


def video_times(path: Path) -> list[Fraction]:
    """The presentation time of every frame, in seconds."""
    with av.open(str(path)) as container:
        return [f.pts * f.time_base for f in container.decode(video=0)]


def audio_packets(path: Path) -> list[bytes]:
    """The payload of every audio packet."""
    with av.open(str(path)) as container:
        return [bytes(p) for p in container.demux(audio=0) if p.size]


class Look:
    """Reads media back, by PyAV alone."""

    frames = staticmethod(video_frames)
    times = staticmethod(video_times)
    audio = staticmethod(audio_packets)


@pytest.fixture
def look() -> type[Look]:
    """look.frames(path), look.times(path), look.audio(path)."""
    return Look


@pytest.fixture
def pair(make_clip):
    """A clip and one of twice the size with the same scenes: (path, path), 8 frames."""
    return (
        make_clip("small.mp4", cuts=(5,)),
        make_clip("large.mp4", size=(64, 48), cuts=(5,), sound=False),
    )


@pytest.fixture
def known_weights(monkeypatch):
    """The models of these tests are functions: give them a hash."""
    monkeypatch.setattr("oasis_cli.jobs.execute.weights_hash", lambda plan: plan.options.model)
