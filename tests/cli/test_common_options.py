"""Options of the command line become those of the library."""

from dataclasses import replace
from fractions import Fraction

import pytest

from oasis_cli import JobOptions, Options, WindowOptions
from oasis_cli.cli.upscale import Upscale
from oasis_cli.errors import UsageError


def typed(**given):
    return Upscale(source="in.mp4", target="out.mp4", **given)


def test_the_commands_defaults_are_the_librarys():
    assert replace(typed().to_options(), fit_windows=False) == Options()
    assert typed().to_jobs() == JobOptions()


@pytest.mark.parametrize(
    ("given", "made"),
    [
        ({"scale": 2.0, "model": "oasis-small", "tile": 256, "strength": 0.5},
         lambda o: (o.scale, o.model, o.tile, o.strength) == (2, "oasis-small", 256, 0.5)),
        ({"size": "1920x1080"}, lambda o: o.size == (1920, 1080) and o.scale is None),
        ({"window": 9}, lambda o: o.windows == WindowOptions(frames=9) and not o.fit_windows),
        ({"overlap": 2}, lambda o: o.windows.overlap == 2 and not o.fit_windows),
        ({"start": "1:30.5", "end": "2:00"},
         lambda o: (o.read.start, o.read.end) == (Fraction(181, 2), 120)),
        ({"strict": True, "overwrite": True},
         lambda o: o.read.strict and o.encode.strict and o.encode.overwrite),
        ({"output_format": "nut", "crf": 20.0, "codec": "libx265"},
         lambda o: (o.encode.format, o.encode.crf, o.encode.codec) == ("nut", 20, "libx265")),
        ({"input_format": "rawvideo", "input_size": "64x48", "video_track": 1,
          "allow_protocols": "file, HTTP"},
         lambda o: (o.raw.format, o.raw.size, o.raw.track, o.raw.protocols)
         == ("rawvideo", "64x48", 1, ("file", "http"))),
        ({"engine": "ray", "device": "cuda"}, lambda o: o.elsewhere),
        ({"device": "cpu", "hwaccel": "none", "deinterlace": "bob"},
         lambda o: (o.device, o.read.hwaccel, o.read.deinterlace) == ("cpu", "none", "bob")),
    ],
)  # fmt: skip
def test_what_is_typed_is_what_is_done(given, made):
    assert made(typed(**given).to_options())


def test_options_of_long_jobs(tmp_path):
    jobs = typed(resume=True, work_dir=tmp_path, workers=2, segment_frames=50).to_jobs()
    assert (jobs.resume, jobs.work_dir, jobs.workers) == (True, str(tmp_path), 2)
    assert jobs.segment_frames == 50
    for wrong in ({"work_dir": tmp_path / "none"}, {"engine": "slurm"}):
        with pytest.raises(UsageError):
            typed(**wrong).to_jobs()


def test_a_plan_alone_is_for_one_file_and_writes_nothing(make_clip, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    clip = make_clip(folder / "a.mp4", frames=2)
    for source, more in (
        (folder, {"dry_run": True}),
        (folder, {"seams": True}),
        (clip, {"dry_run": True, "preview": "middle"}),
    ):
        command = Upscale(source=str(source), target=str(tmp_path / "out.png"), **more)
        with pytest.raises(UsageError, match="do not go together"):
            command.run()
    assert [p.name for p in tmp_path.iterdir()] == ["in"]
