"""Depths, layouts, tags, turns, fields, odd sizes: what the picture is made of comes through."""

import struct
from fractions import Fraction

import av
import numpy as np
import pytest

from oasis_cli.errors import MediaError
from oasis_cli.media.input.probe import probe
from oasis_cli.media.input.reader import Reader, ReadOptions
from oasis_cli.media.output.plan import EncodeOptions, plan_output


def first_frame(path):
    with av.open(str(path)) as box:
        return next(box.decode(video=0))


def rgb(path):
    with av.open(str(path)) as box:
        return [f.to_ndarray(format="rgb24").astype(int) for f in box.decode(video=0)]


KINDS = {  # input codec and format -> output name and the format expected in it
    "8 bit": ("libx264", "yuv420p", "out.mp4", "yuv420p"),
    "10 bit": ("libx265", "yuv420p10le", "out.mp4", "yuv420p10le"),
    "12 bit": ("libx265", "yuv420p12le", "out.mkv", "yuv420p12le"),
    "4:2:2": ("libx264", "yuv422p", "out.mkv", "yuv422p"),
    "4:4:4": ("libx264", "yuv444p", "out.mp4", "yuv444p"),
    "4:2:2 10 bit": ("prores_ks", "yuv422p10le", "out.mp4", "yuv422p10le"),
    "gray": ("ffv1", "gray", "out.mkv", "gray"),
    "RGB": ("ffv1", "bgr0", "out.mp4", "yuv420p"),
    "4:1:1": ("ffv1", "yuv411p", "out.mkv", "yuv422p"),
    "4:4:0": ("ffv1", "yuv440p", "out.mkv", "yuv444p"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_depth_and_subsampling_are_kept(kit, tmp_path, kind):
    codec, pix_fmt, name, expected = KINDS[kind]
    suffix = "mov" if codec == "prores_ks" else "mkv"
    source = kit.video(tmp_path / f"in.{suffix}", frames=3, codec=codec, pix_fmt=pix_fmt,
                       base=Fraction(1, 1000))  # fmt: skip
    kit.enlarge(source, tmp_path / name, scale=2)

    assert first_frame(tmp_path / name).format.name.replace("yuvj", "yuv") in (
        expected,
        "yuv420p" if kind == "gray" else expected,  # what FFmpeg makes of gray H.264
    )
    for before, after in zip(rgb(source), rgb(tmp_path / name), strict=True):
        large = np.kron(before, np.ones((2, 2, 1), int))
        assert np.abs(large - after).mean() < 6


@pytest.mark.parametrize("codec", ["libx264", "libx265", "libsvtav1", "prores_ks", "ffv1"])
@pytest.mark.parametrize(
    "tags", [(1, 1, 1, 1), (9, 16, 9, 1), (9, 18, 9, 1), (6, 6, 6, 2), (5, 6, 5, 1)]
)
def test_color_tags_come_through(kit, tmp_path, tags, codec):
    def tag(video):
        context = video.codec_context
        (context.color_primaries, context.color_trc, context.colorspace, context.color_range) = tags

    source = kit.video(tmp_path / "in.mp4", frames=2, setup=tag, pix_fmt="yuv420p", size=(64, 64))
    suffix = {"prores_ks": "mov", "ffv1": "mkv"}.get(codec, "mp4")
    target = tmp_path / f"out.{suffix}"
    kit.enlarge(source, target, encode=EncodeOptions(codec=codec))

    color = probe(target).video.color
    assert (color.primaries, color.transfer, color.matrix) == tags[:3]
    assert color.range == tags[3] or codec == "prores_ks"


@pytest.mark.parametrize("size, matrix", [((64, 48), 6), ((1280, 64), 1)])
def test_an_untagged_picture_is_tagged_with_the_matrix_that_was_used(kit, tmp_path, size, matrix):
    source = kit.video(tmp_path / "in.mp4", frames=1, size=size)
    done = kit.enlarge(source, tmp_path / "out.mp4", encode=EncodeOptions(preset="ultrafast"))
    assert probe(tmp_path / "out.mp4").video.color.matrix == matrix
    assert "primaries untagged, transfer untagged" in "\n".join(done.plan.lines())


HDR10 = (
    "log-level=none:hdr10=1:repeat-headers=1:max-cll=1000,400:"
    "master-display=G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,1)"
)


@pytest.mark.parametrize(
    "codec, name", [("libx265", "o.mp4"), ("libx265", "o.mkv"), ("libsvtav1", "o.mp4")]
)
def test_hdr10_values_come_through(kit, tmp_path, codec, name):
    def tag(video):
        context = video.codec_context
        context.color_primaries, context.color_trc, context.colorspace = 9, 16, 9

    source = kit.video(tmp_path / "in.mp4", frames=2, codec="libx265", pix_fmt="yuv420p10le",
                       size=(64, 64), setup=tag, options={"x265-params": HDR10})  # fmt: skip
    done = kit.enlarge(source, tmp_path / name, encode=EncodeOptions(codec=codec))

    before, after = done.info.video.hdr, probe(tmp_path / name).video.hdr
    assert (after.max_content, after.max_average) == (1000, 400)
    assert len(before.display) == len(after.display) == 10
    for a, b in zip(before.display, after.display, strict=True):
        assert abs(float(a) - float(b)) <= 1e-4 * max(1, float(a))
    assert first_frame(tmp_path / name).format.name == "yuv420p10le"
    assert not done.plan.losses


@pytest.mark.parametrize("codec, name, odd", [
    ("libx264", "o.mp4", False), ("libx265", "o.mkv", False), ("libsvtav1", "o.mp4", True),
    ("ffv1", "o.mkv", True), ("prores_ks", "o.mov", True),
])  # fmt: skip
def test_odd_sizes(kit, tmp_path, codec, name, odd):
    source = kit.video(
        tmp_path / "in.mkv", frames=3, codec="ffv1", size=(81, 67), base=Fraction(1, 1000)
    )
    done = kit.enlarge(source, tmp_path / name, scale=1, encode=EncodeOptions(codec=codec))

    frame = first_frame(tmp_path / name)
    assert (frame.width, frame.height) == ((81, 67) if odd else (82, 68))
    assert any("even" in note for note in done.plan.notes) is not odd
    difference = np.abs(rgb(source)[0] - rgb(tmp_path / name)[0][:67, :81])
    assert difference[:-2, :-2].mean() < 6


def test_four_four_four_keeps_odd_sizes_in_h264(kit, tmp_path):
    source = kit.video(
        tmp_path / "in.mkv", frames=2, codec="ffv1", size=(33, 25), base=Fraction(1, 1000)
    )
    kit.enlarge(source, tmp_path / "o.mp4", scale=1, encode=EncodeOptions(pix_fmt="yuv444p"))
    frame = first_frame(tmp_path / "o.mp4")
    assert (frame.width, frame.height) == (33, 25)


MATRICES = {
    "90": (0, 65536, 0, -65536, 0, 0, 0, 0, 1 << 30),
    "180": (-65536, 0, 0, 0, -65536, 0, 0, 0, 1 << 30),
    "270": (0, -65536, 0, 65536, 0, 0, 0, 0, 1 << 30),
    "mirrored": (-65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30),
    "upside down": (65536, 0, 0, 0, -65536, 0, 0, 0, 1 << 30),
    "transposed": (0, 65536, 0, 65536, 0, 0, 0, 0, 1 << 30),
}


def matrix_of(path):
    for item in first_frame(path).side_data:
        if item.type.name == "DISPLAYMATRIX":
            return struct.unpack("<9i", bytes(item)[:36])
    return None


@pytest.mark.parametrize("suffix", ["mp4", "mov"])
@pytest.mark.parametrize("turn", MATRICES)
def test_rotation_stays_metadata(kit, tmp_path, turn, suffix):
    matrix = MATRICES[turn]
    source = kit.video(tmp_path / "in.mp4", frames=2, setup=lambda v: v.set_display_matrix(matrix))
    kit.enlarge(source, tmp_path / f"out.{suffix}")

    assert matrix_of(tmp_path / f"out.{suffix}")[:5] == matrix[:5]
    frame = first_frame(tmp_path / f"out.{suffix}")
    assert (frame.width, frame.height) == (64, 48)


@pytest.mark.parametrize("turn", ["90", "180", "270"])
def test_rotation_reaches_matroska(kit, tmp_path, turn):
    matrix = MATRICES[turn]
    source = kit.video(tmp_path / "in.mp4", frames=2, setup=lambda v: v.set_display_matrix(matrix))
    kit.enlarge(source, tmp_path / "out.mkv")
    assert first_frame(tmp_path / "out.mkv").rotation == first_frame(source).rotation


@pytest.mark.parametrize("turn", MATRICES)
def test_baked_rotation_turns_the_pixels(kit, tmp_path, turn):
    """Compared with what the matrix means: x' = a x + c y, y' = b x + d y."""
    matrix = MATRICES[turn]
    source = kit.video(tmp_path / "in.mp4", frames=1, pix_fmt="yuv444p", options={"crf": "1"},
                       setup=lambda v: v.set_display_matrix(matrix))  # fmt: skip
    options = EncodeOptions(codec="ffv1", pix_fmt="gbrp")
    kit.enlarge(
        source, tmp_path / "out.mkv", scale=1, read=ReadOptions(bake_rotation=True), encode=options
    )

    assert matrix_of(tmp_path / "out.mkv") is None
    [before], [after] = rgb(source), rgb(tmp_path / "out.mkv")
    a, b, c, d = (np.sign(matrix[k]) for k in (0, 1, 3, 4))
    height, width = before.shape[:2]
    ys, xs = np.mgrid[:height, :width]
    nx, ny = a * xs + c * ys, b * xs + d * ys
    expected = np.zeros_like(after)
    expected[ny - ny.min(), nx - nx.min()] = before
    assert np.abs(expected - after).max() <= 3


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "mov"])
def test_pixel_shape_is_kept_and_turns_with_a_baked_rotation(kit, tmp_path, suffix):
    def setup(video):
        video.codec_context.sample_aspect_ratio = Fraction(64, 45)
        video.set_display_matrix(MATRICES["90"])

    source = kit.video(tmp_path / "in.mp4", frames=2, setup=setup)
    kit.enlarge(source, tmp_path / f"a.{suffix}")
    kit.enlarge(source, tmp_path / f"b.{suffix}", read=ReadOptions(bake_rotation=True))
    assert probe(tmp_path / f"a.{suffix}").video.sar == Fraction(64, 45)
    assert probe(tmp_path / f"b.{suffix}").video.sar == Fraction(45, 64)


