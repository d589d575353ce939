"""The loop: stages in order, resume without a trace, errors in a sentence."""

import dataclasses
import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from oasis_cli.checkpoints.format import describe, load_model, save_model
from oasis_cli.checkpoints.registry import sha256
from oasis_cli.errors import OasisError, UsageError
from oasis_cli.model.oasis import Oasis
from oasis_cli.train.presets import LossWeights, Stage
from oasis_cli.train.state import DENSE, LAST


def test_a_run_warms_up_calibrates_routes_and_writes_its_files(
    toy, footage_folder, tmp_path, trainer, monkeypatch
):
    out = tmp_path / "run"
    run = trainer(toy, footage_folder, out)
    monkeypatch.setattr(run.pool.codecs, "crashes", 2)
    run.run()

    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [5, 10]
    assert {"pixel", "difference", "norm", "steps_per_second", "data_share"} <= lines[0].keys()
    assert lines[0]["codec_crashes"] == 2  # whose clips stayed undamaged
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


def test_a_network_learns_what_its_teacher_shows(toy, footage_folder, tmp_path, trainer):
    """The one loss is the distance to the teacher's pictures, so the pupil comes nearer to them."""
    taught = dataclasses.replace(
        toy,
        stages=(
            Stage(
                name="taught",
                share=1.0,
                routed=False,
                losses=LossWeights(pixel=0.0, difference=0.0, teacher=1.0),
            ),
        ),
    )
    with pytest.raises(UsageError, match="a loss called teacher, and no file"):
        trainer(taught, footage_folder, tmp_path / "none")
    teacher = Oasis(toy.model)
    with torch.no_grad():
        teacher.decoder.last.bias.add_(0.3)  # it shows everything brighter
    path = tmp_path / "teacher.safetensors"
    save_model(teacher, path, name="teacher", provenance={})
    run = trainer(taught, footage_folder, tmp_path / "run", teacher=path, max_steps=30)
    batch = run.pool.batch(0)
    distance = []
    for _ in range(30):
        distance.append(run._step(batch, 0.0)["teacher"].item())
        run.step += 1
    run.pool.codecs.close()
    assert distance[0] == pytest.approx(0.3, abs=0.05)
    assert distance[-1] < 0.5 * distance[0]
    assert not any(p.requires_grad for p in run.objective.teacher.parameters())


def test_a_run_with_a_vgg_loss_learns_and_needs_its_file(
    toy, footage_folder, tmp_path, trainer, vgg_file
):
    weights = LossWeights(vgg=0.1, hatching=1.0, warping=1.0)
    stage = Stage(name="vgg", share=1.0, routed=False, losses=weights)
    config = dataclasses.replace(toy, stages=(stage,), vgg_crop=16)
    with pytest.raises(UsageError, match="a loss called vgg, and no file"):
        trainer(config, footage_folder, tmp_path / "none")
    with pytest.raises(UsageError, match="cannot be read"):
        trainer(config, footage_folder, tmp_path / "bad", vgg=footage_folder / "0.png")
    trainer(config, footage_folder, tmp_path / "run", vgg=vgg_file).run()
    (line, _) = map(json.loads, (tmp_path / "run" / "log.jsonl").read_text().splitlines())
    assert line["vgg"] > 0
    assert line["hatching"] > 0 and line["warping"] >= 0
