"""Closed captions inside H.264, HEVC, MPEG-2 and AV1 come through frame by frame."""

from fractions import Fraction

import av
import pytest

from oasis_cli.errors import MediaError
from oasis_cli.media.captions import CARRIERS, load_captions, save_captions, with_captions
from oasis_cli.media.input.probe import probe
from oasis_cli.media.input.reader import Reader, ReadOptions
from oasis_cli.media.native import SideDataReader
from oasis_cli.media.output.plan import EncodeOptions, plan_output
from oasis_cli.media.output.segments import SegmentWriter, join
from oasis_cli.media.scheduling import usual_scheduling

KINDS = {"mp4": "libx264", "mkv": "libx265", "ts": "libx264", "webm": "libsvtav1"}


def words(number):
    """cc_data of frame `number`: a field-1 pair, zeros that need escaping, and padding."""
    return bytes([0xFC, 0x20 + number % 90, 0x80 + number]) + b"\xfd\x80\x80" + bytes([0xFE, 0, 0])


def make_captioned(path, codec="libx264", frames=24, first=0, options=None):
    """A film whose frames from `first` on carry captions."""
    with av.open(str(path), "w") as out:
        quick = {"libx264": {"preset": "ultrafast", "bf": "2"}, "libsvtav1": {"preset": "10"},
                 "libx265": {"x265-params": "log-level=none"}}  # fmt: skip
        video = out.add_stream(codec, rate=25, options={**quick.get(codec, {}), **(options or {})})
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        video.codec_context.time_base = Fraction(1, 25)
        with usual_scheduling():
            out.start_encoding()
        for number in [*range(frames), None]:
            frame = None
            if number is not None:
                frame = av.VideoFrame(64, 48, "yuv420p")
                for plane in frame.planes:
                    plane.update(bytes([16 + 5 * number]) * plane.buffer_size)
                frame.pts, frame.time_base = number, Fraction(1, 25)
            for packet in video.encode(frame):
                shown = round(packet.pts * packet.time_base * 25)
                if shown >= first:
                    packet = put(packet, codec, words(shown))
                packet.stream = video
                out.mux(packet)
    return path


def put(packet, codec, triplets):
    """As an encoder would: MPEG-2 has user data behind its picture's headers."""
    if codec in CARRIERS:
        return with_captions(packet, codec, triplets)
    data = bytes(packet)
    at = data.index(b"\0\0\1\1")  # the first slice
    user = b"\0\0\1\xb2GA94\3" + bytes([0x40 | len(triplets) // 3, 0xFF]) + triplets + b"\xff"
    made = av.Packet(data[:at] + user + data[at:])
    made.pts, made.dts, made.duration = packet.pts, packet.dts, packet.duration
    made.time_base, made.is_keyframe = packet.time_base, packet.is_keyframe
    return made


def read_captions(path):
    side = SideDataReader()
    with av.open(str(path)) as box:
        return [side(frame).get("A53_CC") for frame in box.decode(video=0)]


@pytest.mark.parametrize("codec", ["libx264", "libx265", "mpeg2video", "libsvtav1"])
@pytest.mark.parametrize("suffix", KINDS)
def test_every_frame_keeps_its_captions(kit, tmp_path, codec, suffix):
    source = make_captioned(tmp_path / "in.mkv", codec)
    assert read_captions(source) == [words(n) for n in range(24)]

    encode = EncodeOptions(codec=KINDS[suffix], overwrite=True, strict=True)
    done = kit.enlarge(source, tmp_path / f"out.{suffix}", encode=encode)

    assert done.info.video.captions
    assert not done.plan.losses
    assert read_captions(tmp_path / f"out.{suffix}") == [words(n) for n in range(24)]


def test_captions_that_begin_later_are_found_and_kept(kit, tmp_path):
    source = make_captioned(tmp_path / "in.ts", first=9)
    assert kit.enlarge(source, tmp_path / "out.mp4").info.video.captions
    found = read_captions(tmp_path / "out.mp4")
    assert found == [None] * 9 + [words(n) for n in range(9, 24)]


def test_captions_move_with_a_cut(kit, tmp_path):
    source = make_captioned(tmp_path / "in.mp4")
    kit.enlarge(source, tmp_path / "out.mp4", read=ReadOptions(start=Fraction(10, 25)))
    assert read_captions(tmp_path / "out.mp4") == [words(n) for n in range(10, 24)]


def test_captions_of_a_pipe_are_kept(kit, tmp_path, monkeypatch):
    import sys

    source = make_captioned(tmp_path / "in.ts")
    with source.open("rb") as file:
        monkeypatch.setattr(sys, "stdin", type("Pipe", (), {"buffer": file}))
        kit.enlarge("-", tmp_path / "out.mkv")
    assert read_captions(tmp_path / "out.mkv") == [words(n) for n in range(24)]


def test_fields_made_frames_say_their_captions_once(kit, tmp_path):
    source = make_captioned(tmp_path / "in.mp4")
    kit.enlarge(source, tmp_path / "out.mp4", read=ReadOptions(deinterlace="bob"))
    found = read_captions(tmp_path / "out.mp4")
    assert [c for c in found if c] == [words(n) for n in range(24)]
    assert len(found) == 48


def test_segments_that_are_joined_have_all_captions(kit, tmp_path):
    source = make_captioned(tmp_path / "in.mp4", "mpeg2video")
    info = probe(source)
    plan = plan_output(info, tmp_path / "out.mp4", (64, 48), EncodeOptions(preset="ultrafast"))
    paths = [tmp_path / "0.mkv", tmp_path / "1.mkv"]
    with Reader(info, keep_captions=True) as reader:
        frames = [frame.planes for frame in reader]
    save_captions(tmp_path / "captions", reader.relay.captions)
    for number, path in enumerate(paths):
        with SegmentWriter(plan, path, 4) as writer:
            for planes in frames[number * 12 : number * 12 + 12]:
                writer.write(planes)
            writer.close()

    assert not join(plan, info, reader.timeline, paths, load_captions(tmp_path / "captions"))

    assert read_captions(tmp_path / "out.mp4") == [words(n) for n in range(24)]


def test_an_encoder_without_a_place_for_captions_is_named(tmp_path):
    info = probe(make_captioned(tmp_path / "in.mp4", first=3))
    plan = plan_output(info, tmp_path / "out.mkv", (64, 48), EncodeOptions(codec="ffv1"))
    assert any("closed captions are lost: ffv1" in loss for loss in plan.losses)
    with pytest.raises(MediaError, match="closed captions"):
        plan_output(info, tmp_path / "o.mkv", (64, 48), EncodeOptions(codec="ffv1", strict=True))


def test_more_captions_than_one_message_holds_come_through(tmp_path):
    many = b"".join(bytes([0xFE, n, 0]) for n in range(70))
    encoder = av.CodecContext.create("libx264", "w")
    encoder.width, encoder.height, encoder.pix_fmt = 64, 48, "yuv420p"
    encoder.time_base = Fraction(1, 25)
    frame = av.VideoFrame(64, 48, "yuv420p")
    frame.pts = 0
    [packet] = [*encoder.encode(frame), *encoder.encode(None)]
    decoder = av.CodecContext.create("h264", "r")
    [found] = [*decoder.decode(with_captions(packet, "libx264", many)), *decoder.decode(None)]
    assert SideDataReader()(found)["A53_CC"] == many