def with_alpha(path, codec, pix_fmt, frames=3, **options):
    with av.open(str(path), "w") as out:
        video = out.add_stream(codec, rate=25, options=options)
        video.width, video.height, video.pix_fmt = 32, 32, pix_fmt
        for number in range(frames):
            image = np.full((32, 32, 4), 128, np.uint8)
            image[..., 3] = np.linspace(0, 255, 32)[None, :]
            frame = av.VideoFrame.from_ndarray(image, format="rgba").reformat(format=pix_fmt)
            frame.pts, frame.time_base = number, Fraction(1, 25)
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
    return path


@pytest.mark.parametrize("name, codec", [
    ("o.mov", None), ("o.mkv", "ffv1"), ("o.webm", None), ("o_%05d.png", None),
])  # fmt: skip
def test_alpha_is_enlarged_beside_the_model(kit, tmp_path, name, codec):
    source = with_alpha(
        tmp_path / "in.mov", "prores_ks", "yuva444p10le", alpha_bits="16", profile="4"
    )
    done = kit.enlarge(source, tmp_path / name, encode=EncodeOptions(codec=codec))

    assert not any("alpha" in loss for loss in done.plan.losses)
    path = tmp_path / ("o_00001.png" if "png" in name else name)
    info = probe(path)
    assert info.video.layout.alpha
    with Reader(info, keep_alpha=True) as reader:
        frames = list(reader)
    assert len(frames) == (1 if "png" in name else 3)
    alpha = reader.relay.alpha[0] / ((1 << info.video.layout.depth) - 1)
    assert alpha.shape == (64, 64)
    assert np.abs(alpha.mean(0) - np.linspace(0, 1, 64)).max() < 0.05


