"""INPUT and OUTPUT: files <-> frames. PyAV is used here and nowhere else."""
