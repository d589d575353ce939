import io
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image
from toys import bicubic

from oasis_cli.checkpoints.format import save_model
from oasis_cli.errors import MediaError, UsageError
from oasis_cli.evaluation.calibrate import CalibrateOptions, calibrate
from oasis_cli.evaluation.preview import preview, seam_lines, seams
from oasis_cli.jobs.execute import JobOptions, carry_out
from oasis_cli.media.input.probe import probe
from oasis_cli.model.decoders.fast import DecoderConfig
from oasis_cli.model.dit import DiTConfig
from oasis_cli.model.heads.assignment import Rule
from oasis_cli.model.heads.table_file import dump
from oasis_cli.model.oasis import Oasis, OasisConfig
from oasis_cli.pipeline.fidelity import Seam
from oasis_cli.pipeline.plan import Options, make_plan
from oasis_cli.pipeline.run import upscale
from oasis_cli.pipeline.threads import Stop
from oasis_cli.pipeline.windows import WindowOptions
from oasis_cli.upscaler import Upscaler

OPTIONS = Options(scale=2, device="cpu", windows=WindowOptions(frames=5, overlap=2))


def brighter(low, size, tile=None):
    return bicubic(low, size) + 0.5


def test_a_preview_shows_before_and_after_at_the_moment(make_clip, tmp_path):
    source = make_clip(frames=20, cuts=(10,))
    made = preview(source, tmp_path / "p.png", OPTIONS, 0.6, model=brighter)
    assert made.seconds == pytest.approx(0.6)
    picture = np.asarray(Image.open(tmp_path / "p.png"))
    assert picture.shape == (48, 128, 3)
    assert np.array_equal(picture, made.picture.numpy())
    assert picture[:, 70:].mean() - picture[:, :60].mean() > 30


def test_a_preview_of_no_moment_is_of_the_middle_and_beside_the_video_to_be(make_clip, tmp_path):
    said = []
    made = preview(
        make_clip(frames=20), tmp_path / "out.mp4", OPTIONS, model=brighter, say=said.append
    )
    assert made.seconds == pytest.approx(0.4) and made.target == tmp_path / "out.png"
    assert made.target.is_file() and not (tmp_path / "out.mp4").exists()
    assert "5 frames around 0.40 s to 64x48" in said[0]


def test_a_preview_is_made_by_the_model_of_the_run(make_clip, tmp_path, monkeypatch):
    """Also on a CPU that is told of a faster one."""
    monkeypatch.setattr("torch.get_num_threads", lambda: 1)
    seen, said = [], []

    def load(plan):
        seen.append(plan.options.model)
        return bicubic

    source = make_clip(frames=5)
    upscaler = Upscaler(OPTIONS)
    run = upscaler.plan(source, tmp_path / "out.mp4").options.model
    preview(source, tmp_path / "p.png", OPTIONS, get_model=load, say=said.append)
    assert seen == [run] == ["oasis-small"] and "tiny" not in " ".join(said)


@pytest.mark.parametrize("at", [0.0, 0.38, 0.4, 0.79])
def test_a_preview_never_mixes_scenes(make_clip, tmp_path, at):
    """At 0.4 s a second, brighter scene starts."""
    seen = []

    def spy(low, size, tile=None):
        seen.append(low)
        return bicubic(low, size)

    preview(make_clip(frames=20, cuts=(10,)), tmp_path / "p.png", OPTIONS, at, model=spy)
    means = seen[0][0].mean((1, 2, 3))
    assert means.max() - means.min() < 0.2


def test_a_preview_that_cannot_be_is_refused(tiny_clip, tmp_path):
    with pytest.raises(UsageError, match="pipe"):
        preview("-", tmp_path / "p.png", OPTIONS, 0, model=bicubic)
    with pytest.raises(UsageError, match="pipe"):
        preview(tiny_clip, Path("-"), OPTIONS, 0, model=bicubic)
    with pytest.raises(UsageError, match="nothing at 99 s"):
        preview(tiny_clip, tmp_path / "p.png", OPTIONS, 99, model=bicubic)
    (tmp_path / "p.png").write_text("mine")
    with pytest.raises(MediaError, match="already there"):
        preview(tiny_clip, tmp_path / "p.png", OPTIONS, 0, model=bicubic)


def test_a_finished_run_has_no_seams_on_a_panning_clip(make_clip, tmp_path):
    source = make_clip(frames=30, size=(64, 48), cuts=(17,))
    options = replace(OPTIONS, windows=WindowOptions(frames=9, overlap=2))
    plan = make_plan(probe(source), str(tmp_path / "out.mp4"), options)
    carry_out(plan, JobOptions(), lambda event: None, Stop(), lambda plan: bicubic)
    found = seams(plan)
    assert [s.frame for s in found] == [9, 16, 26]
    assert all(s.ratio < 1.15 for s in found)
    assert "worst ratio" in seam_lines(found)[-1]
    assert "no seams" in seam_lines([])[0]


