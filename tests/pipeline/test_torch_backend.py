"""A checkpoint as PyTorch runs it."""

import pytest
import torch

from oasis_cli.pipeline.torch_backend import load_network, same_for_any_thread_count
from oasis_cli.pipeline.window_runner import WindowRunner
from oasis_cli.pipeline.windows import WindowOptions
from oasis_cli.runtime.devices import capabilities

WINDOWS = WindowOptions(frames=17, overlap=4)


def test_a_network_in_eight_bits_is_the_same_to_a_few_thousandths(tiny_weights):
    plain = load_network(str(tiny_weights), torch.device("cpu"), "bf16")
    rounded = load_network(str(tiny_weights), torch.device("cpu"), "fp8")
    latent = torch.randn(1, plain.config.dit.latent_channels, 2, 4, 4, dtype=torch.bfloat16)
    one, other = plain.refine(latent), rounded.refine(latent)
    assert 0 < (one - other).abs().max() < 0.1 * one.abs().max()


@pytest.mark.parametrize(("kind", "notes"), [("xpu", 1), ("cpu", 0)])
def test_a_device_that_nobody_tried_is_named_once(tiny_weights, monkeypatch, kind, notes):
    about, said = capabilities(kind), []
    monkeypatch.setattr("oasis_cli.pipeline.torch_backend.capabilities", lambda device: about)
    network = load_network(str(tiny_weights), torch.device("cpu"), "fp32")
    runner = WindowRunner(network, (32, 48), WINDOWS, say=said.append)
    for _ in range(2):
        runner(torch.rand(5, 3, 16, 24))
    assert len([text for text in said if "nobody tried such a device" in text]) == notes
    assert len(said) == notes


def test_the_number_of_threads_changes_no_bit():
    from oasis_cli.checkpoints.format import channels_last
    from oasis_cli.model.dit import DiTConfig
    from oasis_cli.model.oasis import Oasis, OasisConfig
    from oasis_cli.model.winograd import use_winograd

    torch.manual_seed(0)
    network = Oasis(OasisConfig(dit=DiTConfig(width=96, layers=1, heads=2, ffn=96))).eval()
    for parameter in network.parameters():
        if not parameter.abs().sum():
            torch.nn.init.normal_(parameter, std=0.02)
    channels_last(network)
    low, before = torch.rand(1, 5, 3, 45, 80) * 2 - 1, torch.get_num_threads()
    with torch.inference_mode():
        plain = network(low, (180, 320))
        use_winograd(network)
        same_for_any_thread_count(network)
        found = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(network(low, (180, 320)))
    torch.set_num_threads(before)
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])
    torch.testing.assert_close(found[0], plain, atol=1e-5, rtol=0)
