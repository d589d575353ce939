"""The whole network; read this first.

    low clip -> bicubic to the target size (-> other frames, moved onto each, correct it: fusion)
    clip -> unshuffle + linear map -> z_L
    z_H = z_L - sigma * DiT(z_L)             one step at one fixed time
    high clip = clip + decoder(z_H, clip)

OASIS, arXiv 2509.23980. Letters: B batch   F frames   h, w low-quality pixels   H, W target pixels
"""

from collections import deque
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from oasis_cli.errors import WeightsError
from oasis_cli.model.attention import reorder_heads
from oasis_cli.model.decoders import kinds as decoders
from oasis_cli.model.decoders.fast import DecoderConfig, FastDecoder
from oasis_cli.model.dit import DiT, DiTConfig
from oasis_cli.model.fusion import Fusion, FusionConfig
from oasis_cli.model.heads.routing import HeadTable
from oasis_cli.model.latent import PIXELS, ToLatent, bicubic_upsample, pad
from oasis_cli.model.plain import from_plain
from oasis_cli.model.tiling import blended, exact_tiles
from oasis_cli.runtime.devices import in_pieces

CONFIG_VERSION = 1

CPU_POSITIONS = 6144
"""Latent positions of the transformer's tiles that go through a CPU at once, about: what fits its
caches. All at once take a third longer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OasisConfig:
    """Everything that shapes the network; stored in the checkpoint."""

    dit: DiTConfig = field(default_factory=DiTConfig)
    decoder: decoders.AnyConfig = field(default_factory=DecoderConfig)
    fusion: FusionConfig | None = None
    """What lets a frame read others of its clip before latents are made; None for nothing."""
    sigma: float = 0.4
    """How far the one step goes; the time it stands for is 1000 * sigma."""
    dit_tile: int = 64
    """Largest side, in latent positions, that the transformer sees at once; 0 for no limit."""
    dit_overlap: int = 4
    """Latent positions that neighbouring transformer tiles share and cross-fade."""

    def __post_init__(self) -> None:
        if self.dit.latent_channels != self.decoder.latent_channels:
            raise ValueError(
                f"the transformer makes {self.dit.latent_channels} latent channels, "
                f"the decoder reads {self.decoder.latent_channels}"
            )
        if self.dit_tile and self.dit_tile <= self.dit_overlap:
            raise ValueError(f"tiles of {self.dit_tile} cannot overlap by {self.dit_overlap}")

    def tiles_at_once(self, tile: int) -> int:
        """Tiles of its own that the transformer takes together when work goes by `tile` pixels."""
        return max(1, tile // (self.dit_tile * PIXELS)) ** 2

    def fed_at_once(self, tile: int | None, times: int) -> int | None:
        """Tokens of `times` latent frames that a transformer without tiles feeds forward together:
        what lies in a tile, or all."""
        side = tile // (self.dit.patch * PIXELS) if tile else 0
        return times * side**2 or None

    def to_dict(self) -> dict[str, Any]:
        """Plain data for the checkpoint's metadata."""
        data = asdict(self) | {"decoder": decoders.to_dict(self.decoder)}
        if self.fusion is None:  # programs that know nothing of it read the others
            del data["fusion"]
        return {"version": CONFIG_VERSION, **data}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "OasisConfig":
        """The inverse of `to_dict`. Raises WeightsError when the data is not of this version."""
        version = data.get("version") if isinstance(data, dict) else None
        if version != CONFIG_VERSION:
            raise WeightsError(
                f"the checkpoint has config version {version}, this program reads {CONFIG_VERSION}",
                hint="update oasis, or use a checkpoint made for this version",
            )
        try:
            dit = from_plain(DiTConfig, data["dit"])
            decoder = decoders.from_dict(data["decoder"])
            fusion = from_plain(FusionConfig, data["fusion"]) if "fusion" in data else None
            parts = ("version", "dit", "decoder", "fusion")
            rest = {k: x for k, x in data.items() if k not in parts}
            return replace(from_plain(cls, rest), dit=dit, decoder=decoder, fusion=fusion)
        except (KeyError, TypeError, ValueError) as error:
            raise WeightsError(f"the checkpoint's config cannot be read: {error}") from error


SMALL = OasisConfig(
    dit=DiTConfig(
        width=256,
        layers=8,
        heads=4,
        ffn=256,
        ffn_kernel=3,
        latent_channels=96,
        patch=1,
        gate=1.0,
        zero_head=True,
    ),
    decoder=DecoderConfig(latent_channels=96, low_blocks=8, high_blocks=6, low_frames=0),
    dit_tile=32,
)
"""oasis-small: a laptop's CPU runs it. Its decoder gets the clip only at 1/4 size. A decoder that
saw the clip at 1/8 size, too, learned to ignore the transformer."""

BASE = OasisConfig(
    dit=replace(SMALL.dit, width=384, layers=12, heads=6, ffn=384, latent_channels=128),
    decoder=DecoderConfig(
        latent_channels=128, low_width=192, low_blocks=8, high_width=96, high_blocks=6, low_frames=0
    ),
    dit_tile=64,
)
"""oasis-base: three times oasis-small's parameters, and a context of 512 pixels, for GPUs."""

