"""What is changed or lost in the picture is said."""

from oasis_cli.media.output.plan import EncodeOptions


def test_fewer_bits_are_dithered_and_said(kit, tmp_path):
    source = kit.video(tmp_path / "in.mp4", frames=2, codec="libx265", pix_fmt="yuv420p10le",
                       size=(64, 64))  # fmt: skip
    done = kit.enlarge(
        source, tmp_path / "o.mp4", encode=EncodeOptions(pix_fmt="yuv420p", codec="libx264")
    )
    assert done.plan.spec.dither
    assert any("dithered" in loss for loss in done.plan.losses)
