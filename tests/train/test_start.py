"""The paper's size at toy size: the start from an autoencoder, and training behind it."""

import dataclasses

import pytest
import torch
from safetensors.torch import save_file

from oasis_cli.errors import UsageError, WeightsError
from oasis_cli.model.decoders.wan import WanVAE, WanVAEConfig
from oasis_cli.model.heads.assignment import Rule
from oasis_cli.model.latent import ToLatent
from oasis_cli.model.oasis import Oasis, OasisConfig
from oasis_cli.train.latents import Encoder
from oasis_cli.train.loop import Trainer
from oasis_cli.train.options import RunOptions
from oasis_cli.train.presets import PRESETS, LossWeights, Stage
from oasis_cli.train.start import WHITE_FLOOR, fit_linear, sweep_sigma, whiten

TINY = WanVAEConfig(width=4)
CPU = torch.device("cpu")


@pytest.fixture
def autoencoder(tmp_path):
    path = tmp_path / "vae.safetensors"
    save_file(WanVAE(TINY).state_dict(), path)
    return path


@pytest.fixture
def paper(toy):
    """The preset's path with a transformer and an autoencoder of toy size."""
    dit = dataclasses.replace(
        toy.model.dit, latent_channels=16, context_rows=512, patch=2, zero_head=False, gate=0.1
    )
    return dataclasses.replace(
        PRESETS["paper"],
        name="toy",
        model=OasisConfig(dit=dit, decoder=TINY),
        data=toy.data,
        rule=Rule(budget=1.0),
        core=2,
        warm_up=2,
        stages=(
            Stage(
                name="latent",
                share=0.5,
                rate=(1e-3, 1e-3),
                losses=LossWeights(pixel=0.0, difference=0.0, latent=1.0),
            ),
            Stage(name="pixels", share=0.5, losses=LossWeights(latent=0.5), rate=(1e-3, 1e-3)),
        ),
    )


def trainer(paper, folder, out, autoencoder, **options):
    out.mkdir(exist_ok=True)
    options = {"max_steps": 6, "workers": 1, "encoder": autoencoder} | options
    said = []
    run = Trainer(paper, RunOptions(data=folder, out=out, **options), said.append)
    return run, said


def test_the_ridge_regression_finds_a_linear_encoder():
    truth, found = ToLatent(16), ToLatent(16)
    clips = [torch.rand(1, 5, 3, 128, 128) * 2 - 1 for _ in range(8)]
    fit = fit_linear(found, clips, truth)
    assert len(fit) == 16 and min(fit) > 0.99
    clip = torch.rand(1, 5, 3, 32, 32) * 2 - 1
    assert (found(clip) - truth(clip)).square().mean() < 0.02 * truth(clip).var()
    noise = fit_linear(found, clips, lambda clip: torch.randn(1, 16, 2, 16, 16))
    assert max(noise) < 0.5
    with pytest.raises(ValueError, match="at least one clip"):
        fit_linear(found, [], truth)


def test_latents_start_as_principal_components_of_unit_variance():
    torch.manual_seed(0)
    to_latent = ToLatent(6)
    mix = torch.randn(6, 3 * 4 * 64, dtype=torch.float64)  # six causes behind all pixels
    sizes = torch.tensor([30.0, 10, 3, 1, 0.5, 0.3], dtype=torch.float64)
    causes = torch.randn(5000, 6, dtype=torch.float64) * sizes
    rows = causes @ torch.linalg.qr(mix.T)[0].T + 0.3
    to_latent.unshuffle = lambda clip: clip[None, None, None]

    kept = whiten(to_latent, [part.float() for part in rows.split(1000)])

    latents = to_latent.linear(rows.float()).double()
    assert kept == pytest.approx(1.0, abs=1e-6)
    assert latents.mean(0).abs().max() < 1e-2
    spread = latents.T.cov()
    expected = (sizes**2 / (sizes**2 + WHITE_FLOOR)).flip(0)
    torch.testing.assert_close(spread.diagonal(), expected, atol=5e-2, rtol=0)
    assert (spread - spread.diagonal().diag()).abs().max() < 1e-2
    with pytest.raises(ValueError, match="at least one clip"):
        whiten(to_latent, [])


def test_the_sigma_sweep_finds_the_step_that_reaches_the_target(paper):
    model = Oasis(paper.model)
    low = torch.rand(1, 5, 3, 32, 32) * 2 - 1
    with torch.no_grad():
        latent = model.to_latent(low)
        target = latent - 0.3 * model.dit(latent)
    errors = sweep_sigma(model, [(low, low)], lambda clip: target)
    assert min(errors, key=errors.__getitem__) == 0.3
    assert errors[0.3] < 1e-10


def test_recomputed_blocks_give_the_same_gradients(paper):
    model = Oasis(paper.model)
    latent = torch.randn(1, 16, 2, 4, 4)
    found = []
    for model.dit.checkpointing in (False, True):
        model.zero_grad()
        model.dit(latent).square().sum().backward()
        found.append([p.grad.clone() for p in model.dit.parameters()])
    for plain, recomputed in zip(*found, strict=True):
        torch.testing.assert_close(recomputed, plain)


def test_the_paper_preset_fits_learns_and_resumes(paper, footage_folder, tmp_path, autoencoder):
    out = tmp_path / "run"
    run, said = trainer(paper, footage_folder, out, autoencoder)
    assert any(line.startswith("linear map: R^2") for line in said)
    assert any(line.startswith("sigma sweep") for line in said)
    frozen = [p.clone() for p in run.model.decoder.parameters()]
    context = run.model.dit.context.clone()
    batch = run.pool.batch(0)
    assert "pixel" not in run._step(batch, 0.1)
    run._enter(1, None)
    seen = [{k: float(v) for k, v in run._step(batch, 0.6).items()} for _ in range(25)]
    assert seen[-1]["latent"] < 0.95 * seen[0]["latent"]
    assert {"pixel", "difference"} <= seen[0].keys()
    assert all(
        torch.equal(a, b) for a, b in zip(frozen, run.model.decoder.parameters(), strict=True)
    )
    assert not torch.equal(context, run.model.dit.context)

    first, _ = trainer(paper, footage_folder, tmp_path / "other", autoencoder, max_steps=3)
    first.run()
    again, _ = trainer(
        paper, footage_folder, tmp_path / "other", autoencoder, max_steps=4, resume=True
    )
    for a, b in zip(again.model.parameters(), first.model.parameters(), strict=True):
        assert torch.equal(a, b)
    again.run()
    assert again.step == 4


def test_the_paper_preset_asks_for_its_encoder(paper, footage_folder, tmp_path):
    with pytest.raises(UsageError, match="no encoder was given"):
        trainer(paper, footage_folder, tmp_path / "run", None)
    wrong = tmp_path / "wrong.safetensors"
    save_file({"encoder.first.weight": torch.zeros(4, 3, 3, 3, 3)}, wrong)
    with pytest.raises(WeightsError, match="no whole Wan2.1 encoder"):
        Encoder(wrong, CPU)
