"""What training clips are and how often each kind of damage occurs."""

from dataclasses import dataclass

UP = 1.1
"""Largest enlargement inside the degradation: what the canvas has room for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataConfig:
    """What batches are made of."""

    side: int = 288
    """Pixels of a pooled clip; a multiple of 12 times 4 divides by every scale."""
    crop: int = 256
    """Pixels of a training clip."""
    frames: int = 13
    batch: int = 24
    chunk: int = 32
    """Clips made at once."""
    pool: int = 2048
    """Clips kept; each is used about batch * every / chunk times."""
    every: int = 8
    """Steps between two ticks."""
    scales: tuple[tuple[int, float], ...] = ((4, 0.75), (3, 0.08), (2, 0.12), (1, 0.05))
    """How much larger the target is, and how often."""
    codec: tuple[float, float] = (0.75, 0.9)
    """Share of clips that a codec damages in the first and the second degradation."""
    bits: tuple[float, float] = (2e3, 1e5)
    """Bits of a frame, log-uniform, whatever its size at that point."""
    light: float = 0.5
    """Share of clips that are damaged lightly: each step of their degradation is left out with a
    chance of 1 - `kept`. The whole pipeline damages more than most people's clips are."""
    kept: float = 0.35
    sharpened: float = 0.0
    """How far the edges of the clean clips are hardened (`degrade.harder`), after their damage: a
    network's pictures are softer than what it learns from."""
    interlaced: float = 0.03
    film: float = 0.03
    halo: float = 0.1
    """Share of clips with an unsharp mask; below, of other rare damage (`Rare`)."""
    night: float = 0.05
    deinterlaced: float = 0.05
    tape: float = 0.04
    few_colours: float = 0.06
    starved: float = 0.06
    starved_bits: tuple[float, float] = (4e2, 3e3)
    """Bits of a frame for clips that are compressed to next to nothing."""
    uneven: float = 0.2
    """Share of clips whose damage comes and goes: nearly clean frames among starved ones, blur in
    waves, a slice that shows an earlier frame. What one frame lost, another one has."""
    often: tuple[tuple[str, float], ...] = ()
    """Patterns of file names, and how often such a file is filmed, beside 1 for the others."""
    cuts: float = 0.05
    """Share of clips that change to another clip in the middle. They teach the network not to mix
    colours across a scene cut that was missed, or when something sweeps past the camera."""

    @property
    def canvas(self) -> int:
        return int(self.side * UP) // 16 * 16
