from fractions import Fraction

import av
import numpy as np
import pytest

from oasis_cli.errors import MediaError
from oasis_cli.media.color import clip_to_planes, frames_to_clip
from oasis_cli.media.input.probe import probe
from oasis_cli.media.input.reader import Reader
from oasis_cli.media.output.plan import EncodeOptions, plan_output
from oasis_cli.media.output.segments import SegmentWriter, inspect_segment, join
from oasis_cli.media.timeline import Timeline

CASES = [
    ("libx264", "mp4"),
    ("libx264", "mkv"),
    ("libx265", "mp4"),
    ("libsvtav1", "mp4"),
    ("prores_ks", "mov"),
    ("ffv1", "mkv"),
]
FAST = {"libx264": "veryfast", "libx265": "ultrafast", "libsvtav1": "12"}


def planned(source, target, codec):
    info = probe(source)
    options = EncodeOptions(codec=codec, preset=FAST.get(codec), overwrite=True)
    size = (info.video.width, info.video.height)
    return info, plan_output(info, target, size, options)


def pictures(info, plan):
    """The input's frames as planes for the encoder, and its times."""
    with Reader(info) as reader:
        planes = [clip_to_planes(frames_to_clip([f], reader.spec), plan.spec)[0] for f in reader]
        return planes, reader.timeline


def write(plan, folder, planes, bounds):
    paths = []
    for start, stop in zip(bounds, bounds[1:], strict=False):
        path = folder / f"{start}.mkv"
        with SegmentWriter(plan, path, 4) as writer:
            for frame in planes[start:stop]:
                writer.write(frame)
            writer.close()
        paths.append(path)
    return paths


def vary(timeline: Timeline) -> Timeline:
    """The same frames at uneven times, starting late."""
    out = Timeline(Fraction(1, 90000), 3600)
    pts = 7777
    for number in range(len(timeline)):
        out.append(pts, 1800 + 900 * (number % 3))
        pts += 1800 + 900 * (number % 3)
    return out


@pytest.mark.parametrize(("codec", "suffix"), CASES)
def test_joined_segments_are_exact_in_count_time_and_picture(
    codec, suffix, make_clip, tmp_path, look
):
    source, target = make_clip(frames=47, size=(64, 48)), tmp_path / f"out.{suffix}"
    info, plan = planned(source, target, codec)
    planes, timeline = pictures(info, plan)
    timeline = vary(timeline)
    segments = write(plan, tmp_path, planes, [0, 13, 14, 30, 47])

    assert join(plan, info, timeline, segments) == []

    apart = [frame for path in segments for frame in look.frames(path)]
    joined = look.frames(target)
    assert len(joined) == len(apart) == 47
    assert all(np.array_equal(a, b) for a, b in zip(apart, joined, strict=True))
    slack = Fraction(1, 2000) if suffix == "mkv" else 0
    shift = look.times(target)[0] - timeline.seconds(0)  # muxers may move all streams alike
    for number, seconds in enumerate(look.times(target)):
        assert abs(seconds - shift - timeline.seconds(number)) <= 2 * slack
    assert look.audio(target) == look.audio(source)


def test_a_segment_exists_only_when_it_is_complete(make_clip, tmp_path):
    info, plan = planned(make_clip(), tmp_path / "out.mp4", "libx264")
    planes, _ = pictures(info, plan)
    path = tmp_path / "s.mkv"
    with pytest.raises(ZeroDivisionError), SegmentWriter(plan, path, 4) as writer:
        writer.write(planes[0])
        assert not path.exists()
        raise ZeroDivisionError
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.mp4"]


def test_damage_is_noticed_before_joining(make_clip, tmp_path):
    info, plan = planned(make_clip(frames=20), tmp_path / "out.mp4", "libx264")
    planes, timeline = pictures(info, plan)
    segments = write(plan, tmp_path, planes, [0, 10, 20])
    facts = [inspect_segment(path) for path in segments]
    assert [f.frames for f in facts] == [10, 10]
    assert facts[0].setup == facts[1].setup

    with pytest.raises(MediaError, match="10 of 20 frames"):
        join(plan, info, timeline, segments[:1])
    segments[1].write_bytes(b"not a segment")
    assert inspect_segment(segments[1]) is None
    with pytest.raises(MediaError, match="damaged"):
        join(plan, info, timeline, segments)
    assert not (tmp_path / "out.mp4").exists()
    assert not [p for p in tmp_path.iterdir() if "part" in p.name]


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
def test_a_segment_begins_anew_behind_a_hole(kit, tmp_path, codec):
    source = kit.video(tmp_path / "in.mp4", frames=24, size=(64, 48))
    info, plan = planned(source, tmp_path / "out.mp4", codec)
    planes, _ = pictures(info, plan)
    with SegmentWriter(plan, tmp_path / "0.mkv", 4, frozenset({11})) as writer:
        for frame in planes:
            writer.write(frame)
        writer.close()

    with av.open(str(tmp_path / "0.mkv")) as box:
        packets = [p for p in box.demux(video=0) if p.size]
    order = sorted(p.pts for p in packets)
    place = next(n for n, p in enumerate(packets) if p.pts == order[11])
    assert packets[place].is_keyframe
    assert {p.pts for p in packets[:place]} == set(order[:11])  # nothing reaches across
