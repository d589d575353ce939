"""The loop: stages in order, resume without a trace, errors in a sentence."""

import dataclasses
import json
import math
import subprocess
import sys
import time

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from oasis_cli.checkpoints.format import describe, load_model
from oasis_cli.checkpoints.registry import sha256
from oasis_cli.errors import OasisError, UsageError
from oasis_cli.evaluation.metrics.vgg import VggFeatures
from oasis_cli.train import losses
from oasis_cli.train.options import STATE
from oasis_cli.train.presets import PRESETS, LossWeights, Stage, read_config
from oasis_cli.train.schedule import rate_at, stage_at
from oasis_cli.train.state import DENSE, LAST


def test_a_run_warms_up_calibrates_routes_and_writes_its_files(
    toy, footage_folder, tmp_path, trainer
):
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


def test_five_steps_and_five_more_equal_ten(toy, footage_folder, tmp_path, trainer):
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


def test_a_run_killed_at_any_time_resumes_from_its_last_state(
    toy, footage_folder, tmp_path, trainer
):
    out = tmp_path / "run"
    trainer(toy, footage_folder, out, max_steps=2).run()
    before = (out / STATE).read_bytes()
    config = tmp_path / "toy.toml"
    script = f"""
from pathlib import Path
from oasis_cli.train.loop import Trainer
from oasis_cli.train.options import RunOptions
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


def test_training_learns(toy, footage_folder, tmp_path, trainer):
    """The loss on one batch falls when it is seen again and again."""
    run = trainer(toy, footage_folder, tmp_path / "run", max_steps=60)
    batch = run.pool.batch(0)
    seen = [float(run._step(batch, 0.1)["pixel"]) for _ in range(60)]
    run.pool.codecs.close()
    assert seen[-1] < 0.96 * seen[0]


def test_a_loss_that_is_no_number_names_the_step(toy, footage_folder, tmp_path, trainer):
    run = trainer(toy, footage_folder, tmp_path / "run")
    run.model.decoder.last.bias.data[0] = float("nan")
    with pytest.raises(OasisError, match="loss of step 0 is not a finite number"):
        run.run()
    run.pool.codecs.close()


def test_weights_that_are_no_numbers_are_never_saved(toy, footage_folder, tmp_path, trainer):
    """Saved after every step, the state on disk is the last good one, and can be resumed."""
    out = tmp_path / "run"
    run = trainer(toy, footage_folder, out, save_minutes=0.0)
    step = run._step

    def fails_at_the_seventh(batch, progress):
        if run.step == 7:
            batch = batch._replace(low=batch.low * math.nan)
        return step(batch, progress)

    run._step = fails_at_the_seventh
    with pytest.raises(OasisError, match="loss of step 7 is not a finite number") as caught:
        run.run()
    assert "holds step 7, which was good" in caught.value.hint
    again = trainer(toy, footage_folder, out, resume=True)
    assert again.step == 7
    assert all(p.isfinite().all() for p in again.model.parameters())
    again.run()


def test_a_run_goes_on_after_a_release_that_added_settings(toy, footage_folder, tmp_path, trainer):
    out = tmp_path / "run"
    trainer(toy, footage_folder, out, max_steps=2).run()
    state = torch.load(out / STATE)
    config = json.loads(state["config"])
    del config["adversarial_rise"], config["data"]["cuts"]
    del config["stages"][1]["losses"]["excess"]
    torch.save(state | {"config": json.dumps(config)}, out / STATE)
    again = trainer(toy, footage_folder, out, resume=True)
    assert again.step == 2
    again.pool.codecs.close()
    changed = dataclasses.replace(toy, adversarial_rise=64)  # not what the older release did
    with pytest.raises(UsageError, match="another configuration: adversarial_rise"):
        trainer(changed, footage_folder, out, resume=True)


def test_resuming_another_configuration_is_refused(toy, footage_folder, tmp_path, trainer):
    out = tmp_path / "run"
    trainer(toy, footage_folder, out, max_steps=2).run()
    other = dataclasses.replace(toy, seed=5)
    with pytest.raises(UsageError, match="another configuration: seed"):
        trainer(other, footage_folder, out, resume=True)
    with pytest.raises(UsageError, match="no run to resume"):
        trainer(toy, footage_folder, tmp_path / "empty", resume=True)


def test_a_run_can_start_from_weights_and_skips_the_warm_up(toy, footage_folder, tmp_path, trainer):
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
    toy, footage_folder, tmp_path, trainer
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


def test_excess_hears_a_weave_on_a_wall_and_forgives_missing_texture():
    torch.manual_seed(0)
    wall = torch.zeros(1, 3, 64, 64)
    texture = 0.2 * torch.randn(1, 3, 64, 64)
    edge = (torch.arange(64) > 31).float().expand(1, 3, 64, 64)
    weave = torch.zeros(64, 64)
    weave[::2, ::2], weave[1::2, 1::2] = 0.1, 0.1
    assert losses.excess(wall, wall) == losses.excess(edge, edge) == 0
    assert losses.excess(wall, texture) == 0  # a smooth answer to a rough question
    assert losses.excess(wall + 0.3, wall) < 1e-4  # brightness is another loss's business
    heard = losses.excess(wall + weave, wall)
    assert 0.03 < heard < 0.1
    assert losses.excess(texture + weave, texture) < heard / 3


def test_hatching_hears_a_faint_weave_in_the_grain_of_a_wall_that_the_input_shows_flat():
    torch.manual_seed(0)
    flat = torch.zeros(1, 3, 64, 64)
    grain, noise = 0.01 * torch.randn(2, 1, 3, 64, 64)
    weave = torch.zeros(64, 64)
    weave[::2, ::2], weave[1::2, 1::2] = 0.005, 0.005
    heard = losses.hatching(weave.expand_as(grain), grain, flat)
    assert heard > 0.001
    assert losses.excess(weave.expand_as(grain), grain) < heard / 100  # fainter than the grain
    assert losses.hatching(flat, grain, flat) < 1e-6  # a smooth answer
    assert losses.hatching(0.5 * grain, grain, flat) < heard / 20  # the target's own grain
    assert losses.hatching(grain + 0.3, grain, flat) < heard / 20  # brightness
    assert losses.hatching(weave + grain, grain, 20 * noise) < heard / 10  # a rough input


def test_colour_sees_a_tint_and_no_detail():
    torch.manual_seed(0)
    clean, noise = torch.rand(1, 3, 64, 64), 0.1 * torch.randn(1, 3, 64, 64)
    assert losses.colour(clean + 0.1, clean) == pytest.approx(0.1, abs=1e-4)
    assert losses.colour(clean + noise, clean) < 0.01


def test_artifact_weighs_invented_texture_more_than_a_blurred_edge():
    torch.manual_seed(0)
    clean = (torch.arange(64) > 31).float().expand(1, 3, 64, 64)
    tint, grain = clean + 0.1, clean + 0.1 * torch.randn(1, 1, 64, 64).sign()
    assert losses.charbonnier(tint, clean) == pytest.approx(losses.charbonnier(grain, clean))
    assert losses.artifact(tint, clean) < 0.01 * losses.artifact(grain, clean)


def test_the_vgg_loss_weighs_layers_and_sees_the_same_place(vgg_file):
    vgg = VggFeatures(vgg_file)
    one, other = (torch.rand(2, 3, 32, 32) for _ in range(2))
    layers = (("conv3_3", 2.0), ("conv1_2", 0.5))
    expected = sum(
        weight * (a - b).abs().mean()
        for weight, a, b in zip(
            (0.5, 2.0), *(vgg.taps(x, ["conv1_2", "conv3_3"]) for x in (one, other)), strict=True
        )
    )
    found = losses.vgg_distance(vgg, one, other, layers, False)
    torch.testing.assert_close(found, expected)
    assert losses.vgg_distance(vgg, one, other, layers, True) > found  # ReLU hides differences
    torch.manual_seed(0)
    part, same = losses.cuts([one, one + 1], 16)
    assert part.shape == (2, 3, 16, 16)
    torch.testing.assert_close(same, part + 1)
    assert losses.cuts([one], 0)[0] is one


def test_a_run_with_a_vgg_loss_learns_and_needs_its_file(
    toy, footage_folder, tmp_path, trainer, vgg_file
):
    weights = LossWeights(vgg=0.1, hatching=1.0, warping=1.0)
    stage = Stage(name="vgg", share=1.0, routed=False, losses=weights)
    config = dataclasses.replace(toy, stages=(stage,), vgg_crop=16)
    with pytest.raises(UsageError, match="a loss called vgg, and no features file"):
        trainer(config, footage_folder, tmp_path / "none")
    with pytest.raises(UsageError, match="cannot be read"):
        trainer(config, footage_folder, tmp_path / "bad", vgg=footage_folder / "0.png")
    trainer(config, footage_folder, tmp_path / "run", vgg=vgg_file).run()
    (line, _) = map(json.loads, (tmp_path / "run" / "log.jsonl").read_text().splitlines())
    assert line["vgg"] > 0
    assert line["hatching"] > 0 and line["warping"] >= 0


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
