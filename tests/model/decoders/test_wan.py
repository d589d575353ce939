"""The Wan2.1 autoencoder against the diffusers package, and against itself in pieces."""

import copy

import pytest
import torch

from oasis_cli.checkpoints.wan.names import OWN_AUTOENCODER, autoencoder, rename
from oasis_cli.model.decoders.wan import HALO, WanVAE, WanVAEConfig

WIDTH = 4


@pytest.fixture(scope="module")
def ours():
    """A small autoencoder with random weights, float64."""
    torch.manual_seed(0)
    model = WanVAE(WanVAEConfig(width=WIDTH)).double().eval().requires_grad_(False)
    for name, parameter in model.named_parameters():
        if name.endswith("norm.weight"):
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    return model


@pytest.fixture(scope="module")
def reference(ours):
    """The autoencoder of diffusers with the same weights, float64."""
    diffusers = pytest.importorskip(
        "diffusers.models.autoencoders.autoencoder_kl_wan", reason="diffusers is not installed"
    )
    theirs = diffusers.AutoencoderKLWan(base_dim=WIDTH).double().eval().requires_grad_(False)
    by_name = {rename(name, OWN_AUTOENCODER): tensor for name, tensor in ours.state_dict().items()}
    theirs.load_state_dict(
        {
            name: by_name[autoencoder(name)].view(old.shape)
            for name, old in theirs.state_dict().items()
        }
    )
    for module in theirs.modules():
        if isinstance(module, diffusers.WanUpsample):  # it would copy pixels by way of float32
            module.__class__ = torch.nn.Upsample
    return theirs


def latents(frames, rows, cols, batch=1):
    return torch.randn(batch, 16, frames, rows, cols, dtype=torch.float64)


def clip(frames, rows, cols, batch=1):
    return torch.rand(batch, frames, 3, rows, cols, dtype=torch.float64) * 2 - 1


def close(got, expected, atol=1e-12):
    torch.testing.assert_close(got, expected, atol=atol, rtol=0)


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_decoding_equals_diffusers(ours, reference, dtype, atol):
    z = latents(3, 2, 4, batch=2)
    mean, std = ours.decoder.mean, ours.decoder.std
    expected = reference.decode(z * std + mean).sample.transpose(1, 2)
    got = copy.deepcopy(ours).to(dtype).decode(z.to(dtype))
    assert expected.std() > 0.01
    close(got.double(), expected, atol)


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize("frames", [1, 9])
def test_encoding_equals_diffusers(ours, reference, dtype, atol, frames):
    x = clip(frames, 32, 16, batch=2)
    mean, std = ours.encoder.mean, ours.encoder.std
    expected = (reference.encode(x.transpose(1, 2)).latent_dist.mean - mean) / std
    got = copy.deepcopy(ours).to(dtype).encode(x.to(dtype))
    close(got.double(), expected, atol)


@pytest.mark.parametrize("cut", [[1, 4], [1, 1, 1, 1, 1], [1, 3, 1], [2, 3]])
def test_any_cut_into_chunks_decodes_to_the_same_frames(ours, cut):
    z = latents(5, 2, 2)
    whole, _ = ours.decoder.stream(z)
    state, parts = None, []
    for some in z.split(cut, dim=2):
        part, state = ours.decoder.stream(some, state)
        parts.append(part)
    assert [part.shape[1] for part in parts] == [4 * cut[0] - 3, *(4 * n for n in cut[1:])]
    close(torch.cat(parts, dim=1), whole)


@pytest.mark.parametrize("chunk", [1, 2, 3])
def test_any_chunk_encodes_to_the_same_latents(ours, chunk):
    x = clip(17, 16, 16)
    close(ours.encode(x, chunk), ours.encode(x, 99))


def test_exact_tiles_decode_to_the_same_frames(ours):
    z = latents(2, 2, 30)
    close(ours.decode(z, tile=15), ours.decode(z))


def test_the_halo_is_what_a_tile_sees(ours):
    """Move one position of the stem: frames change up to the halo, and not beyond it."""
    features = ours.decoder.frame_features(latents(1, 1, 2 * HALO + 3))
    base = ours.decoder.frames(features)
    features[..., 0] += 100
    moved = (ours.decoder.frames(features) - base).abs().amax((0, 1, 2, 3)).unflatten(0, (-1, 8))
    reach = int((moved.amax(1) > 0).nonzero().max())
    assert HALO - 1 <= reach <= HALO


def test_a_frame_depends_on_the_past_alone(ours):
    z = latents(3, 2, 2)
    before = ours.decode(z)
    z[:, :, 2] += 1
    changed = (ours.decode(z) - before).abs().amax((0, 2, 3, 4)) > 0
    assert changed.tolist() == [False] * 5 + [True] * 4


def test_recomputing_in_the_backward_pass_gives_the_same_gradients(ours):
    z = latents(2, 2, 2).requires_grad_()
    plain = torch.autograd.grad(ours.decode(z).square().sum(), z)[0]
    ours.decoder.checkpointing = True
    try:
        again = torch.autograd.grad(ours.decode(z).square().sum(), z)[0]
    finally:
        ours.decoder.checkpointing = False
    close(again, plain)


def test_the_published_size():
    with torch.device("meta"):
        model = WanVAE()
    assert sum(p.numel() for p in model.parameters()) == 126_892_531


def test_a_clip_that_is_not_of_4k_plus_1_frames_is_refused(ours):
    with pytest.raises(ValueError, match="4 frames"):
        ours.encode(clip(4, 16, 16))
