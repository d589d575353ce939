"""Head tables: what they may say, and the way there and back."""

import pytest
import torch

from oasis_cli.model.attention import (
    RoutedAttention,
    reorder_heads,
)
from oasis_cli.model.heads.routing import HeadTable


def test_routing_and_back_is_bit_exact():
    layer = RoutedAttention(48, 4, 1e-6)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter)
    before = {name: tensor.clone() for name, tensor in layer.state_dict().items()}

    layer.route("wigw")
    assert not torch.equal(layer.state_dict()["qkv.weight"], before["qkv.weight"])
    saved = reorder_heads(layer.state_dict(), "wigw", 4, undo=True)
    layer.route("gwwi")
    layer.route("gggg")

    for name, tensor in before.items():
        assert torch.equal(saved[name], tensor)
        assert torch.equal(layer.state_dict()[name], tensor)


def test_a_head_table_with_a_wrong_letter_is_refused():
    from oasis_cli.errors import WeightsError

    with pytest.raises(WeightsError, match="layer 1"):
        HeadTable(("ggg", "gxg"))
