"""Constants worked into matrices change nothing."""

import pytest
import torch
from toy_networks import toy

from oasis_cli.model.folding import fold
from oasis_cli.model.heads.routing import HeadTable


@pytest.mark.parametrize("changes", [{"ffn_kernel": 3}, {"context_rows": 512}, {}])
def test_folding_the_modulation_changes_nothing(changes):
    model = toy(**changes).double()
    for parameter in model.dit.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    model.dit.route(HeadTable(("wgiw", "igwg")))
    latent = torch.randn(1, 8, 3, 8, 12, dtype=torch.float64)
    before = model.dit(latent)
    fold(model)
    torch.testing.assert_close(model.dit(latent), before, atol=1e-9, rtol=1e-9)
    for block in model.dit.blocks:
        assert torch.equal(block.modulation[[2, 5]], torch.ones(2, 48, dtype=torch.float64))
        assert not block.modulation[:2].any()
