import json
import math
import sys
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from oasis_cli.cli.main import app
from oasis_cli.errors import OasisError, UsageError
from oasis_cli.evaluation.compare.look import look
from oasis_cli.evaluation.looks import ALONE, WITH_INPUT, measure_looks
from oasis_cli.pipeline.clips import Clip


@pytest.fixture(scope="module")
def low():
    """Four frames of smooth light with a moving edge: (4, 3, 128, 128) in [-1, 1]."""
    noise = torch.randn(4, 3, 128, 128, generator=torch.Generator().manual_seed(2))
    frames = torch.linspace(-0.2, 0.2, 128).expand(3, 128, 128) + 0.02 * noise
    for t in range(4):
        frames[t, :, 80:, 10 + t : 30 + t] += 0.5
    return frames


def enlarged(frames):
    return F.interpolate(frames, scale_factor=2, mode="bicubic").clamp(-1, 1)


def test_an_output_has_scores_without_any_other_video(low):
    scores = measure_looks(Clip.of("out", enlarged(low)))
    assert tuple(scores.columns) == ALONE and scores.frames == 4
    assert math.isnan(scores.columns["change"][0]) and not math.isnan(scores.columns["change"][1])
    data = json.loads(json.dumps(scores.to_dict(), allow_nan=False))
    assert data["reference"] is None and data["input"] is None
    assert "needs --ref" in data["notes"][0]


def test_what_a_restorer_adds_is_told_against_its_input(low):
    """A weave is hatching, a weave that blinks is flicker; bicubic has neither."""
    weave = 0.1 * torch.sin(torch.arange(256) * math.pi / 2).expand(1, 3, 256, 256)
    blink = weave * torch.tensor([1.0, -1.0]).view(2, 1, 1, 1)
    plain, woven, restless = (
        measure_looks(Clip.of("out", enlarged(low[:2]) + more), Clip.of("in", low[:2])).means()
        for more in (0, weave, blink)
    )
    assert plain["flicker"] < 0.3 and plain["hatching"] == 1
    assert woven["hatching"] > 5 and restless["flicker"] > 3
    assert restless["change"] > woven["change"] + 3


def test_the_scores_are_those_of_a_comparison(low):
    clips = [Clip.of("in", low[:2]), Clip.of("out", enlarged(low[:2]))]
    curves = look(clips, extra=WITH_INPUT).curves
    columns = measure_looks(clips[1], clips[0]).columns
    for name in ("sharpness", "blockiness", "change", *WITH_INPUT):
        assert columns[name][1:] == pytest.approx(curves[name][1][1:])


def test_scores_can_be_chosen_and_a_border_left_out(low):
    framed = enlarged(low)
    framed[..., :8] = torch.arange(4).view(4, 1, 1, 1) / 4
    still = Clip.of("out", framed[:1].expand(4, -1, -1, -1).clone())
    scores = measure_looks(still, only=["change"])
    assert scores.means() == {"change": 0}
    chosen = {"only": ["change"], "border": 8}
    assert measure_looks(Clip.of("out", framed), **chosen).means() == pytest.approx(
        measure_looks(Clip.of("out", enlarged(low)), **chosen).means()
    )
    with pytest.raises(UsageError, match="border of 125"):
        measure_looks(still, border=125)


def test_pictures_are_judged_by_pyiqa_without_a_reference(low, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyiqa", SimpleNamespace(create_metric=_Judge))
    scores = measure_looks(Clip.of("out", low), only=["sharpness"], extra=["musiq"])
    assert scores.columns["musiq"] == [1, 1, 1, 1] and len(scores.columns) == 2


class _Judge:
    """As pyiqa's: says how many pictures it was given."""

    metric_mode = "NR"

    def __init__(self, name, device):
        assert (name, device) == ("musiq", "cpu")

    def __call__(self, *pictures):
        return torch.tensor([[float(len(pictures))]])


def test_an_input_of_another_length_or_shape_is_refused(low):
    with pytest.raises(OasisError, match="out has 3 frames, in has more"):
        measure_looks(Clip.of("out", enlarged(low)[:3]), Clip.of("in", low))
    with pytest.raises(UsageError, match="the shapes differ"):
        measure_looks(Clip.of("out", enlarged(low)), Clip.of("in", low[..., :32]))


def test_the_metrics_command_needs_no_reference(make_clip, capsys):
    small, large = make_clip("in.mp4", frames=2), make_clip("out.mp4", frames=2, size=(64, 48))

    def run(*words):
        with pytest.raises(SystemExit) as left:
            app(["metrics", str(large), *words, "--quiet"])
        assert left.value.code == 0
        return capsys.readouterr().out

    assert run("--csv").startswith(f"frame,{','.join(ALONE)}\n")
    assert "out.mp4, made from in.mp4: 2 frames" in run("--input", str(small))
