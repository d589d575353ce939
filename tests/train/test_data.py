"""Footage, codec damage in other processes, and the pool: the same seed makes the same batch."""

from dataclasses import replace

import pytest
import torch

from oasis_cli.train.camera import (
    CELL,
    UNKNOWN,
)
from oasis_cli.train.data import ClipPool
from oasis_cli.train.footage import load_footage

CPU = torch.device("cpu")

RARE = ("halo", "night", "deinterlaced", "tape", "few_colours", "starved", "uneven")
NOTHING_RARE = dict.fromkeys((*RARE, "film", "interlaced"), 0.0)


def make_pool(folder, toy, codec_workers):
    footage = load_footage(folder, CPU, toy.data.side, toy.data.frames)
    pool = ClipPool(footage, toy.data, codec_workers, 7, CPU)
    pool.vary(1.0)
    return pool


def test_a_seed_makes_a_batch_exactly_and_restarting_makes_the_pool_again(
    footage_folder, toy, codec_workers
):
    first = make_pool(footage_folder, toy, codec_workers)
    first.fill(4)
    low, high, _ = first.batch(9)
    assert low.shape == high.shape == (2, 5, 3, 32, 32)
    assert high.abs().max() <= 1 and not torch.equal(low, high)

    second = make_pool(footage_folder, toy, codec_workers)
    second.restart(4)  # the pool holds two chunks: only those are made again
    assert second.begun - 2 <= 4 and torch.equal(second.low, first.low)
    again = second.batch(9)
    assert torch.equal(again[0], low) and torch.equal(again[1], high)
    assert not torch.equal(second.batch(10)[0], low)


def test_only_the_clean_clips_get_harder_edges(footage_folder, toy, codec_workers):
    footage = load_footage(footage_folder, CPU, toy.data.side, toy.data.frames)
    batches = []
    for amount in (0.0, 0.5):
        data = replace(toy.data, sharpened=amount)
        pool = ClipPool(footage, data, codec_workers, 7, CPU)
        pool.vary(1.0)
        pool.fill(1)
        batches.append(pool.batch(3))
    plain, sharp = batches
    assert torch.equal(plain.low, sharp.low)
    assert sharp.high.diff(dim=-1).square().sum() > 1.05 * plain.high.diff(dim=-1).square().sum()


def test_lightly_damaged_clips_are_closer_to_their_originals(footage_folder, toy, codec_workers):
    footage = load_footage(footage_folder, CPU, toy.data.side, toy.data.frames)
    errors = []
    for light, kept in ((0.0, 0.0), (1.0, 0.3), (1.0, 0.0)):
        data = replace(
            toy.data, light=light, kept=kept, chunk=8, pool=16, scales=((1, 1.0),), **NOTHING_RARE
        )
        pool = ClipPool(footage, data, codec_workers, 7, CPU)
        pool.vary(0.5)
        pool.fill(2)
        errors.append((pool.low.float() * 127.5 + 127.5 - pool.high.float()).abs().mean().item())
    whole, light, none = errors
    assert none < 0.6 < light < 0.8 * whole


@pytest.mark.parametrize("scale", [4, 3, 1])
def test_every_rare_damage_leaves_a_pool_that_can_be_made_again(
    footage_folder, toy, codec_workers, scale
):
    """All of them at once, at 25 frames."""
    footage = load_footage(footage_folder, CPU, toy.data.side, toy.data.frames)
    data = replace(toy.data, frames=25, chunk=4, scales=((scale, 1.0),), **dict.fromkeys(RARE, 1.0))
    pools = [ClipPool(footage, data, codec_workers, 7, CPU) for _ in range(2)]
    for pool in pools:
        pool.vary(0.5)
        pool.fill(1)
    assert pools[0].low.isfinite().all() and pools[0].low.abs().max() < 2
    assert torch.equal(pools[0].low, pools[1].low)
    assert pools[0].high.float().mean() < 110  # night: dark where it is clean, too


def test_nearly_clean_frames_stand_out_among_starved_ones(footage_folder, toy, codec_workers):
    footage = load_footage(footage_folder, CPU, toy.data.side, toy.data.frames)
    data = replace(
        toy.data, frames=13, chunk=8, pool=8, cuts=0.0, scales=((1, 1.0),),
        **(NOTHING_RARE | {"uneven": 1.0}),
    )  # fmt: skip
    pool = ClipPool(footage, data, codec_workers, 7, CPU)
    pool.vary(0.0)
    pool.fill(1)
    good = torch.from_numpy(pool._rare(0).good)
    errors = (pool.low.float() * 127.5 + 127.5 - pool.high.float()).abs().mean((2, 3, 4))
    keyed = (good > 0).any(1)
    assert 2 <= keyed.sum() <= 7
    for clip, there in zip(errors[keyed], good[keyed] > 0, strict=True):
        assert clip[there].max() < 0.6 * clip[~there].mean()


def test_a_clip_with_a_cut_goes_on_as_another_clip(footage_folder, toy, codec_workers):
    footage = load_footage(footage_folder, CPU, toy.data.side, toy.data.frames)
    plain, cut = (
        ClipPool(footage, replace(toy.data, chunk=8, pool=8, cuts=share), codec_workers, 7, CPU)
        for share in (0.0, 1.0)
    )
    for pool in (plain, cut):
        pool.vary(0.0)
        pool.fill(1)
    for number in range(8):
        same = [
            torch.equal(a, b) for a, b in zip(plain.high[number], cut.high[number], strict=True)
        ]
        first = same.index(False)
        assert first >= 1 and not any(same[first:])
        assert torch.equal(cut.high[number, first:], plain.high[number - 1, first:])
    assert not torch.equal(plain.low, cut.low)


def test_a_flipped_batch_moves_the_other_way(footage_folder, toy, codec_workers):
    pool = make_pool(footage_folder, toy, codec_workers)
    pool.fill(1)
    pool.high.copy_(torch.arange(toy.data.side))  # brighter to the right, until flipped
    pool.motion.copy_(torch.tensor([3.0, 2.0]).view(2, 1, 1))
    seen = set()
    for step in range(8):
        batch = pool.batch(step)
        side = batch.high.shape[-1] // CELL
        assert batch.motion.shape[1:] == (4, 2, side, side)
        for high, motion in zip(batch.high, batch.motion, strict=True):
            as_it_was = bool((high.diff(dim=-1) > 0).all())
            seen.add(as_it_was)
            assert (motion[:, 0] == (3 if as_it_was else -3)).all() and (motion[:, 1] == 2).all()
    assert seen == {True, False}


def test_nobody_knows_the_motion_across_a_cut(footage_folder, toy, codec_workers):
    config = replace(toy.data, cuts=1.0)
    footage = load_footage(footage_folder, CPU, config.side, config.frames)
    pool = ClipPool(footage, config, codec_workers, 7, CPU)
    pool.vary(0.0)
    pool.fill(1)
    unknown = (pool.motion[: config.chunk] == UNKNOWN).flatten(2).all(2)
    assert (unknown.sum(1) == 1).all()
