"""The loop: stages in order, resume without a trace, errors in a sentence."""

import dataclasses
import json
import math
import subprocess
import sys
import time
from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from oasis_cli.errors import OasisError, UsageError
from oasis_cli.train import losses
from oasis_cli.train.adversary import Adversary, Judge
from oasis_cli.train.loop import RunOptions, Trainer
from oasis_cli.train.presets import PRESETS, LossWeights, Stage, read_config
from oasis_cli.train.schedule import rate_at, stage_at
from oasis_cli.train.state import DENSE, LAST, STATE
from oasis_cli.weights import describe, load_model, sha256


def trainer(toy, folder, out, **options):
    out.mkdir(exist_ok=True)
    defaults = {"max_steps": 10, "workers": 1, "log_every": 5}
    return Trainer(toy, RunOptions(data=folder, out=out, **defaults | options), lambda text: None)


def test_a_run_warms_up_calibrates_routes_and_writes_its_files(toy, footage_folder, tmp_path):
    out = tmp_path / "run"
    trainer(toy, footage_folder, out).run()

    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [5, 10]
    assert {"pixel", "difference", "norm", "steps_per_second", "data_share"} <= lines[0].keys()
    assert "frequency" in lines[1]
    assert set("".join(describe(str(out / DENSE))["heads"]["layers"])) == {"g"}
    assert describe(str(out / LAST))["provenance"]["steps"] == 10
    assert load_model(str(out / LAST)).config == toy.model
    final = load_model(str(out / "toy.safetensors"))
    parts = [load_model(str(out / name)) for name in ("stage-0.safetensors", LAST)]
    weight, first, last = (m.decoder.last.weight for m in (final, *parts))
    torch.testing.assert_close(weight, 0.25 * first + 0.75 * last, atol=1e-4, rtol=0)
    assert len(describe(str(out / "toy.safetensors"))["provenance"]["footage"]) == 64
    assert (out / "samples-000010.png").stat().st_size > 1000


def test_five_steps_and_five_more_equal_ten(toy, footage_folder, tmp_path):
    whole = trainer(toy, footage_folder, tmp_path / "whole")
    whole.run()

    # Progress counts towards the same ten steps; the first part is stopped after five.
    part = trainer(toy, footage_folder, tmp_path / "part")
    part._progress = lambda: 1.0 if part.step >= 5 else part.step / 10
    part.run()
    rest = trainer(toy, footage_folder, tmp_path / "part", resume=True)
    assert rest.step == 5
    rest.run()

    assert rest.model.dit.table == whole.model.dit.table
    for one, other in ((rest.model, whole.model), (rest.average, whole.average)):
        for name, tensor in other.state_dict().items():
            assert torch.equal(one.state_dict()[name], tensor), name


def test_a_run_killed_at_any_time_resumes_from_its_last_state(toy, footage_folder, tmp_path):
    out = tmp_path / "run"
    trainer(toy, footage_folder, out, max_steps=2).run()
    before = (out / STATE).read_bytes()
    config = tmp_path / "toy.toml"
    script = f"""
from pathlib import Path
from oasis_cli.train.loop import RunOptions, Trainer
from oasis_cli.train.presets import read_config
if __name__ == "__main__":
    options = RunOptions(data=Path({str(footage_folder)!r}), out=Path({str(out)!r}), resume=True,
                         max_steps=100000, workers=1, save_minutes=0.0)
    Trainer(read_config({str(config)!r}), options, lambda text: None).run()
"""
    path = tmp_path / "run.py"
    path.write_text(script)
    run = subprocess.Popen([sys.executable, str(path)])
    deadline = time.monotonic() + 60
    while (out / STATE).read_bytes() == before and time.monotonic() < deadline:
        time.sleep(0.01)
    run.kill()
    run.wait()

    again = trainer(toy, footage_folder, out, resume=True)
    assert again.step > 2
    again.pool.codecs.close()


def test_training_learns(toy, footage_folder, tmp_path):
    """The loss on one batch falls when it is seen again and again."""
    run = trainer(toy, footage_folder, tmp_path / "run", max_steps=60)
    low, high = run.pool.batch(0)
    seen = [float(run._step(low, high, 0.1)["pixel"]) for _ in range(60)]
    run.pool.codecs.close()
    assert seen[-1] < 0.96 * seen[0]


def test_a_loss_that_is_no_number_names_the_step(toy, footage_folder, tmp_path):
    run = trainer(toy, footage_folder, tmp_path / "run")
    run.model.decoder.last.bias.data[0] = float("nan")
    with pytest.raises(OasisError, match="loss of step 0 is not a finite number"):
        run.run()
    run.pool.codecs.close()


