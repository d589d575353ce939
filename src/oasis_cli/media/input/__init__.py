"""Reading: probe, packets, frames."""
