"""The decoders a network may end with; the config in a checkpoint says which.

They share one contract. `frame_features(latent)` is what has to see whole frames, at the latents'
size. `decoder(features, clip, state)` streams: it returns the correction to the next frames of the
bicubic clip, and a state. `correction(features, clip)` does that for a whole clip. Nothing farther
than `halo` latent positions reaches a frame, so features and clip can be cut into exact tiles.
"""

from dataclasses import asdict
from typing import Any

from oasis_cli.model.decoders.fast import DecoderConfig, FastDecoder
from oasis_cli.model.decoders.tiny import TinyConfig, TinyDecoder
from oasis_cli.model.decoders.wan import WanDecoder, WanVAEConfig
from oasis_cli.model.plain import from_plain

AnyConfig = DecoderConfig | TinyConfig | WanVAEConfig
AnyDecoder = FastDecoder | TinyDecoder | WanDecoder

KINDS: dict[str, type[AnyConfig]] = {
    "fast": DecoderConfig,
    "tiny": TinyConfig,
    "wan": WanVAEConfig,
}


def build(config: AnyConfig) -> AnyDecoder:
    """The decoder of a config."""
    if isinstance(config, WanVAEConfig):
        return WanDecoder(config)
    if isinstance(config, TinyConfig):
        return TinyDecoder(config)
    return FastDecoder(config)


def decoder_kind(config: AnyConfig) -> str:
    """Name of the decoder that a config is for.

    >>> decoder_kind(WanVAEConfig())
    'wan'
    """
    return next(kind for kind, made in KINDS.items() if type(config) is made)


def to_dict(config: AnyConfig) -> dict[str, Any]:
    """Plain data: the fields and the kind.

    >>> to_dict(WanVAEConfig(width=8))
    {'kind': 'wan', 'width': 8, 'blocks': 2}
    """
    return {"kind": decoder_kind(config), **asdict(config)}


def from_dict(data: dict[str, Any]) -> AnyConfig:
    """The inverse of `to_dict`. The first checkpoints name no kind: theirs is FastDecoder.

    Raises TypeError or ValueError when the data does not fit.
    """
    if not isinstance(data, dict):
        raise TypeError("the decoder is not an object")
    kind = data.get("kind", "fast")
    if not isinstance(kind, str) or kind not in KINDS:
        raise ValueError(f"no decoder is called {str(kind)[:40]!r}; known: {', '.join(KINDS)}")
    return from_plain(KINDS[kind], {key: x for key, x in data.items() if key != "kind"})
