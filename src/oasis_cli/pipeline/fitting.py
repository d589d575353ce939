"""What a run does where memory is short: tiles, 8-bit weights, another decoder, shorter windows."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import product

import torch

from oasis_cli.media.output.encoders import KINDS, usual_threads
from oasis_cli.media.output.plan import OutputPlan
from oasis_cli.model.oasis import OasisConfig
from oasis_cli.pipeline.memory import margin, weights_bytes, window_bytes
from oasis_cli.pipeline.window_runner import smaller_tiles
from oasis_cli.pipeline.windows import SHORT, WindowOptions
from oasis_cli.runtime.devices import supports_fp8

SHORTER = (13, 9, 5)
"""Windows to fall back on, in frames: fewer than 5 would flicker."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The settings of a run that may depend on the free memory."""

    windows: WindowOptions
    tile: int | None
    precision: str
    decoder: str


@dataclass(frozen=True, slots=True)
class Needs:
    """What a run's choices need of a device's memory."""

    known: Mapping[str, OasisConfig]
    """The network with each decoder."""
    device: torch.device
    size: tuple[int, int]
    """(width, height) of the output."""

    def window(self, choice: Choice) -> int:
        """Bytes beside the weights, about."""
        config = self.known[choice.decoder]
        given = choice.precision, self.size, choice.windows, choice.tile
        return window_bytes(config, self.device.type, *given)

    def all(self, choice: Choice) -> int:
        """Bytes with the weights."""
        return self.window(choice) + weights_bytes(self.known[choice.decoder], choice.precision)


def fit(
    needs: Needs,
    usual: Choice,
    varies: Collection[str],
    free: int,
    beside: int = 0,
    share: int = 1,
) -> tuple[Choice, str]:
    """What fits into `free` bytes, or needs least, and what to say about it.

    varies: fields of the usual choice that nobody asked for. beside: bytes that others will take of
    the same memory. share: how many such runs there will be.

    The order of what is tried:

    1. tiles, the largest that fit: they do not change the picture,
    2. 8-bit linear layers, where the card has them: they halve the weights,
    3. another decoder that the checkpoint holds,
    4. windows of 13 and 9 frames, which may flicker,
    5. tiles below `least_tile`, which are mostly halo: they take ten times as long,
    6. windows of 5 frames.
    """
    free //= share
    needed = needs.all(usual) + beside
    if needed <= free:
        return usual, ""
    short = f"about {needed >> 20} MiB are needed and {free >> 20} MiB are free"
    if share > 1:
        short += f" for each of {share} runs"
    choices = _choices(needs, usual, varies)
    fitting = next((choice for choice in choices if needs.all(choice) + beside <= free), None)
    least = fitting or min(choices, key=needs.all)
    steps = _steps(usual, least)
    note = f"{short}: working on {steps}" if steps else short
    if not fitting:
        options = {"windows": "--window", "tile": "--tile"}
        given = ", ".join(option for name, option in options.items() if name not in varies)
        note += "; even that may be too much" if steps else ""
        note += f": choose a smaller {f'{given} or ' if given else ''}--scale"
    return least, note


def _choices(needs: Needs, usual: Choice, varies: Collection[str]) -> list[Choice]:
    """All there is to choose from, the best first."""
    tiles, windows = [usual.tile], [usual.windows]
    precisions, kinds = [usual.precision], [usual.decoder]
    if "tile" in varies:
        tiles += smaller_tiles(needs.size)
    if "precision" in varies and supports_fp8(needs.device):
        precisions.append("fp8")
    if "decoder" in varies:
        kinds += [kind for kind in needs.known if kind != usual.decoder]
    if "windows" in varies:
        windows += [usual.windows.of(n) for n in SHORTER if n < usual.windows.frames]
    every = [
        Choice(windows=some, decoder=kind, precision=precision, tile=tile)
        for some, kind, precision, tile in product(windows, kinds, precisions, tiles)
    ]

    def order(choice: Choice) -> tuple[bool, bool]:
        short = choice.windows.frames < min(SHORT, usual.windows.frames)
        least = least_tile(needs.known[choice.decoder])
        return short, choice.tile is not None and choice.tile < least

    return sorted(every, key=order)


def least_tile(config: OasisConfig) -> int:
    """Pixels of a side below which a decoder sees more than four times what it keeps of a tile."""
    return margin(config)


def encoder_memory(output: OutputPlan, size: tuple[int, int]) -> int:
    """Bytes that encoding takes, about."""
    kind = KINDS[output.codec]
    return (kind.memory + kind.thread_memory * usual_threads()) * size[0] * size[1]


def _steps(usual: Choice, smaller: Choice) -> str:
    """Which settings are smaller, and how that changes the picture."""
    frames, usual_frames = smaller.windows.frames, usual.windows.frames
    parts = [f"windows of {frames} frames"] if frames != usual_frames else []
    parts += [f"tiles of {smaller.tile} pixels"] if smaller.tile != usual.tile else []
    parts += [f"{smaller.precision} weights"] if smaller.precision != usual.precision else []
    parts += [f"the {smaller.decoder} decoder"] if smaller.decoder != usual.decoder else []
    if not parts:
        return ""
    if frames != usual_frames:
        effect = f"which may flicker more; --window {usual_frames} insists"
    elif smaller.decoder != usual.decoder:
        effect = f"which draws details otherwise; --decoder {usual.decoder} insists"
    elif smaller.precision != usual.precision:
        effect = f"which rounds more; --precision {usual.precision} insists"
    else:
        effect = "the picture is the same"
    return f"{' and '.join(parts)}, {effect}"
