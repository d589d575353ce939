"""One object for every road: loads once, works from several threads, does what the command does."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from typer.testing import CliRunner

import oasis_cli
from oasis_cli import JobOptions, Options, Upscaler, WindowOptions
from oasis_cli.checkpoints.format import save_model
from oasis_cli.cli.main import app
from oasis_cli.errors import OasisError, UsageError
from oasis_cli.media.output.plan import EncodeOptions
from oasis_cli.model.decoders.fast import DecoderConfig
from oasis_cli.model.dit import DiTConfig
from oasis_cli.model.oasis import Oasis, OasisConfig
from oasis_cli.pipeline.run import upscale
from oasis_cli.pipeline.torch_backend import TorchBackend

LOSSLESS = EncodeOptions(codec="ffv1", overwrite=True)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A network that changes the picture, whose frames depend on their window."""
    torch.manual_seed(2)
    dit = DiTConfig(width=32, layers=1, heads=2, ffn=32, latent_channels=4)
    network = Oasis(OasisConfig(dit=dit, decoder=DecoderConfig(latent_channels=4)))
    for parameter in network.parameters():
        if not parameter.abs().sum():
            torch.nn.init.normal_(parameter, std=0.05)
    path = tmp_path_factory.mktemp("net") / "net.safetensors"
    save_model(network, path, name="net", provenance={"trained": "no"})
    return path


@pytest.fixture
def options(weights):
    windows = WindowOptions(frames=5, overlap=2)
    plain = Options(scale=2, model=str(weights), device="cpu", precision="fp32", windows=windows)
    return replace(plain, encode=LOSSLESS)


@pytest.fixture
def loads(monkeypatch):
    """What was loaded."""
    found, load = [], TorchBackend.load
    monkeypatch.setattr(
        TorchBackend, "load", lambda self, spec: found.append(spec) or load(self, spec)
    )
    return found


def pictures(frames=12):
    random = np.random.default_rng(0)
    return [random.integers(0, 255, (24, 32, 3), np.uint8) for _ in range(frames)]


def test_the_public_names_are_there_and_importing_them_not_is_fast():
    for name in ("Upscaler", "Options", "Result", "OasisError"):
        assert name in dir(oasis_cli) and getattr(oasis_cli, name)
    with pytest.raises(AttributeError, match="nothing_here"):
        _ = oasis_cli.nothing_here
    code = "import sys, oasis_cli; print('torch' in sys.modules, 'av' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["False", "False"]


def test_a_file_is_what_the_command_makes(options, weights, make_clip, tmp_path, look):
    source = make_clip(frames=12, cuts=(7,))
    result = Upscaler(options).file(source, tmp_path / "a.mkv")
    command = ["upscale", source, tmp_path / "b.mkv", "--model", weights, "--scale", 2, "--window",
               5, "--overlap", 2, "--device", "cpu", "--precision", "fp32", "--codec", "ffv1",
               "--quiet"]  # fmt: skip
    assert CliRunner().invoke(app, [str(word) for word in command]).exit_code == 0
    assert upscale(source, tmp_path / "c.mkv", options) == replace(
        result, target=str(tmp_path / "c.mkv"), seconds=pytest.approx(result.seconds, abs=60)
    )
    ours, theirs, old = (look.frames(tmp_path / f"{name}.mkv") for name in "abc")
    assert result.frames == len(ours) == 12 and result.size == (64, 48)
    assert all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))
    assert all(np.array_equal(a, b) for a, b in zip(ours, old, strict=True))


def test_a_long_file_is_made_of_segments_and_goes_on_where_it_was(
    options, make_clip, tmp_path, look
):
    source, jobs = make_clip(frames=40), JobOptions(resume=True, segment_frames=10, workers=1)
    events = []
    with Upscaler(options, report=events.append) as ours:
        ours.file(source, tmp_path / "whole.mkv")
        ours.file(source, tmp_path / "parts.mkv", jobs=jobs)
    assert any("looking through the input" in event.get("text", "") for event in events)
    whole, parts = (look.frames(tmp_path / f"{name}.mkv") for name in ("whole", "parts"))
    assert all(np.array_equal(a, b) for a, b in zip(whole, parts, strict=True))


def test_the_model_is_loaded_once_for_each_form(options, make_clip, tmp_path, loads):
    ours, source = Upscaler(options), make_clip(frames=6)
    assert not loads
    ours.file(source, tmp_path / "a.mkv")
    ours.preview(source, tmp_path / "a.png")
    list(ours.frames(pictures(5), scale=1.5))
    ours.file(source, tmp_path / "b.mkv", strength=0.5, scale=3)
    ours.estimate(ours.plan(source, tmp_path / "c.mkv"))
    assert len(loads) == 1
    list(ours.frames(pictures(5), precision="bf16"))
    assert [spec.precision for spec in loads] == ["fp32", "bf16"]
    ours.release()
    list(ours.frames(pictures(5), precision="bf16"))
    assert len(loads) == 3


