"""What a network and its windows need of a device's memory, before anything is loaded.

A window is at its largest in one of three places: in the fusion, if the network has one, in the
transformer, or in the decoder, which sees a few frames of the picture or of a tile at a time. Each
has a term for the clip, which is there all the time, and terms for what it works on. The constants
are fitted, on CUDA to what PyTorch's allocator had in use (`benchmarks/fit_memory.py`: 83 windows
of four networks on an H200, 360p to 2160p, 1 to 33 frames), on a CPU to oasis-small at 720p.
"""

from dataclasses import dataclass
from functools import cache

from oasis_cli.model.decoders.fast import CPU_FRAMES, DECODE_FRAMES
from oasis_cli.model.decoders.kinds import AnyConfig
from oasis_cli.model.decoders.tiny import TinyConfig
from oasis_cli.model.decoders.wan import CHUNK, WanVAEConfig
from oasis_cli.model.fusion import AT_ONCE, CPU_AT_ONCE, FusionConfig
from oasis_cli.model.inference import wide_linears
from oasis_cli.model.latent import ALIGN, FRAMES, PIXELS
from oasis_cli.model.oasis import Oasis, OasisConfig
from oasis_cli.model.tiling import spans
from oasis_cli.pipeline.windows import WindowOptions
from oasis_cli.runtime.devices import PRECISIONS, capabilities

SPARE = 1.2
"""Times the fit, on CUDA: it is up to a seventh too low, and the allocator has gaps."""

QUEUE_FRAMES = 16
"""Frames that wait between the stages, a byte a value, in the machine's memory."""

CPU_TRANSFORMER = 48 << 20
"""Bytes for the tiles that a CPU takes through a tiled transformer at a time."""


@dataclass(frozen=True, slots=True)
class _Costs:
    """Numbers alive for each number of something."""

    refined: float
    """Clip-sized tensors during the transformer's phase: values for each pixel of the output,
    without padding."""
    decoded: float
    """The same during the decoder's phase."""
    tiled: float
    """More of these when the decoder works in tiles."""
    latents: float = 3.2
    """For each latent value in the transformer's tiles."""
    tokens: float = 8.2
    """For each channel of the tokens that go through the transformer at a time."""
    hidden: float = 0.7
    """For each channel inside its feed-forward part."""
    features: float = 5.1
    """For each channel of the decoder, of each frame that it works on."""


_CUDA = _Costs(refined=8.5, decoded=13.6, tiled=4.6)
_WAN = _Costs(refined=8.5, decoded=21.7, tiled=0.0)
_CPU = _Costs(refined=7.5, decoded=7.5, tiled=0.0, features=10.0)

WAN_FEATURES, WAN_FRAMES = 26.8, 2.9
"""Numbers for each channel of Wan2.1's decoder: in all, and for each frame."""

TINY_FEATURES, CPU_TINY_FEATURES = 2.6, 3.0
"""Numbers for each channel of the tiny decoder at full size, of each of the four frames that it
makes at a time, also where a clip has one."""

FUSED, FUSION_FRAME = 6.5, 30.0
"""Numbers for each pixel of a window during the fusion beyond `refined`, and for each pixel of the
frames that it corrects at a time, with 48 channels. Measured on a CPU alone (oasis-tiny with one,
320x180 to 1280x720: 410 MB)."""

FP8_TOKENS = 1.29
"""Times `tokens` with 8-bit linear layers, whose inputs are rounded into tensors of their own."""

FP32_TOKENS = 1.6
"""The same in 32 bits, where there is no kernel for windows: they are gathered."""


_shapes = cache(Oasis.without_data)


@cache
def weights_bytes(config: OasisConfig, precision: str) -> int:
    """Bytes of a loaded network."""
    network = _shapes(config)
    total = sum(p.numel() for p in network.parameters()) * PRECISIONS[precision].itemsize
    if precision == "fp8":  # of two bytes, one is left
        total -= sum(linear.weight.numel() for _, _, linear in wide_linears(network.dit))
    return total


def margin(config: OasisConfig) -> int:
    """Pixels that a decoder sees beyond a tile and drops, both sides together."""
    return 2 * PIXELS * int(_shapes(config).decoder.halo)


