"""Long work: segments, processes, machines, batches."""
