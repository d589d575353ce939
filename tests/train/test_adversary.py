"""Discriminators: what they judge, when they are heard, and a decoder trained with them alone."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from oasis_cli.checkpoints.format import load_model, networks, save_model
from oasis_cli.errors import UsageError
from oasis_cli.evaluation.metrics.vgg import VggFeatures
from oasis_cli.model.fusion import FusionConfig
from oasis_cli.model.oasis import Oasis
from oasis_cli.train import losses
from oasis_cli.train.adversary import Adversary, Judge
from oasis_cli.train.presets import LossWeights, Stage
from oasis_cli.train.state import LAST

HEARD = LossWeights(adversarial_frame=0.1, adversarial_motion=0.1, matching=0.1)


def run_of(toy, **changes):
    """A run with discriminators in its first half."""
    stages = (
        Stage(name="gan", share=0.5, routed=False, losses=HEARD),
        Stage(name="plain", share=0.5, routed=False),
    )
    return replace(toy, stages=stages, **changes)


def sure_judge() -> Judge:
    """Discriminators that are right often enough to be heard in full."""
    judge = Judge(1e-3, 4, torch.device("cpu"), width=4)
    judge.doubt = dict.fromkeys(judge.NAMES, torch.ones(()))
    return judge


def moved(before, after) -> bool:
    return any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_adversarial_training_moves_both_sides_and_ends_with_its_stage(
    toy, footage_folder, tmp_path, trainer
):
    run = trainer(run_of(toy), footage_folder, tmp_path / "run")
    judges = [p.clone() for p in run.judge.net.parameters()]
    restorer = [p.clone() for p in run.model.parameters()]
    found = run._step(run.pool.batch(0), 0.5)
    names = {"adversarial_frame", "adversarial_motion", "matching", "judge_frame", "judge_motion"}
    assert names <= found.keys()
    assert moved(judges, run.judge.net.parameters())
    assert moved(restorer, run.model.parameters())
    run._enter(1, None)
    assert not any("judge" in name for name in run._step(run.pool.batch(1), 0.6))
    run.pool.codecs.close()


def test_the_restorer_stands_still_while_new_discriminators_learn(
    toy, footage_folder, tmp_path, trainer
):
    config = run_of(toy, discriminator_warm_up=2, adversarial_rise=4)
    run = trainer(config, footage_folder, tmp_path / "run")
    restorer = [p.clone() for p in run.model.parameters()]
    for step in range(2):
        judges = [p.clone() for p in run.judge.net.parameters()]
        found = run._step(run.pool.batch(step), 0.1)
        assert found.keys() == {"judge_frame", "judge_motion"}
        assert moved(judges, run.judge.net.parameters())
        assert not moved(restorer, run.model.parameters())
        run.step += 1
    heard = []
    for step in range(2, 8):
        run._step(run.pool.batch(step), 0.1)
        heard.append(run._weight("adversarial_frame") / HEARD.adversarial_frame)
        run.step += 1
    assert moved(restorer, run.model.parameters())
    assert heard == pytest.approx([0.0, 0.25, 0.5, 0.75, 1.0, 1.0])
    run.pool.codecs.close()


def test_a_discriminator_pulls_as_hard_as_its_share_says():
    output = torch.randn(2, 3, 8, 8, requires_grad=True)
    direction, other = torch.randn(2, 2, 3, 8, 8)
    weights = {"pixel": 0.5, "adversarial_frame": 0.3, "adversarial_motion": 0.0}
    for loudness in (1e-4, 1e3):  # however loud it is by itself
        found = {
            "pixel": (output * direction).sum() * weights["pixel"],
            "adversarial_frame": (output * other).sum() * loudness,
            "adversarial_motion": output.exp().sum() * 0.0,
        }
        gradient = sure_judge().shared_gradient(output, found, weights.__getitem__)
        own = 0.5 * direction
        wanted = own + 0.3 * own.norm() * other / other.norm()
        torch.testing.assert_close(gradient, wanted)


def test_a_discriminator_is_not_heard_more_as_the_picture_gets_worse():
    output = torch.randn(2, 3, 8, 8, requires_grad=True)
    direction, other = torch.randn(2, 2, 3, 8, 8)
    judge = sure_judge()
    added = []
    for worse in (1.0, 100.0, 0.1):
        found = {
            "pixel": (output * direction).sum() * worse,
            "adversarial_frame": (output * other).sum(),
        }
        gradient = judge.shared_gradient(output, found, lambda name: 0.1)
        added.append((gradient - direction * worse).norm() / direction.norm())
    assert added == pytest.approx([0.1, 0.1, 0.01], rel=1e-3)


def test_a_discriminator_is_heard_less_the_more_it_is_fooled():
    output = torch.randn(2, 3, 8, 8, requires_grad=True)
    direction, other = torch.randn(2, 2, 3, 8, 8)
    added = []
    for loss in (None, 2.5, 2.0, 1.75, 1.0, 0.2):  # None: it has not learned anything yet
        judge = sure_judge() if loss else Judge(1e-3, 4, torch.device("cpu"), width=4)
        if loss:
            judge.doubt["frame"] = torch.tensor(loss)
        found = {
            "pixel": (output * direction).sum(),
            "adversarial_frame": (output * other).sum(),
        }
        gradient = judge.shared_gradient(output, found, lambda name: 0.1)
        added.append((gradient - direction).norm() / direction.norm())
    assert added == pytest.approx([0.0, 0.0, 0.0, 0.025, 0.1, 0.1], abs=1e-4)


def test_discriminators_slow_down_with_the_restorer(toy, footage_folder, tmp_path, trainer):
    stages = (Stage(name="gan", share=1.0, routed=False, rate=(1e-3, 0.0), losses=HEARD),)
    run = trainer(replace(toy, stages=stages, warm_up=0), footage_folder, tmp_path / "run")
    rates = []
    for progress in (0.0, 0.5, 1.0):
        run._step(run.pool.batch(0), progress)
        rates.append(run.judge.optimizer.param_groups[0]["lr"] / run.config.discriminator_rate)
    assert rates == pytest.approx([1.0, 0.5, 0.0], abs=1e-3)
    run.pool.codecs.close()


def test_shares_move_the_restorer_and_both_sides_learn(toy, footage_folder, tmp_path, trainer):
    losses = replace(HEARD, pixel=1.0, flow=1.0)
    stages = (Stage(name="gan", share=1.0, routed=False, losses=losses),)
    fusion = FusionConfig(width=16, heads=2, reach=2, search=2)
    model = replace(toy.model, fusion=fusion)
    config = replace(toy, model=model, stages=stages, adversarial_shares=True, adversarial_rise=0)
    run = trainer(config, footage_folder, tmp_path / "run")
    run.step = 1  # past the first step, in which discriminators count nothing yet
    judges = [p.clone() for p in run.judge.net.parameters()]
    restorer = [p.clone() for p in run.model.parameters()]
    flow = [p.clone() for p in run.model.fusion.coarse.flow[-1].parameters()]
    found = run._step(run.pool.batch(0), 0.5)
    assert all(torch.isfinite(loss) for loss in found.values())
    assert moved(
        flow, run.model.fusion.coarse.flow[-1].parameters()
    )  # only the known motion moves it yet
    assert moved(judges, run.judge.net.parameters())
    assert moved(restorer, run.model.parameters())
    run.pool.codecs.close()


def test_a_decoder_is_trained_alone_and_lies_beside_the_other(
    toy, footage_folder, tmp_path, trainer
):
    start, out = tmp_path / "start.safetensors", tmp_path / "run"
    model = Oasis(toy.model)
    with torch.no_grad():
        model.decoder.last.weight.normal_(0, 0.05)
    save_model(model, start, name="toy", provenance={"steps": 1}, dtype=torch.float32)
    stage = Stage(name="sharp", share=1.0, losses=HEARD)
    config = replace(toy, stages=(stage,), only_decoder=True, look="sharp", warm_up=1)
    trainer(config, footage_folder, out, start_from=start, max_steps=4).run()

    path = str(out / LAST)
    assert list(networks(path)) == ["fast", "sharp"]
    before, own, sharp = (
        load_model(*which[:1], decoder=which[1])
        for which in ((str(start), "auto"), (path, "auto"), (path, "sharp"))
    )
    for name, tensor in before.checkpoint_state().items():
        assert torch.allclose(own.checkpoint_state()[name], tensor, atol=1e-3), name  # 16 bits
    assert moved(own.decoder.parameters(), sharp.decoder.parameters())
    assert not moved(own.dit.parameters(), sharp.dit.parameters())

    # The next run goes on from the decoder of that name.
    again = trainer(config, footage_folder, tmp_path / "next", start_from=out / LAST, max_steps=1)
    weight = again.model.decoder.last.weight
    assert torch.equal(weight, sharp.decoder.last.weight)
    again.run()
    assert list(networks(str(tmp_path / "next" / LAST))) == ["fast", "sharp"]


def test_a_decoder_alone_needs_something_that_makes_latents(toy, footage_folder, tmp_path, trainer):
    with pytest.raises(UsageError, match="nothing that makes latents"):
        trainer(replace(toy, only_decoder=True), footage_folder, tmp_path / "run")
    with pytest.raises(UsageError, match="the latents would change"):
        replace(toy, look="sharp")


def test_discriminators_go_on_where_their_state_was_saved():
    clips = torch.rand(4, 1, 4, 3, 16, 16).unbind()
    one, other = (Judge(1e-3, 4, torch.device("cpu"), width=4) for _ in range(2))
    one.learn(*clips[:2], len)
    other.load_state_dict(deepcopy(one.state_dict()))
    assert one.learn(*clips[2:], len) == other.learn(*clips[2:], len)
    assert not moved(one.net.parameters(), other.net.parameters())


def test_discriminators_tell_real_from_damaged(vgg_file):
    """What they are for: after some updates clean clips score higher than blurred ones."""
    judge = Judge(1e-3, 4, torch.device("cpu"), width=8, features=VggFeatures(vgg_file))
    for _ in range(30):
        clean = torch.rand(2, 4, 3, 16, 16).round() * 2 - 1
        blurred = F.avg_pool3d(clean.transpose(1, 2), 3, 1, 1).transpose(1, 2)
        judge.learn(blurred, clean, len)
    real, fake = judge.net(clean)[0], judge.net(blurred)[0]
    least = {"frame": 0.5, "motion": 0.1, "features": 0.3}
    for name, margin in least.items():
        assert real[name].mean() > fake[name].mean() + margin, name


def test_the_adversary_scores_pixels_and_motion():
    scores, features = Adversary(width=4)(torch.rand(1, 4, 3, 16, 16))
    shapes = {name: tuple(score.shape) for name, score in scores.items()}
    assert shapes == {"frame": (4, 1, 16, 16), "motion": (2, 1, 2, 2)}
    assert len(features) == 6


def test_hinge_losses_follow_their_formulas():
    good, bad = torch.full((2, 1), 2.0), torch.full((2, 1), -2.0)
    assert losses.hinge_discriminator(good, bad) == 0
    assert losses.hinge_discriminator(bad, good) == 6
    assert losses.hinge_generator(good) == -2
