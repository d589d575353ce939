"""Writing: plan, encoders, other streams, segments."""
