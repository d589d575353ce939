"""What windows need is known before; and memory does not grow with the length of a video."""

import subprocess
import sys
from dataclasses import replace

import pytest
from toy_networks import NETWORKS, SIZES

from oasis_cli.model.fusion import FusionConfig
from oasis_cli.model.oasis import PAPER, SMALL, TINY
from oasis_cli.pipeline.memory import weights_bytes, window_bytes
from oasis_cli.pipeline.windows import WindowOptions

# Network, precision, rows of the output, frames, tile; MiB in use at most on an H200, PyTorch 2.11
MEASURED = [
    ("small", "fp16", 360, 17, None, 208),
    ("small", "fp16", 720, 5, None, 328),
    ("small", "fp16", 720, 17, None, 638),
    ("small", "fp16", 720, 33, None, 1167),
    ("small", "fp16", 720, 17, 512, 759),
    ("small", "fp16", 720, 5, 256, 255),
    ("small", "fp32", 720, 17, None, 2052),
    ("small", "fp16", 1080, 17, None, 1926),
    ("small", "fp16", 1080, 17, 1024, 2070),
    ("small", "fp16", 1080, 17, 256, 1564),
    ("small", "fp16", 2160, 5, None, 2928),
    ("small", "fp16", 2160, 17, None, 5843),
    ("small", "fp16", 2160, 17, 512, 4135),
    ("paper", "fp16", 720, 17, None, 806),
    ("paper", "fp16", 720, 33, None, 1476),
    ("paper", "fp16", 1080, 1, None, 351),
    ("paper", "fp16", 1080, 5, None, 1277),
    ("paper", "fp16", 1080, 33, None, 4131),
    ("paper", "fp8", 720, 33, None, 1753),
    ("paper", "fp8", 1080, 17, None, 2581),
    ("wan", "fp16", 360, 17, None, 3388),
    ("wan", "fp16", 720, 1, None, 4776),
    ("wan", "fp16", 720, 5, None, 7522),
    ("wan", "fp16", 720, 17, None, 13082),
    ("wan", "fp16", 720, 5, 512, 3733),
    ("wan", "fp16", 720, 5, 128, 1048),
    ("wan", "fp16", 1080, 5, None, 17168),
    ("tiny", "fp16", 360, 5, None, 456),
    ("tiny", "fp16", 720, 1, None, 1508),
    ("tiny", "fp16", 720, 17, None, 1911),
    ("tiny", "fp16", 720, 17, 512, 1430),
    ("tiny", "fp16", 1080, 17, None, 4736),
    ("tiny", "fp16", 1080, 17, 128, 1843),
]


@pytest.mark.parametrize(("name", "precision", "rows", "frames", "tile", "used"), MEASURED)
def test_the_model_of_memory_is_near_what_a_gpu_used(name, precision, rows, frames, tile, used):
    windows = WindowOptions(frames=frames, overlap=0)
    found = window_bytes(NETWORKS[name], "cuda", precision, SIZES[rows], windows, tile)
    assert 1.02 * used < found / 2**20 < 1.65 * used


def test_a_fusion_is_counted():
    """410 MB more were measured: 17 frames of oasis-tiny with one, to 1280x720 in 32 bits."""
    fused = replace(TINY, fusion=FusionConfig())
    without, needed = (
        window_bytes(config, "cpu", "fp32", (1280, 720), WindowOptions(), None)
        for config in (TINY, fused)
    )
    assert 400e6 < needed - without < 520e6
    large = (3840, 2160)
    at_size = (
        window_bytes(config, "cuda", "fp16", large, WindowOptions(), 256)
        for config in (TINY, fused)
    )
    assert next(at_size) < next(at_size)


def test_weights_are_counted():
    assert weights_bytes(SMALL, "fp32") == 4 * weights_bytes(SMALL, "fp16") // 2
    half, eighth = (weights_bytes(PAPER, precision) / 2**20 for precision in ("fp16", "fp8"))
    assert 2600 < half < 2760 and 1540 < eighth < 1700  # 2,726 and 1,620 MiB were loaded


SCRIPT = """
import resource, sys
import torch
from torch.nn import functional as F
from oasis_cli.pipeline.run import Options, upscale
from oasis_cli.pipeline.windows import WindowOptions

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
