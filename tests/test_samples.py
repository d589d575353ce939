"""What the scripts in samples/ make."""

import importlib.util
from pathlib import Path

import numpy as np

SCRIPT = Path(__file__).parents[1] / "samples" / "make_pages.py"


def test_pages_are_full_of_edges_and_the_same_for_the_same_seed():
    spec = importlib.util.spec_from_file_location("make_pages", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    faces = script.fonts()
    assert len(faces) > 10
    one, same, other = (
        np.asarray(script.page(np.random.default_rng(seed), faces), dtype=float)
        for seed in (1, 1, 2)
    )
    assert np.array_equal(one, same) and not np.array_equal(one, other)
    edges = np.abs(np.diff(one.mean(-1), axis=1)) > 30
    assert one.shape == (768, 1024, 3) and edges.mean() > 0.01