def test_resuming_another_configuration_is_refused(toy, footage_folder, tmp_path):
    out = tmp_path / "run"
    trainer(toy, footage_folder, out, max_steps=2).run()
    other = dataclasses.replace(toy, seed=5)
    with pytest.raises(UsageError, match="another configuration"):
        trainer(other, footage_folder, out, resume=True)
    with pytest.raises(UsageError, match="no run to resume"):
        trainer(toy, footage_folder, tmp_path / "empty", resume=True)


def test_a_run_can_start_from_weights_and_skips_the_warm_up(toy, footage_folder, tmp_path):
    out = tmp_path / "run"
    trainer(toy, footage_folder, out).run()
    again = trainer(toy, footage_folder, tmp_path / "next", start_from=out / LAST, max_steps=2)
    assert [stage.name for stage in again.stages] == ["routed"]
    assert again.model.dit.table.layers == tuple(describe(str(out / LAST))["heads"]["layers"])
    again.run()
    # Provenance tells the whole descent, by which a head table knows whom it fits.
    before = describe(str(out / LAST))["provenance"]
    assert before["dense"] == sha256(out / DENSE)
    started = describe(str(tmp_path / "next" / LAST))["provenance"]["started_from"]
    assert started == before | {"sha256": sha256(out / LAST)}


def test_trained_weights_keep_their_linear_map_whatever_is_known_of_them(
    toy, footage_folder, tmp_path
):
    out, edited = tmp_path / "run", tmp_path / "edited.safetensors"
    trainer(toy, footage_folder, out, max_steps=4).run()
    with safe_open(out / LAST, "pt") as file:
        metadata = file.metadata() | {"provenance": json.dumps({"stage": "by hand"})}
    state = load_file(out / LAST)
    save_file(state, edited, metadata)
    again = trainer(toy, footage_folder, tmp_path / "next", start_from=edited, max_steps=1)
    again.pool.codecs.close()
    weight = again.model.to_latent.linear.weight
    assert torch.equal(weight, state["to_latent.linear.weight"].float())


def test_adversarial_training_moves_both_sides_and_ends_with_its_stage(
    toy, footage_folder, tmp_path
):
    weights = LossWeights(adversarial=0.1, matching=0.1)
    stages = (
        Stage(name="gan", share=0.5, routed=False, losses=weights),
        Stage(name="plain", share=0.5, routed=False),
    )
    run = trainer(dataclasses.replace(toy, stages=stages), footage_folder, tmp_path / "run")
    before = [p.clone() for p in run.judge.net.parameters()]
    found = run._step(*run.pool.batch(0), 0.5)
    assert {"adversarial", "matching", "judge"} <= found.keys()
    after = run.judge.net.parameters()
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
    run._enter(1, None)
    assert "judge" not in run._step(*run.pool.batch(1), 0.6)
    run.pool.codecs.close()


def test_discriminators_go_on_where_their_state_was_saved():
    clips = torch.rand(4, 1, 4, 3, 16, 16).unbind()
    one, other = (Judge(1e-3, 4, torch.device("cpu"), width=4) for _ in range(2))
    one.learn(*clips[:2], len)
    other.load_state_dict(deepcopy(one.state_dict()))
    assert one.learn(*clips[2:], len) == other.learn(*clips[2:], len)
    for a, b in zip(one.net.parameters(), other.net.parameters(), strict=True):
        assert torch.equal(a, b)


def test_discriminators_tell_real_from_damaged(toy):
    """What they are for: after some updates clean clips score higher than blurred ones."""
    judge = Judge(1e-3, 4, torch.device("cpu"), width=8)
    for _ in range(30):
        clean = torch.rand(2, 4, 3, 16, 16).round() * 2 - 1
        blurred = F.avg_pool3d(clean.transpose(1, 2), 3, 1, 1).transpose(1, 2)
        judge.learn(blurred, clean, len)
    (frame, motion), _ = judge.net(clean)
    (frame_blurred, motion_blurred), _ = judge.net(blurred)
    assert frame.mean() > frame_blurred.mean() + 0.5
    assert motion.mean() > motion_blurred.mean() + 0.1


