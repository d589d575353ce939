"""Where chroma lies, found in the frames."""

from oasis_cli.media.input.probe import probe


def test_siting_is_found_in_the_decoded_frame(kit, tmp_path):
    expected = {"left": "left", "topleft": "topleft", "center": "center"}
    for siting in expected:
        source = kit.video(
            tmp_path / f"{siting}.mp4", frames=1, options={"chroma_sample_location": siting}
        )
        assert probe(source).video.siting == siting
        kit.enlarge(source, tmp_path / "out.mp4")
        assert probe(tmp_path / "out.mp4").video.siting == siting
