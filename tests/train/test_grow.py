"""A grown network gives the frames of the one it was grown from, and all of it learns."""

from dataclasses import replace

import pytest
import torch

from oasis_cli.checkpoints.format import channels_last, save_model
from oasis_cli.model.fusion import FusionConfig
from oasis_cli.model.heads.routing import HeadTable
from oasis_cli.model.oasis import Oasis, OasisConfig
from oasis_cli.train.grow import grow
from oasis_cli.train.loop import Trainer
from oasis_cli.train.objective import Restorer
from oasis_cli.train.options import RunOptions
from oasis_cli.train.state import LAST

DIT = {
    "more blocks": {"layers": 5},
    "more width and heads": {"width": 72, "heads": 6},
    "twice the width": {"width": 96, "heads": 8},
    "more hidden channels": {"ffn": 96},
}
DECODER = {
    "more decoder blocks": {"low_blocks": 5, "high_blocks": 3},
    "a wider decoder": {"low_width": 28, "high_width": 20},
    "more channels of a frame": {"frame_channels": 80},
}


FUSION = FusionConfig(width=16, heads=2, reach=2, search=2)


def larger(
    config: OasisConfig, latents: int = 0, dit=None, decoder=None, fusion=None
) -> OasisConfig:
    """`config` with changes; `latents` more latent channels."""
    channels = {"latent_channels": config.dit.latent_channels + latents}
    return replace(
        config,
        dit=replace(config.dit, **channels, **(dit or {})),
        decoder=replace(config.decoder, **channels, **(decoder or {})),
        fusion=fusion or config.fusion,
    )


def changes() -> dict[str, dict]:
    found = {name: {"dit": change} for name, change in DIT.items()}
    found |= {name: {"decoder": change} for name, change in DECODER.items()}
    found["more latents"] = {"latents": 5}
    found["a fusion"] = {"fusion": FUSION}
    found["all at once"] = {
        "latents": 5,
        "fusion": FUSION,
        "dit": {"layers": 3, "width": 72, "heads": 6, "ffn": 96},
        "decoder": {name: size for change in DECODER.values() for name, size in change.items()},
    }
    return found


@pytest.fixture(params=[(1, 1), (2, 3)], ids=["patch 1", "patch 2 and a convolution"])
def small(request, toy) -> Oasis:
    """A routed network none of whose parts does nothing."""
    patch, kernel = request.param
    torch.manual_seed(0)
    dit = replace(toy.model.dit, patch=patch, ffn_kernel=kernel)
    model = Oasis(replace(toy.model, dit=dit))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    model.dit.route(HeadTable(("gwiw", "wgwi")))
    channels_last(model)
    return model


CLIP = torch.rand(1, 9, 3, 32, 48, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.mark.parametrize("change", changes().values(), ids=changes().keys())
def test_a_grown_network_gives_the_same_frames(small, change):
    config = larger(small.config, **change)
    with torch.no_grad():
        before = Restorer(small)(CLIP)
        grown = grow(small, config)
        after = Restorer(grown)(CLIP)
    assert grown.config == config
    assert (before - CLIP).abs().max() > 0.05  # the network does something
    assert (after - before).abs().max() < 1e-5


def test_what_is_new_learns(small):
    """After a few steps every parameter of the grown network has moved."""
    torch.manual_seed(1)
    grown = grow(small, larger(small.config, **changes()["all at once"]))
    start = [p.detach().clone() for p in grown.parameters()]
    optimizer = torch.optim.AdamW(grown.parameters(), 1e-3, weight_decay=0.0)
    for _ in range(20):
        (Restorer(grown)(CLIP) - CLIP.flip(-1)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    for (name, parameter), before in zip(grown.named_parameters(), start, strict=True):
        still = (parameter == before).float().mean()
        assert still < 0.02, f"{still:.0%} of {name} does not learn"


def test_new_heads_and_layers_have_the_groups_of_old_ones(small):
    change = {"layers": 4, "width": 72, "heads": 6}
    grown = grow(small, larger(small.config, dit=change))
    # Layers 0 and 2 were there; two more heads take the letters in turn.
    assert grown.dit.table.layers == ("gwiwgw", "gwiwiw", "wgwiwg", "wgwiwi")


def test_a_run_that_starts_from_a_smaller_network_begins_where_that_ended(
    small, toy, footage_folder, tmp_path
):
    start, out = tmp_path / "small.safetensors", tmp_path / "run"
    save_model(small, start, name="small", provenance={"steps": 5}, dtype=torch.float32)
    out.mkdir()
    config = replace(toy, model=larger(small.config, **changes()["all at once"]))
    options = RunOptions(data=footage_folder, out=out, start_from=start, max_steps=2, workers=1)
    run = Trainer(config, options, lambda text: None)
    with torch.no_grad():
        before = Restorer(small)(CLIP)
        for network in (run.model, run.average):
            assert (Restorer(network)(CLIP) - before).abs().max() < 1e-5
    run.run()
    assert (out / LAST).is_file()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"decoder": {"low_blocks": 1}}, "low_blocks would shrink"),
        ({"dit": {"layers": 1}}, "layers would shrink"),
        ({"dit": {"width": 96}}, "heads would be 24 channels wide instead of 12"),
        ({"dit": {"window": (3, 3, 3)}}, "differ in more than their size"),
        ({"decoder": {"memory": 0.5}}, "differ in more than their size"),
    ],
)
def test_what_cannot_be_grown_is_refused(small, change, words):
    with pytest.raises(ValueError, match=words):
        grow(small, larger(small.config, **change))


def test_a_trained_fusion_is_kept_and_another_one_refused(small):
    config = larger(small.config, fusion=FUSION)
    fused = grow(small, config)
    torch.nn.init.normal_(fused.fusion.last.weight, std=0.1)
    grown = grow(fused, larger(config, dit={"layers": 3}))
    with torch.no_grad():
        assert (Restorer(grown)(CLIP) - Restorer(fused)(CLIP)).abs().max() < 1e-5
        assert (Restorer(grown)(CLIP) - Restorer(small)(CLIP)).abs().max() > 1e-2
    with pytest.raises(ValueError, match="differ in more than their size"):
        grow(fused, replace(config, fusion=replace(FUSION, width=32)))
    with pytest.raises(ValueError, match="differ in more than their size"):
        grow(fused, replace(config, fusion=None))
