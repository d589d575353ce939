import math

import pytest
import torch
import torch.nn.functional as F
from judges.cases import Case, Missing, bicubic
from judges.hatching import Hatching, real_clips

from oasis_cli.evaluation.metrics.hatching import smooth_places


def walls(frames=2):
    """A low-quality clip of a shaded wall with noise: nothing on it is regular."""
    generator = torch.Generator().manual_seed(0)
    slope = torch.linspace(-0.2, 0.2, 64).expand(1, 3, 56, 64)
    noise = 0.01 * torch.randn(frames, 3, 56, 64, generator=generator)
    return Case(name="wall", low=(slope + noise).clamp(-1, 1))


def weave(like, steps):
    """A regular pattern of 4 by 8 pixels, `steps` 8-bit steps high."""
    y, x = torch.meshgrid(*(torch.arange(side) for side in like.shape[-2:]), indexing="ij")
    pattern = torch.sin(x * (2 * math.pi / 4)) * torch.sin(y * (2 * math.pi / 8))
    return steps * pattern / 127.5


def noise(like, steps, seed=1):
    return steps * torch.randn(like.shape, generator=torch.Generator().manual_seed(seed)) / 127.5


def score(case, out):
    return Hatching([case]).score(case, out)


def test_bicubic_has_the_hatching_of_bicubic():
    case = walls()
    assert score(case, bicubic(case)) == {"hatching": 1.0, "energy": 1.0}


def test_a_planted_weave_is_seen_and_a_stronger_one_more():
    case = walls()
    base = bicubic(case)
    faint, strong = (score(case, base + weave(base, steps))["hatching"] for steps in (1, 3))
    assert 3 < faint < strong


def test_a_clean_wall_has_less_hatching_than_bicubic():
    case = walls()
    base = bicubic(case)
    clean = base
    for _ in range(3):
        clean = F.avg_pool2d(F.pad(clean, (8,) * 4, mode="replicate"), 17, 1)
    found = score(case, clean)
    assert found["hatching"] <= 1 and found["energy"] < 0.5


def test_grain_has_energy_and_is_no_hatching():
    case = walls()
    base = bicubic(case)
    found = score(case, base + noise(base, 3))
    assert found["energy"] > 2
    assert found["hatching"] < 1.5


def test_places_with_detail_are_not_smooth():
    case = walls()
    base = bicubic(case)
    half = base.shape[-1] // 2
    base[..., half:] += 30 * weave(base[..., half:], 1)
    smooth = smooth_places(base).view(2, -1, (base.shape[-1] - 64) // 32 + 1)
    assert smooth[..., :2].any() and not smooth[..., -2:].any()


def test_a_clip_without_smooth_places_has_no_score():
    case = Case(name="busy", low=walls().low + noise(walls().low, 60))
    rows = {"busy": score(case, bicubic(case))}
    assert math.isnan(rows["busy"]["hatching"])
    with pytest.raises(Missing, match="smooth"):
        Hatching([case]).sum_up(rows)


def test_only_the_middle_of_a_real_clip_is_looked_at(make_clip, tmp_path):
    make_clip(tmp_path / "a.mp4", frames=8, size=(64, 48))
    case = real_clips(tmp_path, frames=3, first=2, most=(32, 24))[0]
    assert case.name == "real-a" and case.low.shape == (3, 3, 24, 32)
    with pytest.raises(Missing, match="no clips"):
        real_clips(tmp_path / "nowhere", frames=3)