TINY = OasisConfig(
    dit=replace(SMALL.dit, width=128, layers=6, ffn=128),
    decoder=DecoderConfig(
        latent_channels=96, low_width=96, low_blocks=6, high_width=48, high_blocks=4, low_frames=0
    ),
    dit_tile=32,
)
"""oasis-tiny: a quarter of oasis-small's parameters and 0.4 of its time on a CPU."""

PAPER = OasisConfig(
    dit=DiTConfig(
        width=1536, layers=30, heads=12, ffn=8960, latent_channels=16, context_rows=512, gate=0.0
    ),
    decoder=DecoderConfig(latent_channels=16, low_width=256, high_width=128),
    dit_tile=0,
)
"""oasis-1.4b: the shapes of Wan2.1-T2V-1.3B."""


class Oasis(nn.Module):
    """A low-quality clip in, a high-quality clip of any larger size out."""

    def __init__(self, config: OasisConfig) -> None:
        super().__init__()
        self.config = config
        self.fusion = Fusion(config.fusion) if config.fusion is not None else None
        self.to_latent = ToLatent(config.dit.latent_channels)
        self.dit = DiT(config.dit)
        self.decoder = decoders.build(config.decoder)
        self.notes: deque[str] = deque()
        """Sentences for the user. Whoever shows one takes it out."""

    def forward(self, low: Tensor, size: tuple[int, int], tile: int | None = None) -> Tensor:
        """Enlarge a clip.

        low: (B, F, 3, h, w) in [-1, 1], any F >= 1. size: (H, W), 16 or more. tile: work on this
        many pixels of a side at a time to save memory; the result is the same. Returns (B, F, 3, H,
        W) float32, not clamped.
        """
        frames, (height, width) = low.shape[1], size
        clip = self.fused(pad(bicubic_upsample(low, size)))
        latent = self.refine(self.to_latent(clip), tile)
        decoder = self.decoder
        may_add = isinstance(decoder, FastDecoder) and decoder.may_add and tile is None
        if add := may_add and not torch.is_grad_enabled():
            clip = clip.clone() if clip is low else clip
        high = self.decode(latent, clip, tile, add=add)
        if not add:
            high = high.add_(clip)
        return high[:, :frames, :, :height, :width]

    def fused(self, clip: Tensor) -> Tensor:
        """A padded clip (B, 4T-3, 3, H, W), each frame with what others of it have; the clip itself
        if the network has no fusion."""
        return clip if self.fusion is None else self.fusion(clip)

    def refine(self, latent: Tensor, tile: int | None = None) -> Tensor:
        """The one diffusion step: z_H = z_L - sigma * v(z_L). latent: (B, C, T, H/8, W/8).

        tile: as for `forward`; a transformer without tiles of its own needs the whole picture, and
        only its feed-forward part takes as many tokens at a time as lie in a tile.
        """
        own = self.config.dit_tile
        if own:
            most = None
            if in_pieces(latent.device):
                most = max(1, CPU_POSITIONS // (latent.shape[0] * latent.shape[2] * own * own))
            elif tile:
                most = self.config.tiles_at_once(tile)
            velocity = blended(self.dit, latent, own, self.config.dit_overlap, most)
        else:
            velocity = self.dit(latent, self.config.fed_at_once(tile, latent.shape[2]))
        return latent - self.config.sigma * velocity

    def decode(
        self, latent: Tensor, clip: Tensor, tile: int | None = None, *, add: bool = False
    ) -> Tensor:
        """The correction to the bicubic clip, streamed in time and, if asked, tiled in space.

        latent: (B, C, T, H/8, W/8); clip: (B, 4T-3, 3, H, W). Returns (B, 4T-3, 3, H, W). add: the
        clip itself, corrected in place, where FastDecoder `may_add` and there are no tiles.
        """
        features = self.decoder.frame_features(latent)
        if add:
            assert isinstance(self.decoder, FastDecoder) and tile is None
            return self.decoder.add_to(features, clip)
        if tile is None:
            return self.decoder.correction(features, clip)
        out = clip.new_empty(clip.shape)
        rows, cols = latent.shape[-2:]
        side = max(1, tile // PIXELS)
        for outer, inner, place in exact_tiles(rows, cols, side, self.decoder.halo):
            seen_rows, seen_cols = (slice(s.start * PIXELS, s.stop * PIXELS) for s in outer)
            part = self.decoder.correction(
                features[..., outer[0], outer[1]], clip[..., seen_rows, seen_cols]
            )
            out[..., place[0], place[1]] = part[..., inner[0], inner[1]]
        return out

    def checkpoint_state(self) -> dict[str, Tensor]:
        """The state with heads in checkpoint order, whatever the head table."""
        state = dict(self.state_dict())
        for number, attention in enumerate(self.dit.attentions):
            prefix = f"dit.blocks.{number}.attention."
            part = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
            plain = reorder_heads(part, attention.groups, attention.heads, undo=True)
            state |= {prefix + k: v for k, v in plain.items()}
        return state

    @classmethod
    def without_data(cls, config: OasisConfig) -> "Oasis":
        """A network of shapes alone, on the "meta" device."""
        with torch.device("meta"):
            return cls(config)

    @classmethod
    def from_checkpoint(
        cls, config: OasisConfig, state: dict[str, Tensor], table: HeadTable
    ) -> "Oasis":
        """Build the network around loaded tensors (heads in checkpoint order) and route it."""
        model = cls.without_data(config)
        model.load_state_dict(state, strict=True, assign=True)
        model.dit.route(table)
        return model