def test_motion_of_the_input_is_no_seam_and_a_step_of_the_model_is(tmp_path):
    """The pan is four times as fast where the windows meet; a bad model brightens the second."""
    speed = [4 if 7 <= t <= 9 else 1 for t in range(16)]
    source = tmp_path / "uneven.mp4"
    write_pan(source, speed)
    options = replace(OPTIONS, windows=WindowOptions(frames=9, overlap=2), scale=1)

    def ratio(model):
        target = tmp_path / f"{model.__name__}.mp4"
        plan = make_plan(probe(source), str(target), options)
        carry_out(plan, JobOptions(), lambda event: None, Stop(), lambda plan: model)
        return seams(plan)[0]

    calls = []

    def stepping(low, size, tile=None):
        calls.append(low)
        return bicubic(low, size) + 0.6 * (len(calls) - 1)

    fair = ratio(bicubic)
    assert fair.step > 1.3 and 0.85 < fair.ratio < 1.15
    assert ratio(stepping).ratio > 1.15


def write_pan(path, speed):
    """A smooth picture that moves by `speed[t]` pixels at frame t."""
    generator = np.random.default_rng(3)
    wide = np.kron(generator.integers(40, 200, (6, 24, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "10"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        at = 0
        for step in speed:
            at += step
            picture = np.ascontiguousarray(wide[:, at : at + 64])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def test_a_still_seam_has_ratio_one():
    assert Seam(5, 0.0, 0.0).ratio == 1


def test_png_is_what_terminals_get(tiny_clip, tmp_path):
    made = preview(tiny_clip, tmp_path / "p.png", OPTIONS, 0.1, model=bicubic)
    assert Image.open(io.BytesIO(made.png)).size == (128, 48)
    assert made.picture.dtype == torch.uint8


# The preview and the run -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def routed(tmp_path_factory):
    """A network that changes the picture a lot, and a table that routes it otherwise."""
    torch.manual_seed(1)
    dit = DiTConfig(width=72, layers=2, heads=3, ffn=32, latent_channels=4, gate=1)
    small = {"low_width": 8, "low_blocks": 1, "high_width": 8, "high_blocks": 1}
    network = Oasis(OasisConfig(dit=dit, decoder=DecoderConfig(latent_channels=4, **small)))
    for parameter in network.parameters():
        if not parameter.abs().sum():
            torch.nn.init.normal_(parameter, std=0.3)
    folder = tmp_path_factory.mktemp("routed")
    save_model(network, folder / "net.safetensors", name="net", provenance={"trained": "no"})
    clip = write_pan(folder / "pan.mp4", [1] * 9)
    wanted = CalibrateOptions(
        model=str(folder / "net.safetensors"), frames=9, queries=32, rule=Rule(budget=0.7)
    )
    document = calibrate([clip], replace(wanted, resamples=50), lambda event: None)
    (folder / "heads.json").write_text(dump(document))
    return folder


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"heads": "heads.json"},
        {"strength": 0.6, "color_fix": "adain"},
        {"precision": "bf16"},
        {"fit_windows": True, "free": 8 << 20},
    ],
    ids=lambda changes: "+".join(changes) or "plain",
)
def test_a_preview_is_what_the_run_makes(routed, make_clip, tmp_path, monkeypatch, changes):
    plain = Options(scale=2, device="cpu", precision="fp32", model=str(routed / "net.safetensors"))
    if "free" in changes:
        changes = changes | {"precision": "auto"}
        free = changes.pop("free")
        monkeypatch.setattr("oasis_cli.pipeline.plan.free_memory", lambda device: free)
    if "heads" in changes:
        changes = changes | {"heads": str(routed / changes["heads"])}
    options = replace(plain, **changes)
    source = make_clip(frames=12, size=(160, 96))

    made = preview(source, tmp_path / "p.png", options, 0.04)
    upscale(source, tmp_path / "o_%02d.png", options)

    run = np.asarray(Image.open(tmp_path / "o_02.png")).astype(int)
    after = made.picture[:, 320:].numpy().astype(int)
    assert np.abs(after - run)[:, 2:].max() <= 1  # the line covers two columns
    if changes and "free" not in changes:  # and the option does something
        other = preview(source, tmp_path / "plain.png", plain, 0.04).picture[:, 320:]
        assert not np.array_equal(other[:, 2:], made.picture[:, 322:])


def test_a_preview_says_what_short_memory_makes_of_the_run(make_clip, tmp_path, monkeypatch):
    monkeypatch.setattr("oasis_cli.pipeline.plan.free_memory", lambda device: 1 << 20)
    said, source = [], make_clip(frames=12)
    preview(source, tmp_path / "p.png", OPTIONS, 0, model=bicubic, say=said.append)
    assert "MiB are needed and 1 MiB are free" in said[0]


def test_a_preview_leaves_the_video_to_be_alone(tiny_clip, tmp_path):
    (tmp_path / "out.mp4").write_text("the last run's")
    preview(tiny_clip, tmp_path / "out.mp4", OPTIONS, 0, model=bicubic)
    assert (tmp_path / "out.mp4").read_text() == "the last run's"