def test_threads_that_share_one_get_what_one_alone_gets(options, make_clip, tmp_path, look):
    ours = Upscaler(options)
    sizes = [(32, 24), (48, 32), (32, 24), (40, 40)]
    sources = [
        make_clip(f"{n}.mkv", frames=10, size=size, cuts=(1,) * (n % 2), sound=False)
        for n, size in enumerate(sizes)
    ]

    def work(name):
        return lambda n: ours.file(sources[n], tmp_path / f"{name}{n}.mkv")

    for n in range(4):
        work("alone")(n)
    frames = [list(ours.frames(pictures())) for _ in range(2)]
    with ThreadPoolExecutor(4) as pool:
        beside = [pool.submit(lambda: list(ours.frames(pictures()))) for _ in range(2)]
        list(pool.map(work("beside"), range(4)))
    for n in range(4):
        pair = (look.frames(tmp_path / f"{name}{n}.mkv") for name in ("alone", "beside"))
        assert all(np.array_equal(a, b) for a, b in zip(*pair, strict=True))
    for future in beside:
        assert all(np.array_equal(a, b) for a, b in zip(frames[0], future.result(), strict=True))


def test_frames_are_those_of_a_file(options, tmp_path, make_clip, look):
    source = make_clip("in.mkv", frames=12, sound=False, codec="libx264rgb", pix_fmt="rgb24")
    frames = list(Upscaler(options).frames(look.frames(source)))
    Upscaler(options).file(source, tmp_path / "out.mkv", encode=replace(LOSSLESS, pix_fmt="gbrp"))
    for mine, theirs in zip(frames, look.frames(tmp_path / "out.mkv"), strict=True):
        assert mine.shape == (48, 64, 3) and mine.dtype == np.uint8
        assert np.abs(mine.astype(int) - theirs).max() <= 1


def test_frames_come_as_tensors_too_and_none_make_none(options):
    ours = Upscaler(options)
    assert list(ours.frames([])) == []
    (first, *_) = ours.frames(torch.rand(5, 3, 24, 32) * 2 - 1, size=(64, 60))
    assert first.shape == (3, 60, 64)
    with pytest.raises(UsageError, match="frame is"):
        list(ours.frames([np.zeros((4, 4), np.uint8)]))


def test_frames_fit_into_the_memory_that_is_there(options, monkeypatch):
    said = []
    monkeypatch.setattr("oasis_cli.pipeline.plan.free_memory", lambda device: 1 << 20)
    ours = Upscaler(options, report=said.append)
    assert len(list(ours.frames(pictures()))) == 12
    assert "are needed and 1 MiB are free" in said[0]["text"]


def test_a_server_gives_frames_by_number(options):
    frames = pictures()
    server = Upscaler(options).server(frames.__getitem__, len(frames), (32, 24))
    assert server.size == (64, 48) and len(server) == 12
    assert server[7].shape == (48, 64, 3)


def test_fidelity_is_asked_for_call_by_call(options):
    ours, frames = Upscaler(options), pictures(5)
    full, none = (list(ours.frames(frames, strength=strength))[2] for strength in (1, 0))
    bicubic = F.interpolate(
        torch.from_numpy(frames[2]).permute(2, 0, 1)[None].float(), scale_factor=2, mode="bicubic"
    )[0].permute(1, 2, 0)
    assert np.abs(none - bicubic.clamp(0, 255).numpy()).max() <= 1
    assert not np.array_equal(full, none)


def test_a_plan_refuses_before_anything_is_loaded(options, tiny_clip, tmp_path, loads):
    ours = Upscaler(options)
    with pytest.raises(UsageError, match="a scale of 9"):
        ours.file(tiny_clip, tmp_path / "o.mkv", scale=9)
    with pytest.raises(UsageError, match="no such option"):
        ours.file(tiny_clip, tmp_path / "o.mkv", scales=2)
    with pytest.raises(OasisError, match="does not exist"):
        ours.plan(tmp_path / "none.mp4", tmp_path / "o.mkv")
    assert not loads and not (tmp_path / "o.mkv").exists()


def test_a_model_of_ones_own_is_used_as_it_is(options, tiny_clip, tmp_path, look, loads):
    def white(low, size, tile=None):
        return torch.ones(1, low.shape[1], 3, *size)

    ours = Upscaler(options, model=white)
    ours.file(tiny_clip, tmp_path / "o.mkv")
    assert min(frame.min() for frame in look.frames(tmp_path / "o.mkv")) > 250
    assert next(iter(ours.frames(pictures(5)))).min() == 255
    assert not loads


def test_an_estimate_knows_seconds_memory_and_disk(options, make_clip, tmp_path):
    ours = Upscaler(options)
    needs = ours.estimate(ours.plan(make_clip(frames=12), tmp_path / "o.mkv"))
    assert needs.seconds > 0 and needs.memory > 0 and needs.disk > 0
    assert not (tmp_path / "o.mkv").exists()


def test_what_the_documentation_named_before_still_works(options, tiny_clip, tmp_path):
    from oasis_cli.checkpoints.format import load_model
    from oasis_cli.evaluation.measure import measure
    from oasis_cli.pipeline.clips import open_clip
    from oasis_cli.pipeline.run import Options as SameOptions
    from oasis_cli.pipeline.run import upscale as same
    from oasis_cli.stream import enlarge_frames

    assert SameOptions is Options and callable(measure) and callable(open_clip)
    events = []
    same(tiny_clip, tmp_path / "o.mkv", options, report=events.append)
    assert "progress" in {event["event"] for event in events}
    model = load_model(options.model, device="cpu")
    assert next(enlarge_frames(pictures(5), model, scale=2)).shape == (48, 64, 3)
