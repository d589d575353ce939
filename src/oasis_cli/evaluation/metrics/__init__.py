"""How close two clips are: pixels, flow (steadiness) and perceptual features."""
