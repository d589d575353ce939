"""Pixels of a part of the latents."""

import torch

from oasis_cli.model.decoders.wan import WanVAE, WanVAEConfig
from oasis_cli.train.latents import decode_part

TINY = WanVAEConfig(width=4)


def test_a_decoded_part_equals_that_part_of_the_whole():
    decoder = WanVAE(TINY).decoder.double()
    latent = torch.randn(1, 16, 1, 17, 30, dtype=torch.float64, requires_grad=True)
    whole = decoder.decode(latent)
    decoder.checkpointing = True
    part, (rows, cols) = decode_part(decoder, latent, core=2)
    assert part.shape == (1, 1, 3, 16, 16)
    torch.testing.assert_close(part, whole[..., rows, cols], atol=1e-12, rtol=0)
    (gradient,) = torch.autograd.grad(part.square().sum(), latent, retain_graph=True)
    (expected,) = torch.autograd.grad(whole[..., rows, cols].square().sum(), latent)
    torch.testing.assert_close(gradient, expected, atol=1e-10, rtol=1e-9)
