"""The fast decoder: a frame depends on the past and its halo alone."""

import pytest
import torch
import torch.nn.functional as F
from toy_networks import toy, trained

from oasis_cli.model.decoders import fast as fast_decoder
from oasis_cli.model.decoders.fast import DecoderConfig, FastDecoder
from oasis_cli.train.objective import Restorer


def test_decoding_frame_by_frame_equals_decoding_at_once():
    model = trained(toy()).double()
    clip = torch.rand(2, 9, 3, 32, 48, dtype=torch.float64)
    features = model.decoder.frame_features(torch.randn(2, 8, 3, 4, 6, dtype=torch.float64))
    whole, _ = model.decoder(features, clip)
    state, parts = None, []
    for start, stop in ((0, 1), (1, 3), (3, 9)):
        part, state = model.decoder(features[:, start:stop], clip[:, start:stop], state)
        parts.append(part)
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, atol=1e-13, rtol=0)


@pytest.mark.parametrize("chunk", [1, 2, 3, 4])
@pytest.mark.parametrize("low_frames", [0, 3, 5])
def test_a_clip_in_chunks_sees_the_frames_around_them(chunk, low_frames, monkeypatch):
    """What training computes, at once, is what enlarging computes, cut in time and in space."""
    monkeypatch.setattr(fast_decoder, "CPU_FRAMES", chunk)
    model = trained(toy(frame_channels=5, low_frames=low_frames)).double()
    clip = torch.rand(2, 9, 3, 32, 48, dtype=torch.float64) * 2 - 1
    with torch.inference_mode():
        whole = Restorer(model)(clip)
        torch.testing.assert_close(model(clip, (32, 48)), whole, atol=1e-12, rtol=0)
        torch.testing.assert_close(model(clip, (32, 48), 16), whole, atol=1e-12, rtol=0)


def test_the_frames_around_a_frame_stand_in_order_and_end_with_the_clip():
    """Against the join written down: each input channel's weight on one frame's pixels."""
    model = trained(toy(frame_channels=5, low_frames=5)).double()
    decoder = model.decoder
    joined = []
    decoder.join_low.register_forward_pre_hook(lambda _, args: joined.append(args[0]))
    clip = torch.rand(1, 5, 3, 16, 24, dtype=torch.float64)
    features = torch.randn(1, 5, 5, 2, 3, dtype=torch.float64)
    decoder(features, clip)
    for frame in range(5):
        seen = [min(max(frame + offset, 0), 4) for offset in (-2, -1, 0, 1, 2)]
        parts = [features[0, frame], *(F.pixel_unshuffle(clip[0, n], 8) for n in seen)]
        assert torch.equal(joined[0][frame], torch.cat(parts))


def test_the_halo_is_the_receptive_field_and_not_more():
    """Move one latent position: nothing changes beyond the halo, something does at the halo."""
    decoder = trained(toy()).decoder.double()
    rows, halo = 2 * decoder.halo + 3, decoder.halo
    clip = torch.rand(1, 3, 3, 8, rows * 8, dtype=torch.float64)
    features = torch.randn(1, 3, 64, 1, rows, dtype=torch.float64)
    base, _ = decoder(features, clip)
    features[..., 0] += 1
    moved = (decoder(features, clip)[0] - base).abs().amax((0, 1, 2, 3)).unflatten(0, (-1, 8))
    reach = int((moved.amax(1) > 0).nonzero().max())
    assert halo - 1 <= reach <= halo


def test_the_past_reaches_the_present_and_the_future_does_not():
    decoder = FastDecoder(DecoderConfig(latent_channels=8, low_width=16, high_width=8)).double()
    torch.nn.init.normal_(decoder.last.weight)
    clip = torch.rand(1, 4, 3, 16, 16, dtype=torch.float64)
    features = torch.randn(1, 4, 64, 2, 2, dtype=torch.float64)
    before, _ = decoder(features, clip)
    changed = features.clone()
    changed[:, 2] += 1
    after, _ = decoder(changed, clip)
    moved = (after - before).abs().amax((0, 2, 3, 4)) > 0
    assert moved.tolist() == [False, False, True, True]
