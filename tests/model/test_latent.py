"""Frames to latents: the first frame, and the edges."""

import torch

from oasis_cli.model.latent import ToLatent, pad


def test_latent_frame_zero_is_the_first_frame_four_times():
    to_latent = ToLatent(3 * 4 * 64)
    to_latent.linear.weight.data = torch.eye(768)
    to_latent.linear.bias.data.zero_()
    clip = torch.rand(1, 5, 3, 16, 16)
    latent = to_latent(clip).detach().unflatten(1, (3, 4, 8, 8))  # colour, frame, row, column
    for frame in range(4):
        assert torch.equal(latent[0, :, frame, 3, 5, 0, 0, 1], clip[0, 0, :, 3, 13])
        assert torch.equal(latent[0, :, frame, 3, 5, 1, 1, 0], clip[0, 1 + frame, :, 11, 5])


def test_padding_repeats_the_last_frame_and_the_edge():
    clip = torch.rand(1, 3, 3, 17, 16)
    padded = pad(clip)
    assert padded.shape == (1, 5, 3, 32, 16)
    assert torch.equal(padded[:, 4], padded[:, 2])
    assert torch.equal(padded[..., 31, :], padded[..., 16, :])
