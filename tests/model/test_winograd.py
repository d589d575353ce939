"""The fast convolutions of a CPU against PyTorch's own."""

import pytest
import torch
from torch import nn

from oasis_cli.model import winograd
from oasis_cli.model.winograd import WinogradConv, use_winograd


@pytest.mark.parametrize("values", [1, 20_000, 1 << 19])  # a row of tiles, some, several pictures
@pytest.mark.parametrize(
    ("shape", "outputs"),
    [((1, 8, 4, 4), 8), ((3, 8, 26, 30), 12), ((2, 12, 17, 9), 8), ((1, 8, 1, 1), 8)],
)
def test_the_result_is_the_convolutions(shape, outputs, values, monkeypatch):
    monkeypatch.setattr(winograd, "VALUES", values)
    torch.manual_seed(0)
    plain, fast = (
        kind(shape[1], outputs, 3, padding=1, bias=values > 1) for kind in (nn.Conv2d, WinogradConv)
    )
    fast.load_state_dict(plain.state_dict())
    x = torch.randn(shape)
    with torch.inference_mode():
        for kept in (x, x.contiguous(memory_format=torch.channels_last)):
            torch.testing.assert_close(fast(kept), plain(kept), atol=1e-5, rtol=1e-5)


def test_only_wide_plain_convolutions_in_full_precision_are_done_so():
    kinds = {
        "wide": nn.Conv2d(96, 160, 3, padding=1),
        "narrow": nn.Conv2d(64, 64, 3, padding=1),
        "strided": nn.Conv2d(128, 128, 3, padding=1, stride=2),
        "grouped": nn.Conv2d(128, 128, 3, padding=1, groups=2),
        "unpadded": nn.Conv2d(128, 128, 3),
        "reflecting": nn.Conv2d(128, 128, 3, padding=1, padding_mode="reflect"),
        "sixteen bits": nn.Conv2d(128, 128, 3, padding=1, dtype=torch.bfloat16),
    }
    network = nn.ModuleDict(kinds)
    names = set(network.state_dict())
    use_winograd(network)
    assert [n for n, layer in network.items() if isinstance(layer, WinogradConv)] == ["wide"]
    assert set(network.state_dict()) == names