def test_the_schedule_ends_every_stage_at_its_own_rate():
    stages = [
        Stage(name="a", share=0.25, rate=(1.0, 0.5)),
        Stage(name="b", share=0.75, rate=(0.4, 0.0)),
    ]
    assert [stage_at(stages, p) for p in (0, 0.2499, 0.25, 0.99, 1)] == [0, 0, 1, 1, 1]
    assert rate_at(stages, 0, 0.0, 100, 10) == 1.0
    assert rate_at(stages, 0, 0.2499999, 100, 10) == pytest.approx(0.5)
    assert rate_at(stages, 1, 0.25, 4, 10) == pytest.approx(0.2)  # half-way up the rise
    assert rate_at(stages, 1, 1.0, 100, 10) == 0.0


def test_losses_are_zero_for_equal_clips_and_follow_their_formulas():
    a, b = torch.rand(2, 4, 3, 16, 16), torch.rand(2, 4, 3, 16, 16)
    for loss in (losses.charbonnier, losses.frame_difference, losses.frequency):
        assert loss(a, a) <= 1e-3 + 1e-6 < loss(a, b)
    steady = a + 0.3  # a constant error does not flicker
    assert losses.frame_difference(steady, a) < 1e-6
    assert losses.charbonnier(steady, a) == pytest.approx(0.3, abs=1e-4)
    assert losses.frame_difference(a[:, :1], b[:, :1]) == 0
    assert losses.log_error(steady, a, floor=0.0) == pytest.approx(math.log(0.09), abs=1e-3)
    assert losses.log_error(a, a) == pytest.approx(math.log(1e-3), abs=1e-3)
    assert losses.structure(a[0], a[0]) < 1e-6 < 0.5 < losses.structure(a[0], b[0])
    good, bad = [torch.full((2, 1), 2.0)], [torch.full((2, 1), -2.0)]
    assert losses.hinge_discriminator(good, bad) == 0
    assert losses.hinge_discriminator(bad, good) == 6
    assert losses.hinge_generator(good) == -2


def test_lattice_hears_a_mesh_and_little_else():
    torch.manual_seed(0)
    clean = torch.rand(2, 9, 3, 64, 64)
    mesh = torch.zeros(64, 64)
    mesh[::4, ::4] = 0.02
    error = 0.02 * torch.randn(clean.shape)
    assert losses.lattice(clean, clean) == 0
    assert losses.lattice(clean + 0.3, clean) < 1e-6  # another brightness is no mesh
    faint = losses.lattice(clean + mesh, clean)
    assert losses.charbonnier(clean + mesh, clean) < 0.2 * losses.charbonnier(clean + error, clean)
    assert losses.lattice(clean + error, clean) < faint


@pytest.mark.parametrize("seed", range(6))
def test_the_perceptual_loss_sees_the_same_places_of_both_clips_in_one_size(seed):
    torch.manual_seed(seed)
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    where = torch.stack([y, x, 100 * torch.ones_like(x)]).expand(2, 5, 3, 64, 64)
    where = where + torch.arange(5.0).view(5, 1, 1, 1) * torch.tensor([0.0, 0, 1]).view(3, 1, 1)
    one, other = losses.views(losses.pick([where, where + 7], 2))
    assert one.shape == other.shape == (4, 3, 56, 56)
    torch.testing.assert_close(other, one + 7, atol=1e-3, rtol=0)
    steps = one[:, 0].diff(dim=1)[:, 4:-4]  # of the row number: 1 as it is, 3/4 enlarged
    assert torch.allclose(steps, torch.ones(()), atol=1e-4) or torch.allclose(
        steps, torch.tensor(0.75), atol=0.1
    )
    assert len(one[:, 2].round().unique()) == 2  # two frames


def test_the_adversary_scores_pixels_and_motion():
    scores, features = Adversary(width=4)(torch.rand(1, 4, 3, 16, 16))
    assert [tuple(s.shape) for s in scores] == [(4, 1, 16, 16), (2, 1, 2, 2)]
    assert len(features) == 6


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("seed = 'x'", "seed is int"),
        ("sead = 1", "no setting called 'sead'"),
        ("[data]\nbatchsize = 3", "data: there is no setting called 'batchsize'"),
        ("preset = 'paper'\ncore = 2", "cannot look at 16 pixels"),
        ("preset = 'huge'", "starts from 'huge'"),
        ("seed = ", "not a TOML file"),
        ("[[stages]]\nname = 'a'\nshare = 0.5", "do not add up to 1"),
    ],
)
def test_a_wrong_configuration_is_one_sentence(tmp_path, text, sentence):
    path = tmp_path / "run.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=sentence):
        read_config(str(path))


def test_presets_are_complete():
    assert read_config("small") is PRESETS["small"]
    with pytest.raises(UsageError, match="no preset"):
        read_config("nothing")
