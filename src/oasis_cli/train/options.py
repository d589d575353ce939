"""How long a run is and where it happens; what it learns is in `presets.py`."""

from dataclasses import dataclass
from pathlib import Path

from oasis_cli.errors import UsageError

STATE = "state.pt"
"""All that a resumed run needs; replaced as a whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """How long and where; nothing here changes what is learned from a step."""

    data: Path
    out: Path
    max_minutes: float | None = None
    max_steps: int | None = None
    resume: bool = False
    start_from: Path | None = None
    """Checkpoint whose weights to start from; its head table is kept and stage 0 skipped."""
    perceptual: Path | None = None
    """SqueezeNet's features with LPIPS heads."""
    vgg: Path | None = None
    """VGG-16's features."""
    teacher: Path | None = None
    """A checkpoint, usually of a larger network, whose pictures the `teacher` loss compares."""
    encoder: Path | None = None
    """Wan2.1's encoder, for a run behind its autoencoder."""
    device: str = "cpu"
    workers: int = 2
    """Codec processes."""
    compile: bool = False
    log_every: int = 50
    save_minutes: float | None = None
    """Between two saves; None for the configuration's own."""

    def __post_init__(self) -> None:
        if self.max_minutes is None and self.max_steps is None:
            raise UsageError(
                "a run needs an end",
                hint="pass --max-minutes or --max-steps, whichever comes first",
            )
        if not self.resume and (self.out / STATE).exists():
            raise UsageError(
                f"{self.out} holds a run", hint="pass --resume, or choose another --out"
            )
