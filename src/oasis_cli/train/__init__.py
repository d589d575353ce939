"""Fit the network: data, degradations, losses and one readable loop."""
