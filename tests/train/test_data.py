"""Footage, codec damage in other processes, and the pool: the same seed makes the same batch."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from oasis_cli.errors import MediaError, UsageError
from oasis_cli.media.pictures import encode_picture
from oasis_cli.media.training import CODECS, SMALLEST, Compression, compress, read_clip
from oasis_cli.train import losses
from oasis_cli.train.camera import (
    CELL,
    UNKNOWN,
    Lens,
    bend,
    camera_paths,
    clip_grid,
    positions,
    shoot,
)
from oasis_cli.train.codec import CodecPool, CodecTask, shared_slot
from oasis_cli.train.data import ClipPool
from oasis_cli.train.footage import Picture, _detail, load_footage, sample_clips

CPU = torch.device("cpu")

RARE = ("halo", "night", "deinterlaced", "tape", "few_colours", "starved", "uneven")
NOTHING_RARE = dict.fromkeys((*RARE, "film", "interlaced"), 0.0)


@pytest.fixture(scope="module")
def codecs():
    pool = CodecPool(1)
    yield pool
    pool.close()


def textured(frames=4, side=96):
    rng = np.random.default_rng(0)
    clip = rng.uniform(0, 255, (frames, side // 8, side // 8, 3))
    return np.kron(clip, np.ones((1, 8, 8, 1))).astype(np.uint8)


@pytest.mark.parametrize("codec", CODECS)
def test_a_codec_damages_more_with_fewer_bits_and_repeats_itself(codec):
    clip = textured()
    assert clip.shape[1] >= SMALLEST.get(codec, 0)
    errors = []
    for bits in (0.02, 2.0):
        out = compress(clip, Compression(codec, bits))
        assert out.shape == clip.shape
        assert np.array_equal(out, compress(clip, Compression(codec, bits)))
        errors.append(np.abs(out.astype(float) - clip).mean())
    assert errors[0] > errors[1]


def test_odd_sizes_survive_a_codec():
    assert compress(textured()[:, :33, :35], Compression("libx264", 1.0)).shape == (4, 33, 35, 3)


def test_workers_change_shared_memory_in_place_and_only_their_part(codecs):
    slot = shared_slot((2, 4, 96, 96, 3), CPU)
    slot.copy_(torch.from_numpy(textured())[None])
    before = slot.clone()
    codecs.wait(codecs.submit(slot, [CodecTask(1, 64, Compression("mpeg4", 0.05))]))
    assert torch.equal(slot[0], before[0])
    assert not torch.equal(slot[1, :, :64, :64], before[1, :, :64, :64])
    assert torch.equal(slot[1, :, 64:], before[1, :, 64:])


def test_a_killed_worker_is_replaced(codecs):
    slot = shared_slot((1, 4, 32, 32, 3), CPU)
    for process in codecs.pool._processes.values():
        os.kill(process.pid, signal.SIGKILL)
    codecs.wait(codecs.submit(slot, [CodecTask(0, 32, Compression("mpeg4", 1.0))]))
    codecs.wait(codecs.submit(slot, [CodecTask(0, 32, Compression("mpeg4", 1.0))]))
    assert codecs.crashes >= 1


def test_workers_end_with_a_killed_training_process(tmp_path):
    script = tmp_path / "run.py"
    script.write_text(
        "import time\nfrom oasis_cli.train.codec import CodecPool\n"
        "if __name__ == '__main__':\n"
        "    pool = CodecPool(1)\n"
        "    print(*pool.pool._processes, flush=True)\n    time.sleep(60)\n"
    )
    run = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    assert run.stdout is not None
    worker = int(run.stdout.readline())
    run.kill()
    run.wait()
    run.stdout.close()
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and _alive(worker):
        time.sleep(0.2)
    assert not _alive(worker)


def _alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().split()[2] != "Z"
    except FileNotFoundError:
        return False


def test_pictures_survive_png(tmp_path):
    picture = textured()[0]
    (tmp_path / "a.png").write_bytes(encode_picture(picture))
    assert np.array_equal(read_clip(tmp_path / "a.png")[0], picture)


def test_footage_too_small_is_refused(footage_folder):
    with pytest.raises(MediaError, match="no photograph of 200x200"):
        load_footage(footage_folder, CPU, 200, 5)


def test_footage_in_linked_folders_is_read_once(footage_folder, tmp_path):
    (tmp_path / "pictures").symlink_to(footage_folder)
    (tmp_path / "round").symlink_to(tmp_path)
    found, plain = (load_footage(folder, CPU, 48, 5) for folder in (tmp_path, footage_folder))
    assert len(found.photos) == len(plain.photos) == 3
    assert all(map(torch.equal, *([p.pixels for p in f.photos] for f in (found, plain))))


def lens(exposure=0.0, rolling=0.0, frames=3):
    focus = np.zeros((1, frames))
    return Lens(np.array([exposure]), np.array([rolling]), 1 + focus, focus)


def test_a_still_camera_returns_the_photograph_exactly():
    source = torch.rand(1, 3, 512, 512)
    path = torch.eye(2, 3).expand(1, 3, 2, 3).clone()
    path[:, 1, 0, 2] = 7  # seven pixels to the right in the second frame
    clip = shoot(source, positions(path, 48), lens())
    middle = slice(232, 280)
    torch.testing.assert_close(clip[:, 0], source[..., middle, middle], atol=1e-4, rtol=0)
    torch.testing.assert_close(clip[:, 1], source[..., middle, 239:287], atol=1e-4, rtol=0)
    assert clip_grid(48)[0].tolist() == [-23.5, -23.5, 1.0]


def stripes():
    """A source of vertical stripes, 16 pixels wide, with sharp edges."""
    x = torch.arange(512) // 16 % 2 * 255.0
    return x.expand(1, 3, 512, 512).contiguous()


def moving_right(pixels, frames=3):
    path = torch.eye(2, 3).repeat(1, frames, 1, 1)
    path[0, :, 0, 2] = pixels * torch.arange(frames)
    return path


def test_an_open_shutter_blurs_along_the_motion_and_only_there():
    at = positions(moving_right(8.0), 48)
    sharp, blurred = (shoot(stripes(), at.clone(), lens(exposure=e))[0, 1, 0] for e in (0.0, 1.0))
    assert sharp.diff(dim=1).abs().max() == pytest.approx(255, abs=1)
    assert blurred.diff(dim=1).abs().max() < 80
    assert blurred.diff(dim=0).abs().max() < 1e-2
    still = positions(moving_right(0.0), 48)
    clips = [shoot(stripes(), still.clone(), lens(exposure=e)) for e in (0.0, 1.0)]
    assert (clips[0] - clips[1]).abs().max() < 0.6


def test_a_rolling_shutter_leans_upright_edges_of_what_moves():
    at = positions(moving_right(8.0), 48)
    clip = shoot(stripes(), at, lens(rolling=1.0))[0, 1, 0]
    edges = (clip[:, :24].diff(dim=1).abs() > 60).float().argmax(1)
    assert 5 <= abs(int(edges[0]) - int(edges[-1])) <= 9


def test_focus_that_is_lost_in_one_frame_softens_that_frame():
    focus = np.array([[0.0, 1.0, 0.0]])
    soft = Lens(np.zeros(1), np.zeros(1), 1 + 0 * focus, focus)
    clip = shoot(stripes(), positions(moving_right(0.0), 48), soft)
    steps = clip.diff(dim=-1).abs().amax((0, 2, 3, 4))
    assert steps[0] == steps[2] > 250 and steps[1] < 120


def test_near_parts_of_a_photograph_move_further_than_far_ones():
    kind, rng = np.full(40, 0.5), np.random.default_rng(0)
    flat = positions(torch.eye(2, 3).expand(40, 9, 2, 3), 48)
    bent = bend(flat.clone(), kind, rng) - flat
    travelled = (bent[:, -1] - bent[:, 0]).norm(dim=-1).flatten(1)
    deep = travelled.amax(1) > 1
    assert 0.2 < deep.float().mean() < 0.7  # the others stay flat
    assert (travelled.amax(1) - travelled.amin(1))[deep].median() > 1
    # Smooth: no place is torn or folded, which is a step of one pixel from pixel to pixel.
    assert bent.diff(dim=2).abs().max() < 0.8 and bent.diff(dim=3).abs().max() < 0.8
    assert torch.equal(bend(flat.clone(), np.full(40, 0.2), rng), flat)


def test_files_that_are_wanted_often_are_filmed_often(footage_folder):
    """Of three photographs one counts six times, one never."""
    often = (("1.*", 6.0), ("2.png", 0.0))
    footage = load_footage(footage_folder, CPU, 48, 5)
    weighed = footage.weighed(often)
    assert weighed.photo_chances == pytest.approx([1 / 7, 6 / 7, 0])
    clips = [
        sample_clips(f, 4, 5, 48, np.random.default_rng(1))[0] for f in (weighed, weighed, footage)
    ]
    assert torch.equal(clips[0], clips[1]) and not torch.equal(clips[0], clips[2])


@pytest.mark.parametrize(
    ("often", "said"),
    [
        ((("nobody*", 2.0),), "matches no file"),
        ((("*", 0.0),), "no photograph has a weight"),
        ((("*", -1.0),), "less than never"),
    ],
)
def test_weights_that_choose_nothing_are_refused(footage_folder, often, said):
    with pytest.raises(UsageError, match=said):
        load_footage(footage_folder, CPU, 48, 5).weighed(often)


def test_camera_paths_stay_on_the_photograph():
    rng = np.random.default_rng(0)
    paths = camera_paths(rng.random(200), 9, 288, rng)
    corners = torch.tensor([[x, y, 1.0] for x in (-144, 144) for y in (-144, 144)])
    assert torch.einsum("ntij,pj->ntpi", paths, corners).abs().max() < 330
    still = (paths.diff(dim=1).abs().amax((1, 2, 3)) == 0).float().mean()
    assert 0.03 < still < 0.25


def test_detailed_places_are_filmed_more_often():
    """A picture of which one quarter has texture: by chance a quarter of the places would be it."""
    pixels = torch.full((256, 256, 3), 128, dtype=torch.uint8)
    pixels[:128, :128] = torch.randint(0, 255, (128, 128, 3), dtype=torch.uint8)
    picture = Picture(pixels, _detail(pixels))
    assert picture.detail.shape == (8, 8)
    rng = np.random.default_rng(0)
    places = np.array([picture.place(64, rng) for _ in range(400)])
    assert places.min() >= 0 and places.max() <= 192
    textured = (places < 96).all(1).mean()
    assert 0.4 < textured < 0.9
    assert (places >= 128).any(1).mean() > 0.05  # flat places are still seen


def test_filmed_clips_move(footage_folder):
    footage = load_footage(footage_folder, CPU, 48, 5)
    clips, _ = sample_clips(footage, 12, 5, 48, np.random.default_rng(1))
    assert clips.shape == (12, 5, 3, 48, 48) and clips.dtype == torch.uint8
    moving = (clips[:, 0] != clips[:, 4]).flatten(1).any(1).float().mean()
    assert moving > 0.6


def make_pool(folder, toy, codecs):
    footage = load_footage(folder, CPU, toy.data.side, toy.data.frames)
    pool = ClipPool(footage, toy.data, codecs, 7, CPU)
    pool.vary(1.0)
    return pool


def test_a_seed_makes_a_batch_exactly_and_restarting_makes_the_pool_again(
    footage_folder, toy, codecs
):
    first = make_pool(footage_folder, toy, codecs)
    first.fill(4)
    low, high, _ = first.batch(9)
    assert low.shape == high.shape == (2, 5, 3, 32, 32)
    assert high.abs().max() <= 1 and not torch.equal(low, high)

    second = make_pool(footage_folder, toy, codecs)
    second.restart(4)  # the pool holds two chunks: only those are made again
    assert second.begun - 2 <= 4 and torch.equal(second.low, first.low)
    again = second.batch(9)
    assert torch.equal(again[0], low) and torch.equal(again[1], high)
    assert not torch.equal(second.batch(10)[0], low)


def test_lightly_damaged_clips_are_closer_to_their_originals(footage_folder, toy, codecs):
    footage = load_footage(footage_folder, CPU, toy.data.side, toy.data.frames)
    errors = []
    for light, kept in ((0.0, 0.0), (1.0, 0.3), (1.0, 0.0)):
        data = replace(
            toy.data, light=light, kept=kept, chunk=8, pool=16, scales=((1, 1.0),), **NOTHING_RARE
        )
        pool = ClipPool(footage, data, codecs, 7, CPU)
        pool.vary(0.5)
        pool.fill(2)
        errors.append((pool.low.float() * 127.5 + 127.5 - pool.high.float()).abs().mean().item())
    whole, light, none = errors
    assert none < 0.6 < light < 0.8 * whole


@pytest.mark.parametrize("scale", [4, 3, 1])
def test_every_rare_damage_leaves_a_pool_that_can_be_made_again(footage_folder, toy, codecs, scale):
    """All of them at once, at 25 frames."""
    footage = load_footage(footage_folder, CPU, toy.data.side, toy.data.frames)
    data = replace(toy.data, frames=25, chunk=4, scales=((scale, 1.0),), **dict.fromkeys(RARE, 1.0))
    pools = [ClipPool(footage, data, codecs, 7, CPU) for _ in range(2)]
    for pool in pools:
        pool.vary(0.5)
        pool.fill(1)
    assert pools[0].low.isfinite().all() and pools[0].low.abs().max() < 2
    assert torch.equal(pools[0].low, pools[1].low)
    assert pools[0].high.float().mean() < 110  # night: dark where it is clean, too


def test_nearly_clean_frames_stand_out_among_starved_ones(footage_folder, toy, codecs):
    footage = load_footage(footage_folder, CPU, toy.data.side, toy.data.frames)
    data = replace(
        toy.data, frames=13, chunk=8, pool=8, cuts=0.0, scales=((1, 1.0),),
        **(NOTHING_RARE | {"uneven": 1.0}),
    )  # fmt: skip
    pool = ClipPool(footage, data, codecs, 7, CPU)
    pool.vary(0.0)
    pool.fill(1)
    good = torch.from_numpy(pool._rare(0).good)
    errors = (pool.low.float() * 127.5 + 127.5 - pool.high.float()).abs().mean((2, 3, 4))
    keyed = (good > 0).any(1)
    assert 2 <= keyed.sum() <= 7
    for clip, there in zip(errors[keyed], good[keyed] > 0, strict=True):
        assert clip[there].max() < 0.6 * clip[~there].mean()


def test_a_clip_with_a_cut_goes_on_as_another_clip(footage_folder, toy, codecs):
    footage = load_footage(footage_folder, CPU, toy.data.side, toy.data.frames)
    plain, cut = (
        ClipPool(footage, replace(toy.data, chunk=8, pool=8, cuts=share), codecs, 7, CPU)
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


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_slots_give_their_pinned_memory_back():
    for _ in range(20):  # soon one lies where another did
        slot = shared_slot((4, 1 << 20), torch.device("cuda"))
        assert slot.cuda().sum().item() == 0
        del slot


def test_the_known_motion_of_a_filmed_photograph_brings_a_frame_onto_the_next(footage_folder):
    """And the loss that uses it hears an error that stands still while the picture moves."""
    footage = load_footage(footage_folder, CPU, 64, 5)
    clips, motion = sample_clips(footage, 24, 5, 64, np.random.default_rng(2))
    assert motion.shape == (24, 4, 2, 16, 16)
    clips = clips.float() / 127.5 - 1
    assert losses.warping(clips, clips, motion) == 0
    # The error of `2 * clips` is the clip itself.
    along = losses.warping(2 * clips, clips, motion)
    assert along < 0.6 * losses.warping(2 * clips, clips, torch.zeros_like(motion))

    fastest = int(motion.square().mean((1, 2, 3, 4)).argmax())
    clip, moves = clips[[fastest]], motion[[fastest]]
    torch.manual_seed(0)
    pattern = 0.1 * torch.randn(1, 1, 3, 64, 64).expand_as(clip)
    assert losses.warping(clip + pattern, clip, moves) > 0.05
    assert losses.warping(clip + 0.1, clip, moves) < 1e-3
    assert losses.warping(clip + pattern, clip, torch.full_like(moves, UNKNOWN)) == 0


def test_a_flipped_batch_moves_the_other_way(footage_folder, toy, codecs):
    pool = make_pool(footage_folder, toy, codecs)
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


def test_nobody_knows_the_motion_across_a_cut(footage_folder, toy, codecs):
    config = replace(toy.data, cuts=1.0)
    footage = load_footage(footage_folder, CPU, config.side, config.frames)
    pool = ClipPool(footage, config, codecs, 7, CPU)
    pool.vary(0.0)
    pool.fill(1)
    unknown = (pool.motion[: config.chunk] == UNKNOWN).flatten(2).all(2)
    assert (unknown.sum(1) == 1).all()
