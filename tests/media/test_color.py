from types import SimpleNamespace

import numpy as np
import pytest
import torch

from oasis_cli.media import color
from oasis_cli.media.color import clip_to_planes, enlarge_alpha, frames_to_clip, ycbcr_matrix
from oasis_cli.media.picture import PictureSpec

# Written out once more from ITU-T H.273, apart from the code under test.
WEIGHTS = {
    "bt601": (0.299, 0.587, 0.114),
    "bt709": (0.2126, 0.7152, 0.0722),
    "bt2020": (0.2627, 0.6780, 0.0593),
    "fcc": (0.30, 0.59, 0.11),
    "smpte240m": (0.212, 0.701, 0.087),
}


def reference(rgb: np.ndarray, matrix: str, depth: int, full: bool) -> np.ndarray:
    """float64 codes (Y, Cb, Cr), not rounded, of RGB in [0, 1]."""
    kr, kg, kb = WEIGHTS[matrix]
    r, g, b = rgb.astype(np.float64)
    y = kr * r + kg * g + kb * b
    cb, cr = (b - y) / (2 * (1 - kb)), (r - y) / (2 * (1 - kr))
    top, unit = 2**depth - 1, 2 ** (depth - 8)
    if full:
        return np.stack([y * top, cb * top + 2 ** (depth - 1), cr * top + 2 ** (depth - 1)])
    return np.stack([(219 * y + 16) * unit, (224 * cb + 128) * unit, (224 * cr + 128) * unit])


def colors() -> np.ndarray:
    """(3, 16, 16) in [0, 1]."""
    return np.random.default_rng(0).random((3, 16, 16))


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("depth", [8, 10, 12])
@pytest.mark.parametrize("matrix", WEIGHTS)
def test_planes_are_within_one_code_of_the_standard(matrix, depth, full):
    rgb = colors()
    name = "yuv444p" if depth == 8 else f"yuv444p{depth}le"
    spec = PictureSpec(width=16, height=16, pix_fmt=name, matrix=matrix, full_range=full)
    clip = torch.from_numpy(rgb * 2 - 1)[None].float()

    planes = clip_to_planes(clip, spec)[0]

    expected = reference(rgb, matrix, depth, full)
    assert np.abs(np.stack(planes) - expected).max() <= 0.51
    assert planes[0].dtype == (np.uint8 if depth == 8 else np.uint16)


@pytest.mark.parametrize("matrix", [*WEIGHTS, "ycgco"])
@pytest.mark.parametrize("name", ["yuv444p", "yuv444p10le", "yuv444p16le", "gbrp", "gbrp12le"])
@pytest.mark.parametrize("full", [False, True])
def test_there_and_back_is_exact_within_rounding(matrix, name, full):
    matrix, full = ("rgb", True) if name.startswith("gbr") else (matrix, full)
    spec = PictureSpec(width=16, height=16, pix_fmt=name, matrix=matrix, full_range=full)
    clip = torch.from_numpy(colors() * 2 - 1)[None].float()

    planes = clip_to_planes(clip, spec)[0]
    again = frames_to_clip([SimpleNamespace(planes=planes)], spec)

    step = 2 / (2**spec.layout.depth - 1) * (1 if full else 255 / 219)
    # Half a code of luma, and half a code of chroma times at most 2 (1 - Kb) < 1.91.
    assert (again - clip).abs().max() < (0.5 + 1.91 / 2 + 0.05) * step + 1e-4


@pytest.mark.parametrize("siting", ["left", "center", "topleft"])
@pytest.mark.parametrize("name", ["yuv420p", "yuv422p", "yuv420p10le", "yuv440p", "yuv411p"])
def test_a_chroma_ramp_comes_back_where_it_lay(name, siting):
    """A linear ramp survives linear interpolation exactly, if the siting is honoured."""
    size = 32
    spec = PictureSpec(width=size, height=size, pix_fmt=name, siting=siting)
    unit = 1 << (spec.layout.depth - 8)
    sub_x, sub_y = spec.layout.sub
    aside = (2**sub_x - 1) / 2 if siting == "center" else 0
    down = 0 if siting == "topleft" else (2**sub_y - 1) / 2
    rows, columns = spec.plane_shapes()[1]
    x = np.arange(columns) * 2**sub_x + aside
    y = np.arange(rows) * 2**sub_y + down
    cb = np.broadcast_to((96 + x)[None, :] * unit, (rows, columns)).round()
    cr = np.broadcast_to((96 + y)[:, None] * unit, (rows, columns)).round()
    kind = np.uint8 if unit == 1 else np.uint16
    luma = np.full((size, size), 126 * unit, kind)
    frame = SimpleNamespace(planes=(luma, cb.astype(kind), cr.astype(kind)))

    clip = frames_to_clip([frame], spec)[0].double().numpy() / 2 + 0.5

    kr, kg, kb = WEIGHTS["bt709"]
    inner = np.s_[8:24, 8:24]
    got_cb = (clip[2] - (kr * clip[0] + kg * clip[1] + kb * clip[2])) / (2 * (1 - kb)) * 224 + 128
    got_cr = (clip[0] - (kr * clip[0] + kg * clip[1] + kb * clip[2])) / (2 * (1 - kr)) * 224 + 128
    at = np.arange(size)
    assert np.abs(got_cb - (96 + at)[None, :])[inner].max() < 0.6
    assert np.abs(got_cr - (96 + at)[:, None])[inner].max() < 0.6

    planes = clip_to_planes(torch.from_numpy(clip * 2 - 1)[None].float(), spec)[0]
    assert np.abs(planes[1].astype(int) - frame.planes[1].astype(int))[2:-2, 2:-2].max() <= unit
    assert np.abs(planes[2].astype(int) - frame.planes[2].astype(int))[2:-2, 2:-2].max() <= unit


