"""Memory does not grow with the length of a video."""

import subprocess
import sys

SCRIPT = """
import resource, sys
import torch
from torch.nn import functional as F
from oasis_cli.upscale import Options, upscale
from oasis_cli.windows import WindowOptions

def nearest(low, size, tile=None):
    return F.interpolate(low[0], size=size)[None]

options = Options(scale=2, windows=WindowOptions(frames=5, overlap=1))
for source in sys.argv[1:]:
    result = upscale(source, source + ".out.mkv", options, model=nearest)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB; never falls
    print(result.frames, peak)
"""


def test_a_long_clip_needs_no_more_than_a_short_one(make_clip):
    clips = [make_clip(f"{n}.mp4", frames=n, size=(96, 64), rate=15) for n in (150, 900)]

    command = [sys.executable, "-c", SCRIPT, *map(str, clips)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()

    (short, short_peak), (long, long_peak) = zip(lines[::2], lines[1::2], strict=True)
    assert (int(short), int(long)) == (150, 900)  # 10 and 60 seconds
    assert int(long_peak) <= 1.1 * int(short_peak)