def window_bytes(
    config: OasisConfig,
    device: str,
    precision: str,
    size: tuple[int, int],
    windows: WindowOptions,
    tile: int | None,
) -> int:
    """Bytes beside the weights for a window and what of others is alive with it, about.

    device: its kind, such as "cuda". size: (width, height) of the output.
    """
    width, height = size
    pixels, cuda = width * height, not capabilities(device).host
    # A CPU's 16 bits save a tenth, no more.
    bytes_each = PRECISIONS[precision].itemsize if cuda else 4
    costs = _CPU if not cuda else _WAN if isinstance(config.decoder, WanVAEConfig) else _CUDA
    frames = windows.frames if cuda else windows.frames + windows.overlap
    clip = frames * pixels
    padded = 3.0 * clip if cuda and (width % ALIGN or height % ALIGN) else 0.0
    refine = costs.refined * clip + padded
    if cuda or not config.dit_tile:
        refine += _transformer(config, costs, precision, size, windows.frames, tile)
    seen = _seen(config, size, tile)
    decode = costs.decoded * clip + padded + _decoder(config.decoder, costs, cuda, seen, frames)
    fuse = costs.refined * clip + padded + _fusion(config.fusion, cuda, pixels, frames)
    if tile:
        decode += costs.tiled * clip if cuda else 3.0 * frames * seen
    if not cuda:
        most = bytes_each * max(fuse, refine, decode)
        return round(most) + 3 * QUEUE_FRAMES * pixels + (CPU_TRANSFORMER if config.dit_tile else 0)
    # Of the window before, the overlap waits in 16 bits, and a frame is on its way as float32.
    waiting = 3 * pixels * (2 * windows.overlap + 4)
    return round(SPARE * bytes_each * max(fuse, refine, decode)) + waiting


def _transformer(
    config: OasisConfig,
    costs: _Costs,
    precision: str,
    size: tuple[int, int],
    frames: int,
    tile: int | None,
) -> float:
    """Numbers in the transformer."""
    dit, own = config.dit, config.dit_tile
    rows, cols = (-(-side // ALIGN) * ALIGN // PIXELS for side in (size[1], size[0]))
    times = (frames + 2) // FRAMES + 1
    tiles = at_once = 1
    if own:
        down, across = (spans(side, own, config.dit_overlap) for side in (rows, cols))
        tiles = len(down) * len(across)
        rows, cols = down[0][1] - down[0][0], across[0][1] - across[0][0]
        at_once = min(tiles, config.tiles_at_once(tile)) if tile else tiles
    positions = times * rows * cols
    tokens = at_once * positions / dit.patch**2
    factor = {"fp8": FP8_TOKENS, "fp32": FP32_TOKENS}.get(precision, 1.0)
    needed = costs.tokens * factor * tokens * dit.width
    needed += costs.latents * tiles * positions * dit.latent_channels
    if dit.ffn_kernel == 1:
        fed = None if own else config.fed_at_once(tile, times)
        needed += costs.hidden * min(tokens, fed or tokens) * dit.ffn
    return needed


def _fusion(config: FusionConfig | None, cuda: bool, pixels: int, frames: int) -> float:
    """Numbers in the fusion."""
    if config is None:
        return 0.0
    at_once = min(frames, AT_ONCE) if cuda else CPU_AT_ONCE
    return (FUSED * frames + FUSION_FRAME * at_once) * pixels * config.width / 48


def _seen(config: OasisConfig, size: tuple[int, int], tile: int | None) -> int:
    """Pixels that the decoder works on at a time, with what it sees around a tile and drops."""
    if tile is None:
        return size[0] * size[1]
    side = tile + margin(config)
    return min(size[0], side) * min(size[1], side)


def _decoder(config: AnyConfig, costs: _Costs, cuda: bool, seen: int, frames: int) -> float:
    """Numbers in the decoder."""
    if isinstance(config, WanVAEConfig):
        return (WAN_FEATURES + WAN_FRAMES * min(frames, FRAMES * CHUNK)) * seen * config.width
    if isinstance(config, TinyConfig):
        channels = sum(width / 4 ** (3 - n) for n, width in enumerate(config.widths))
        return (TINY_FEATURES if cuda else CPU_TINY_FEATURES) * seen * channels * FRAMES
    channels = config.low_width / 64 + config.high_width / 16
    at_once = min(frames, DECODE_FRAMES) if cuda else CPU_FRAMES
    return costs.features * seen * channels * at_once
