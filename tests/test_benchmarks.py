"""The benchmark scripts run, at toy sizes: what they measure is left to quiet machines."""

import importlib
import json
import sys
from pathlib import Path

import av
import numpy as np
import pytest

from oasis_cli.media.pictures import encode_picture

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def script(monkeypatch, capsys, tmp_path):
    """script("speed", "--frames", 1, ...) -> (what it printed, its JSON)."""
    monkeypatch.syspath_prepend(str(FOLDER))

    def run(name, *words):
        out = tmp_path / "out.json"
        module = importlib.import_module(name)  # by its name: processes that it starts find it
        monkeypatch.setattr(sys, "argv", [name, *map(str, words), "--json", str(out)])
        module.main()
        return capsys.readouterr().out, json.loads(out.read_text())

    return run


def test_speed_prints_both_networks_and_the_ratio(script, tiny_weights):
    words = ["--size", "16x16", "--target", "64x64", "--frames", 1, "--repeat", 1]
    printed, data = script("speed", "--model", tiny_weights, *words)
    assert "srvgg" in printed and "speed against srvgg" in printed
    best = data["seconds_per_frame"]
    assert data["speed_against_srvgg"] == pytest.approx(best["srvgg"] / best["oasis"])
    assert data["torch"] and data["threads"]


def test_the_parts_of_a_cpus_time_add_up(script, tiny_weights):
    words = ["--size", "32x24", "--scale", 2, "--frames", 5]
    printed, data = script("cpu_parts", "--model", tiny_weights, *words)
    found = sum(sum(cells.values()) for cells in data["parts"].values())
    assert found == pytest.approx(data["seconds_per_frame"])
    assert data["parts"]["decoder: residual blocks"]["convolutions"] > 0
    assert "| transformer: feed-forward part |" in printed


def test_the_gpu_suite_measures_and_survives_a_row_that_fails(script, monkeypatch):
    import gpu_rig

    words = ["--suite", "gpu", "--device", "cpu", "--toy", "--no-compile"]
    monkeypatch.setattr(gpu_rig.Rig, "clip", None)
    rows = ["window-720p", "dit-720p", "whole-720p", "training"]
    printed, data = script("speed", *words, "--only", *rows)
    found = {row["name"]: row for row in data["rows"]}
    assert all(found[name]["value"] > 0 for name in ("window-720p", "dit-720p", "training"))
    assert found["whole-720p"]["value"] is None and "TypeError" in found["whole-720p"]["error"]
    assert "DiT, 720p, bf16" in printed


def write_pair(folder):
    """a.hr.mkv and a.lr.mkv: three frames of noise, which have nothing to do with each other."""
    generator = np.random.default_rng(0)
    for kind, side in (("hr", 64), ("lr", 32)):
        with av.open(folder / f"a.{kind}.mkv", "w") as box:
            stream = box.add_stream("ffv1", rate=25)
            stream.width, stream.height, stream.pix_fmt = side, side, "bgr0"
            for _ in range(3):
                rgb = generator.integers(0, 256, (side, side, 3), dtype=np.uint8)
                box.mux(stream.encode(av.VideoFrame.from_ndarray(rgb, format="rgb24")))
            box.mux(stream.encode(None))


def test_quality_scores_pairs(script, tiny_weights, tmp_path):
    write_pair(tmp_path)
    printed, data = script("quality", tmp_path, "--model", tiny_weights, "--fixes")
    assert "| bicubic |" in printed
    assert len(data["mean"]) == 4
    toy = data["mean"][str(tiny_weights)]
    assert toy == pytest.approx(data["mean"]["bicubic"], rel=1e-3)  # an untrained toy is bicubic


def test_memory_compares_two_lengths(script, tiny_weights):
    words = ["--short", 0.4, "--long", 0.8, "--scale", 1]
    printed, data = script("memory", "--model", tiny_weights, *words)
    assert [data[name]["frames"] for name in ("short", "long")] == [10, 20]
    assert "growth" in printed


def test_paper_step_trains_and_reports(script):
    _, data = script("paper_step", "--toy", "--device", "cpu", "--steps", 12)
    assert sum(data["total"][-3:]) < sum(data["total"][:3])
    assert data["seconds_per_step"] > 0 and data["trained"] < data["parameters"]


def test_nvidia_tells_what_the_card_does(script, monkeypatch):
    """Without a card: software, which equals itself."""
    with pytest.raises(SystemExit) as end:
        script("nvidia", "--frames", 6, "--size", "128x96")
    assert not end.value.code


def test_end_to_end_measures_every_stage_and_several_workers(script, tiny_weights):
    words = ["--model", tiny_weights, "--size", "32x32", "--frames", 24]
    _, data = script("end_to_end", *words, "--device", "cpu")
    stages = data["alone"]
    slowest = min(stages[name] for name in ("reading", "network", "writing"))
    assert stages["of_slowest"] == pytest.approx(stages["together"] / slowest)
    _, data = script("end_to_end", *words, "--devices", "cpu", "--workers", 2)
    assert data["several"]["speed_up"] > 0


def test_memory_of_windows_is_measured_case_by_case(script):
    printed, rows = script("fit_memory", "--device", "cpu", "--toy", "--only", "tiny")
    assert len(rows) == len(printed.splitlines()) == 15
    assert all(row["model"] == "tiny" and row["seconds"] > 0 for row in rows)
    assert {row["tile"] for row in rows} == {None, 128, 512}


def test_routing_runs_train_measure_and_continue(script, tiny_weights, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (80, 96, 3), dtype=np.uint8)
    (tmp_path / "photo").mkdir()
    (tmp_path / "photo" / "1.png").write_bytes(encode_picture(pixels))
    write_pair(tmp_path)
    results = tmp_path / "runs" / "results.jsonl"
    results.parent.mkdir()
    done = {"name": "all global", "seed": 0, "window": [3, 5, 5], "heads": "gg", "cost": 1.0}
    results.write_text(json.dumps(done) + "\n")
    words = ["--start", tiny_weights, "--data", tmp_path / "photo", "--pairs", tmp_path]
    words += ["--out", results.parent, "--toy", "--devices", "cpu", "--workers", 1]
    words += ["--steps", 2, "--only", "argmin, seed 0", "all global, seed 0"]

    same, made = script("routing_runs", *words)[1]["runs"]
    assert same.items() >= done.items() and same.keys() - done.keys() == {"transformer_ms"}
    assert (made["name"], made["seed"]) == ("argmin", 0) and made["transformer_ms"] > 0
    assert made["psnr"] > 5 and made["steps_per_second"] > 0 and 0 < made["cost"] <= 1
    assert [json.loads(line) for line in results.read_text().splitlines()] == [same, made]
