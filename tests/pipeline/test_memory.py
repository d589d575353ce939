"""What windows need is known before; and memory does not grow with the length of a video."""

import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from oasis_cli.media.input.probe import probe
from oasis_cli.model.decoders.tiny import TinyConfig
from oasis_cli.model.decoders.wan import WanVAEConfig
from oasis_cli.model.oasis import PAPER, SMALL
from oasis_cli.pipeline import fitting
from oasis_cli.pipeline import plan as planning
from oasis_cli.pipeline.fitting import Choice, Needs, encoder_memory, fit
from oasis_cli.pipeline.memory import weights_bytes, window_bytes
from oasis_cli.pipeline.plan import Options, make_plan
from oasis_cli.pipeline.windows import WindowOptions
from oasis_cli.runtime.device_memory import free_memory, left_to_groups

NETWORKS = {
    "small": SMALL,
    "paper": PAPER,
    "wan": replace(PAPER, decoder=WanVAEConfig()),
    "tiny": replace(PAPER, decoder=TinyConfig()),
}
SIZES = {rows: (rows * 16 // 9, rows) for rows in (360, 720, 1080, 2160)}

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


def test_weights_are_counted():
    assert weights_bytes(SMALL, "fp32") == 4 * weights_bytes(SMALL, "fp16") // 2
    half, eighth = (weights_bytes(PAPER, precision) / 2**20 for precision in ("fp16", "fp8"))
    assert 2600 < half < 2760 and 1540 < eighth < 1700  # 2,726 and 1,620 MiB were loaded


USUAL = Choice(windows=WindowOptions(), tile=None, precision="fp16", decoder="wan")

CARDS = (8, 12, 16, 24, 48, 80, 141)


def planned(name, size, free, monkeypatch, *, fp8=True, **options):
    """What is chosen for `free` bytes of a card, and what it needs there."""
    monkeypatch.setattr(fitting, "supports_fp8", lambda device: fp8)
    config, cuda = NETWORKS[name], torch.device("cuda")
    usual = replace(USUAL, decoder="own")
    varies = Options(fit_windows=True, **options).left_open
    chosen, note = fit(Needs({"own": config}, cuda, size), usual, varies, free)
    needs = window_bytes(config, "cuda", chosen.precision, size, chosen.windows, chosen.tile)
    return chosen, chosen.precision, note, needs + weights_bytes(config, chosen.precision)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("rows", [720, 1080, 2160])
def test_every_card_gets_what_fits_and_a_larger_one_no_less(name, rows, monkeypatch):
    before = (0, 0.0)
    for card in CARDS:
        free = round(0.93e9 * card)  # a screen and the driver have the rest
        chosen, precision, note, needs = planned(name, SIZES[rows], free, monkeypatch)
        assert needs <= free
        as_usual = (chosen.windows, chosen.tile, precision) == (WindowOptions(), None, "fp16")
        assert bool(note) != as_usual
        power = chosen.windows.frames, chosen.tile or float("inf")
        assert power >= before
        before = power
    assert chosen.windows == WindowOptions()
    if rows == 720:
        assert planned(name, SIZES[720], 7_440_000_000, monkeypatch)[0].windows == WindowOptions()


def test_eight_bit_weights_come_before_shorter_windows_where_nobody_asked(monkeypatch):
    size, free = SIZES[720], 3200 << 20
    chosen, precision, note, _ = planned("paper", size, free, monkeypatch)
    assert (chosen.windows.frames, precision) == (17, "fp8")
    assert "fp8 weights, which rounds more; --precision fp16 insists" in note
    for changes in ({"precision": "fp16"}, {"fp8": False}):
        chosen, precision, note, _ = planned("paper", size, free, monkeypatch, **changes)
        assert chosen.windows.frames < 17 and precision == "fp16"
        assert "--window 17 insists" in note


def test_tiles_that_waste_work_come_after_shorter_windows(monkeypatch):
    """On an H200 tiles of 256 took 11 times as long as the whole picture, and saved a third."""
    windows, config = WindowOptions(), NETWORKS["small"]
    least = window_bytes(config, "cuda", "fp16", SIZES[2160], windows, 256)
    free = least + weights_bytes(config, "fp16")
    chosen = planned("small", SIZES[2160], free, monkeypatch)[0]
    assert (chosen.windows.frames, chosen.tile) == (13, None)
    insisted = Options(fit_windows=False).left_open
    usual = replace(USUAL, decoder="own")
    needs = Needs({"own": config}, torch.device("cuda"), SIZES[2160])
    found, _ = fit(needs, usual, insisted, free)
    assert (found.windows.frames, found.tile) == (17, 256)


def test_another_decoder_comes_before_shorter_windows_where_nobody_asked(monkeypatch):
    monkeypatch.setattr(fitting, "supports_fp8", lambda device: True)
    known = {name: NETWORKS[name] for name in ("wan", "tiny")}
    size, free = SIZES[1080], 5200 << 20

    def chosen(kind="wan", **changes):
        usual, varies = replace(USUAL, decoder=kind), Options(fit_windows=True, **changes).left_open
        found, note = fit(Needs(known, torch.device("cuda"), size), usual, varies, free)
        return found.decoder, found.windows.frames, note

    kind, frames, note = chosen()
    assert (kind, frames) == ("tiny", 17)
    assert "the tiny decoder, which draws details otherwise; --decoder wan insists" in note
    kind, frames, note = chosen(decoder="wan")
    assert kind == "wan" and frames < 17 and "flicker" in note
    assert chosen("tiny", decoder="tiny")[0] == "tiny"


@pytest.mark.parametrize(("processors", "used"), [(2, 185), (11, 354)])
def test_the_encoders_memory_is_near_what_it_took(
    make_clip, tmp_path, monkeypatch, processors, used
):
    """MiB at 1280x720, preset medium, with 2 and 16 threads."""
    monkeypatch.setattr(os, "cpu_count", lambda: processors)
    plan = make_plan(
        probe(make_clip(frames=5, size=(320, 180))), str(tmp_path / "a.mp4"), Options()
    )
    assert 0.9 * used < encoder_memory(plan.output, plan.size) / 2**20 < 1.2 * used


@pytest.mark.parametrize(
    ("workers", "at_once", "shown"),
    [(None, 1, ""), (3, 1, "free for each of 3 runs"), (2, 2, "free for each of 4 runs")],
)
def test_workers_share_the_memory(make_clip, tmp_path, monkeypatch, workers, at_once, shown):
    source = probe(make_clip(frames=5, size=(160, 120)))
    monkeypatch.setattr(planning, "free_memory", lambda device: 1200 << 20)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)  # the encoder's memory depends on them
    target = str(tmp_path / "out.mp4")
    options = Options(device="cpu", precision="fp32", fit_windows=True)
    alone = make_plan(source, target, options)
    plan = make_plan(source, target, options, workers, at_once)
    assert alone.options.windows.frames == 17
    assert (plan.options.windows.frames < 17) == bool(shown)
    assert shown in "".join(plan.notes)


@pytest.mark.parametrize(("share", "free"), [(1.0, 5), (0.5, 3), (0.1, 0)])
def test_free_memory_of_a_gpu_counts_caches_and_limits(monkeypatch, share, free):
    gib = 1 << 30
    for name, value in {
        "mem_get_info": (3 * gib, 10 * gib),
        "memory_allocated": (1 if share == 0.1 else 2) * gib,
        "memory_reserved": 4 * gib,
    }.items():
        monkeypatch.setattr(torch.cuda, name, lambda device, value=value: value, raising=False)

    def fraction(number):
        assert number is None or isinstance(number, int)  # PyTorch refuses "cuda" here
        return share

    monkeypatch.setattr(torch.cuda, "get_per_process_memory_fraction", fraction, raising=False)
    for name in ("cuda", "cuda:1"):
        assert free_memory(torch.device(name)) == free * gib


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_free_memory_of_a_real_gpu():
    free, total = torch.cuda.mem_get_info()
    for name in ("cuda", "cuda:0"):
        assert 0 < free_memory(torch.device(name)) <= total


def test_free_memory_is_plausible_or_unknown():
    free = free_memory(torch.device("cpu"))
    assert free is None or 1 << 20 < free < 1 << 50
    assert free_memory(torch.device("mps")) is None


GIB = 1 << 30


def groups(folder, limits, version):
    """A process in group a/b, as the kernel shows it: limits, use and cached files in bytes."""
    top = folder / "memory" if version == 1 else folder
    names = ("limit_in_bytes", "usage_in_bytes") if version == 1 else ("max", "current")
    prefix = "total_" if version == 1 else ""
    for path, (limit, used, cached) in limits.items():
        (top / path).mkdir(parents=True, exist_ok=True)
        for name, value in zip(names, (limit, used), strict=True):
            (top / path / f"memory.{name}").write_text(f"{value}\n")
        stat = f"anon 5\n{prefix}inactive_file {cached}\n"
        (top / path / "memory.stat").write_text(stat)
    listed = "9:cpu:/x\n4:memory:/a/b\n0::/\n" if version == 1 else "0::/a/b\n"
    (folder / "cgroup").write_text(listed)
    return sorted(left_to_groups(folder / "cgroup", folder))


@pytest.mark.parametrize("version", [1, 2])
def test_limits_of_containers_and_batch_jobs_count(tmp_path, version):
    none = 9223372036854771712 if version == 1 else "max"
    found = groups(tmp_path, {"a/b": (3 * GIB, 2 * GIB, GIB), "a": (4 * GIB, GIB, 0)}, version)
    assert found == [2 * GIB, 3 * GIB]
    found = groups(tmp_path / "n", {"a/b": (none, 0, 0), ".": (GIB, 2 * GIB, 0)}, version)
    assert found[0] == 0 and all(left > 1 << 60 for left in found[1:])  # only the outer has one
    assert groups(tmp_path / "c", {".": (GIB, 0, 0)}, version) == [GIB]  # a container's own view
    assert not list(left_to_groups(tmp_path / "none", tmp_path))


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
