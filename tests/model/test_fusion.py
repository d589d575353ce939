import pytest
import torch
import torch.nn.functional as F
from toy_networks import toy, trained

from oasis_cli.model.fusion import Fusion, FusionConfig
from oasis_cli.model.oasis import Oasis, OasisConfig
from oasis_cli.train.losses import flow_error

SMALL = FusionConfig(width=16, heads=2, reach=2, search=3)


def fusion(config=SMALL):
    """One that corrects something."""
    torch.manual_seed(3)
    network = Fusion(config)
    torch.nn.init.normal_(network.last.weight, std=0.1)
    return network


def noise(frames=6, side=48):
    return torch.rand(1, frames, 3, side, side, generator=torch.Generator().manual_seed(1)) * 2 - 1


def panned(right, down, frames=4, side=96):
    """(1, T, 3, S, S): a texture that moves by so many pixels from frame to frame."""
    generator = torch.Generator().manual_seed(5)
    texture = torch.randn(1, 3, 40, 40, generator=generator)
    texture = F.interpolate(texture, (240, 240), mode="bicubic")[0]
    at = [(100 - t * down, 100 - t * right) for t in range(frames)]
    return torch.stack([texture[:, y : y + side, x : x + side] for y, x in at])[None]


def test_an_untrained_one_corrects_nothing():
    assert torch.equal(Fusion(SMALL)(noise()), noise())


def test_the_flow_of_a_pan_is_learned_from_its_motion():
    """Also the part of a position that the correlation alone cannot name."""
    network = fusion()
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    moves = [(8, 0), (-8, 8), (4, -12), (0, 4)]
    errors = []
    for step in range(40):
        right, down = moves[step % 4]
        known = torch.tensor([-right, -down], dtype=torch.float32)
        motion = known[None, None, :, None, None].expand(1, 1, 2, 24, 24)
        flows = network.flows(network.features(panned(right, down, frames=2)), ahead=False)
        errors.append(torch.stack([flow_error(flow, motion) for flow in flows]))
        errors[-1].sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    first, last = (torch.stack(some).detach().mean(0) for some in (errors[:4], errors[-4:]))
    assert (last < 0.7 * first).all()


def test_flow_that_is_refined_finds_half_a_coarse_position():
    """By its correlation alone, before anything was learned."""
    generator = torch.Generator().manual_seed(4)
    texture = torch.randn(1, 48, 20, 20, generator=generator)
    texture = F.interpolate(texture, (40, 40), mode="bicubic")[0]
    here, there = texture[:, 4:28, 4:28], texture[:, 3:27, 2:26]  # moves 2 right and 1 down
    features, network = torch.stack([here, there])[None], fusion(FusionConfig(search=3))
    for ahead, known in ((True, [2, 1]), (False, [-2, -1])):
        with torch.no_grad():
            coarse, *fine = network.flows(features, ahead=ahead)
        for flow in fine:
            middle = flow[..., 6:-6, 6:-6].mean((0, 1, 3, 4))
            assert middle.tolist() == pytest.approx(known, abs=0.2)
        assert 2 * coarse[:, :, 1, 3:-3, 3:-3].mean().abs() < 0.7


def test_chained_flows_add_up_where_they_lead():
    network = fusion()
    ahead = torch.zeros(1, 3, 2, 6, 6)
    ahead[:, :, 0] = 1.0  # everything moves right by a position
    back = -ahead
    back[0, 1, 1] = 2.0  # from frame 2 to 1, also down by two
    moved = network._chained(ahead, back)
    assert set(moved) == {1, 2, -1, -2}
    assert moved[2][0, 0, :, 3, 3].tolist() == [2, 0]
    assert moved[-2][0, 3, :, 3, 3].tolist() == [-2, 2]


def test_each_frame_sees_so_many_frames_before_and_after_it():
    network, clip = fusion(), noise()
    with torch.no_grad():
        whole = network(clip)
        other = clip.clone()
        other[:, 3] = other[:, 3].flip(-1)
        changed = (network(other) - whole).abs().amax((0, 2, 3, 4)) > 1e-6
    assert changed.tolist() == [False, True, True, True, True, True]


def test_what_leads_out_of_the_picture_is_not_read():
    """Were it read, the border would stand in for it."""
    network, clip = fusion(FusionConfig(width=16, heads=2, reach=1, search=3)), noise(2)
    with torch.no_grad():
        features = network.features(clip)
        far = torch.full((1, 2, 2, 12, 12), 50.0)
        apart = clip + network._correction(features, {1: far, -1: far}, 0, 2)
        alone = torch.cat([network(clip[:, :1]), network(clip[:, 1:])], dim=1)
    assert torch.allclose(apart, alone, atol=1e-6)


def test_pieces_give_what_all_frames_at_once_give():
    network, clip = fusion(), panned(4, -3, frames=7)
    with torch.no_grad():
        pieces = network(clip)
    assert torch.allclose(pieces, network(clip), atol=1e-3)  # flow enlarges what rounding differs


def test_a_network_reads_other_frames_through_it():
    model = toy()
    config = OasisConfig(dit=model.config.dit, decoder=model.config.decoder, fusion=SMALL)
    torch.manual_seed(0)
    fused = trained(Oasis(config).eval())
    low = noise(5, 16)
    with torch.no_grad():
        still = fused(low, (64, 64))
        torch.nn.init.normal_(fused.fusion.last.weight, std=0.05)
        moving = fused(low, (64, 64))
        tiled = fused(low, (64, 64), tile=32)
    assert (still - moving).abs().max() > 1e-3
    assert torch.allclose(moving, tiled, atol=1e-4)
    assert OasisConfig.from_dict(config.to_dict()) == config
    assert "fusion" not in model.config.to_dict()
