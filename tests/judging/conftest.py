"""The judges of `benchmarks/judge.py`, on clips and lines of which the answer is known."""

import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.append(str(BENCHMARKS))


@pytest.fixture
def judge(monkeypatch, capsys, tmp_path):
    """judge("--only", "flicker", ...) -> (what it printed, its JSON)."""
    import json

    import judge as script

    def run(*words):
        out = tmp_path / "out.json"
        monkeypatch.setattr(sys, "argv", ["judge", *map(str, words), "--json", str(out)])
        script.main()
        return capsys.readouterr().out, json.loads(out.read_text()) if out.exists() else None

    return run