def test_odd_sizes_have_rounded_up_chroma():
    spec = PictureSpec(width=21, height=13, pix_fmt="yuv420p")
    clip = torch.zeros(2, 3, 13, 21)

    planes = clip_to_planes(clip, spec)

    assert [p.shape for p in planes[0]] == [(13, 21), (7, 11), (7, 11)]
    frames = [SimpleNamespace(planes=p) for p in planes]
    assert frames_to_clip(frames, spec).shape == (2, 3, 13, 21)


def test_a_spec_one_larger_repeats_the_edge():
    spec = PictureSpec(width=6, height=4, pix_fmt="gbrp", matrix="rgb", full_range=True)
    clip = torch.rand(1, 3, 3, 5) * 2 - 1

    green = clip_to_planes(clip, spec)[0][0]

    assert green.shape == (4, 6)
    assert (green[-1] == green[-2]).all()
    assert (green[:, -1] == green[:, -2]).all()


def test_gray_is_equal_in_all_colors_and_comes_back():
    spec = PictureSpec(width=16, height=2, pix_fmt="gray10le", full_range=True)
    codes = np.arange(0, 1024, 32, dtype=np.uint16).reshape(2, 16)

    clip = frames_to_clip([SimpleNamespace(planes=(codes,))], spec)

    assert (clip[:, 0] == clip[:, 2]).all()
    assert (clip_to_planes(clip, spec)[0][0] == codes).all()


def test_codes_outside_the_legal_range_are_clamped():
    spec = PictureSpec(width=2, height=1, pix_fmt="gray", full_range=False)
    clip = frames_to_clip([SimpleNamespace(planes=(np.array([[0, 255]], np.uint8),))], spec)
    assert clip.unique().tolist() == [-1, 1]


def test_dither_keeps_the_mean_of_what_eight_bits_cannot_hold():
    level = 100.3 / 255 * 2 - 1
    clip = torch.full((1, 3, 16, 16), level)
    spec = PictureSpec(width=16, height=16, pix_fmt="gbrp", matrix="rgb", full_range=True)
    dithered = PictureSpec(
        width=16, height=16, pix_fmt="gbrp", matrix="rgb", full_range=True, dither=True
    )

    plain, spread = (clip_to_planes(clip, s)[0][0] for s in (spec, dithered))

    assert set(np.unique(plain)) == {100}
    assert abs(spread.mean() - 100.3) < 0.02


@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize("mirrored", [False, True])
def test_orientation_turns_the_rgb_picture(turns, mirrored):
    spec = PictureSpec(
        width=5, height=3, pix_fmt="gbrp", matrix="rgb", full_range=True,
        orientation=(turns, mirrored),
    )  # fmt: skip
    plane = np.arange(15, dtype=np.uint8).reshape(3, 5)

    clip = frames_to_clip([SimpleNamespace(planes=(plane,) * 3)], spec)

    expected = np.rot90(plane, -turns)
    expected = expected[:, ::-1] if mirrored else expected
    assert (((clip[0, 0] + 1) * 127.5).round().numpy() == expected).all()
    assert spec.display_size == expected.shape[::-1]


def test_alpha_is_enlarged_and_changes_depth():
    source = PictureSpec(width=4, height=4, pix_fmt="yuva420p")
    target = PictureSpec(width=8, height=8, pix_fmt="yuva444p10le")
    alpha = np.zeros((4, 4), np.uint8)
    alpha[:, 2:] = 255

    large = enlarge_alpha(alpha, source, target, (8, 8))

    assert large.shape == (8, 8)
    assert large.dtype == np.uint16
    assert large[0, 0] == 0
    assert large[0, -1] == 1023


def test_gray_rgb_has_no_color_in_any_matrix():
    for name in WEIGHTS:
        rows = ycbcr_matrix(name).sum(1)
        torch.testing.assert_close(rows, torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64))


@pytest.mark.parametrize("siting", ["left", "center", "topleft"])
@pytest.mark.parametrize("name", ["yuv420p", "yuv410p", "yuv444p10le", "gbrp", "gray"])
def test_strips_of_rows_leave_no_trace(monkeypatch, name, siting):
    """Rows are converted in strips; the planes are those of the picture converted at once."""
    rgb = name == "gbrp"
    spec = PictureSpec(width=37, height=131, pix_fmt=name, siting=siting, dither=True,
                       matrix="rgb" if rgb else "bt709", full_range=rgb)  # fmt: skip
    clip = torch.from_numpy(np.random.default_rng(1).random((1, 3, 131, 37)) * 2 - 1).float()
    whole = clip_to_planes(clip, spec)[0]

    monkeypatch.setattr(color, "STRIP", 0)

    strips = clip_to_planes(clip, spec)[0]
    assert all((a == b).all() for a, b in zip(whole, strips, strict=True))
