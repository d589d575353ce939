"""From frames to frames: plan, windows, threads, one run."""
