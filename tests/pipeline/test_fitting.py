"""What is chosen where memory is short, and in which order."""

import os
from dataclasses import replace

import pytest
import torch
from toy_networks import NETWORKS, SIZES

from oasis_cli.media.input.probe import probe
from oasis_cli.pipeline import fitting
from oasis_cli.pipeline import plan as planning
from oasis_cli.pipeline.fitting import Choice, Needs, encoder_memory, fit
from oasis_cli.pipeline.memory import weights_bytes, window_bytes
from oasis_cli.pipeline.plan import Options, make_plan
from oasis_cli.pipeline.windows import WindowOptions

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
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(processors))
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
    monkeypatch.setattr(
        os, "sched_getaffinity", lambda pid: range(2)
    )  # the encoder's memory depends on them
    target = str(tmp_path / "out.mp4")
    options = Options(device="cpu", precision="fp32", fit_windows=True)
    alone = make_plan(source, target, options)
    plan = make_plan(source, target, options, workers, at_once)
    assert alone.options.windows.frames == 17
    assert (plan.options.windows.frames < 17) == bool(shown)
    assert shown in "".join(plan.notes)
