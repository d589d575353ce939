"""The network as training runs it, replayed from a graph."""

import pytest
import torch

from oasis_cli.checkpoints.format import channels_last
from oasis_cli.model.oasis import Oasis
from oasis_cli.train.objective import Restorer, recorded


def moved(config) -> Oasis:
    """A network none of whose parts does nothing."""
    model = Oasis(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    channels_last(model)
    return model


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_recorded_network_gives_the_same_frames_and_gradients(toy):
    model = moved(toy.model).cuda()
    clips = torch.rand(3, 2, 5, 3, 32, 32, device="cuda") * 2 - 1
    fast, plain = recorded(model, clips[0]), Restorer(model)
    for clip in clips:
        found = []
        for network in (plain, fast):
            with torch.autocast("cuda", torch.bfloat16):
                output = network(clip)
            output.square().mean().backward()
            gradients = torch.cat(
                [p.grad.flatten() for p in model.parameters() if p.grad is not None]
            )
            found.append((output.detach().clone(), gradients))
            with torch.no_grad():  # as an optimiser does
                for parameter in model.parameters():
                    parameter.grad = None
        for one, other in zip(*found, strict=True):
            assert ((one - other).norm() / other.norm()).item() < 1e-2
        with torch.no_grad():
            model.decoder.last.bias.add_(0.1)
