import numpy as np

from oasis_cli.pipeline.scenes import find_cuts, thumbnail


def texture(seed: int, low: float, high: float) -> np.ndarray:
    """A picture of 64 x 96 whose values lie in [low, high]."""
    return np.random.default_rng(seed).uniform(low, high, (64, 96)).astype(np.float32)


def test_a_hard_cut_is_found_where_it_is():
    first, second = texture(1, 0.1, 0.4), texture(2, 0.5, 0.9)
    assert find_cuts([first] * 5 + [second] * 5 + [first] * 3) == [0, 5, 10]


def test_noise_and_motion_are_not_cuts():
    noisy = [texture(seed, 0.3, 0.7) for seed in range(8)]
    ramp = np.tile(np.linspace(0, 1, 96, dtype=np.float32), (64, 1))
    panning = [np.roll(ramp, shift, axis=1) for shift in range(0, 80, 8)]
    assert find_cuts(noisy) == [0]
    assert find_cuts(panning) == [0]


def test_a_negative_flash_is_not_a_cut():
    picture = texture(3, 0.0, 1.0)
    assert find_cuts([picture, picture, 1 - picture, picture, picture]) == [0]


def test_a_slow_fade_is_not_a_cut():
    picture = texture(4, 0.0, 0.9)
    assert find_cuts([picture * k / 40 for k in range(40)]) == [0]


def test_a_change_of_size_is_a_cut():
    assert find_cuts([np.zeros((60, 80), np.float32), np.zeros((60, 90), np.float32)]) == [0, 1]


def test_the_thumbnail_is_small_and_scaled():
    plane = np.full((1080, 1920), 512, np.uint16)
    small = thumbnail(plane, 1023)
    assert small.size < 8000
    assert np.allclose(small, 512 / 1023)


def test_nothing_in_nothing_out():
    assert find_cuts([]) == []
