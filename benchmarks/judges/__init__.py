"""The judges of `judge.py`: one file each, and `cases.py`, which they share."""