def test_a_change_of_size_in_mid_stream_is_scaled_or_refused(kit, tmp_path):
    source = tmp_path / "joined.ts"
    parts = [
        kit.video(tmp_path / f"{n}.ts", frames=4, size=size, base=Fraction(1, 90000),
                  ticks=[90000 * n + 3600 * k for k in range(4)])
        for n, size in enumerate(((32, 24), (64, 48)))
    ]  # fmt: skip
    source.write_bytes(b"".join(p.read_bytes() for p in parts))

    done = kit.enlarge(source, tmp_path / "out.mp4")

    assert done.report.size_changes == 4
    assert len(kit.shown(tmp_path / "out.mp4")) == 8
    assert any("another size" in w for w in done.report.warnings)
    with pytest.raises(MediaError, match="changes to 64x48"):
        kit.enlarge(source, tmp_path / "strict.mp4", read=ReadOptions(strict=True))
    assert not (tmp_path / "strict.mp4").exists()


def test_hdr_is_not_lost_in_silence(kit, tmp_path):
    source = kit.video(tmp_path / "in.mp4", frames=2, codec="libx265", pix_fmt="yuv420p10le",
                       size=(64, 64), options={"x265-params": HDR10})  # fmt: skip
    info = probe(source)
    plan = plan_output(info, tmp_path / "o.mkv", (64, 64), EncodeOptions(codec="ffv1"))
    assert any("HDR" in loss for loss in plan.losses)
    with pytest.raises(MediaError, match="HDR"):
        plan_output(info, tmp_path / "o.mkv", (64, 64), EncodeOptions(codec="ffv1", strict=True))


def test_lost_alpha_is_said(kit, tmp_path):
    source = with_alpha(tmp_path / "in.mov", "png", "rgba")
    plan = plan_output(probe(source), tmp_path / "o.mp4", (64, 64))
    assert any("alpha" in loss for loss in plan.losses)
