"""Tensors of Wan2.1's files to tensors of our network, checked one by one.

The time embedding is worked out at the one time that the network stands for, and the text embedding
for an empty prompt; neither is part of the network.

Letters: M width of the transformer
"""

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from oasis_cli.checkpoints.wan.names import (
    OWN_AUTOENCODER,
    OWN_TRANSFORMER,
    TEXT_WIDTH,
    TIME_WAVES,
    TRANSFORMER,
    Shapes,
    autoencoder_shapes,
    rename,
    tiny_shapes,
    transformer_shapes,
)
from oasis_cli.errors import WeightsError
from oasis_cli.model.decoders.tiny import TinyConfig
from oasis_cli.model.decoders.wan import CHANNELS, MEAN, STD, WanVAE, WanVAEConfig
from oasis_cli.model.dit import DiTConfig
from oasis_cli.model.oasis import PAPER

State = dict[str, Tensor]

SHOWN = 12
"""Names of each kind that a refusal lists."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """The size of a transformer; the defaults are Wan2.1-T2V-1.3B's."""

    width: int = PAPER.dit.width
    layers: int = PAPER.dit.layers
    heads: int = PAPER.dit.heads
    ffn: int = PAPER.dit.ffn
    text: int = TEXT_WIDTH
    eps: float = PAPER.dit.eps

    @classmethod
    def of(cls, config: dict[str, Any]) -> "Size":
        """What a config.json of either layout says; without one, the published size."""
        if not config:
            return cls()
        try:
            if "num_attention_heads" in config:
                heads = int(config["num_attention_heads"])
                width = heads * int(config["attention_head_dim"])
            else:
                width, heads = int(config["dim"]), int(config["num_heads"])
            size = cls(
                width=width,
                layers=int(config["num_layers"]),
                heads=heads,
                ffn=int(config["ffn_dim"]),
                text=int(config.get("text_dim", TEXT_WIDTH)),
                eps=float(config.get("eps", PAPER.dit.eps)),
            )
            _ = size.config  # checks that the heads fit
        except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
            raise WeightsError(
                f"the config.json beside the transformer does not say its size ({error!r})"
            ) from error
        return size

    @property
    def config(self) -> DiTConfig:
        """The configuration of our transformer of this size."""
        return replace(
            PAPER.dit,
            width=self.width,
            layers=self.layers,
            heads=self.heads,
            ffn=self.ffn,
            eps=self.eps,
        )


def checked(
    tensors: State, known: Shapes, translate: Callable[[str], str], what: str
) -> tuple[State, str]:
    """The tensors by their original names, in float32, and the layout they were in.

    translate: from the names of diffusers to the original ones. Raises WeightsError that lists the
    names that are unknown, missing or of another shape, or numbers that are not finite.
    """
    theirs = sum(translate(name) in known for name in tensors)
    original = sum(name in known for name in tensors) >= theirs
    found = {(name if original else translate(name)): name for name in tensors}
    common = found.keys() & known.keys()
    wrong = [
        f"{found[name]} is {tuple(tensors[found[name]].shape)} instead of {known[name]}"
        for name in common
        if tensors[found[name]].shape != known[name]
    ]
    unknown = [name for name in tensors if (name if original else translate(name)) not in known]
    faults = [
        f"{len(names)} {kind} ({_listed(names)})"
        for kind, names in (
            ("unknown", unknown),
            ("missing", known.keys() - found.keys()),
            ("of another shape", wrong),
        )
        if names
    ]
    if faults:
        raise WeightsError(
            f"{what} is not what was expected: besides {len(common) - len(wrong)} of {len(known)} "
            f"tensors it has {', '.join(faults)}",
            hint="a config.json beside the file gives its size, if it is not the published one",
        )
    state = {name: _plain(tensors[found[name]], found[name], what) for name in known}
    return state, "original" if original else "diffusers"


def _listed(names: Iterable[str]) -> str:
    names = sorted(names)
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def _plain(tensor: Tensor, name: str, what: str) -> Tensor:
    if not tensor.is_floating_point():
        raise WeightsError(f"{what}: {name} holds {tensor.dtype}, not floating-point numbers")
    tensor = tensor.float()
    if not tensor.isfinite().all():
        raise WeightsError(f"{what}: {name} holds numbers that are not finite")
    return tensor


def known_transformer(size: Size) -> Shapes:
    """Every tensor of a transformer of this size."""
    return transformer_shapes(size.width, size.layers, size.ffn, CHANNELS, size.text)


def original_name(name: str) -> str:
    """A name of the transformer from diffusers to original."""
    return rename(name, TRANSFORMER)


def transformer(raw: State, size: Size, *, time: float, end: Tensor | None) -> State:
    """Our transformer's tensors. raw: `checked` ones.

    time: 0 to 1000, where the network stands in the diffusion. end: (text width,) the encoded
    end-of-sentence token, which is all of an empty prompt besides padding; None takes padding for
    it too, and the cross-attention adds the same to every token.
    """
    state = {
        rename(name, OWN_TRANSFORMER): tensor
        for name, tensor in raw.items()
        if not re.search(r"^(time|text)_|modulation$|\.self_attn\.[qkv]\.", name)
    }
    patches = raw["patch_embedding.weight"]
    state["dit.patch.weight"] = patches.flatten(1)
    embedded, shared = time_embedding(raw, time)
    for number in range(size.layers):
        theirs, ours = f"blocks.{number}.", f"dit.blocks.{number}."
        for kind in ("weight", "bias"):
            parts = [raw[f"{theirs}self_attn.{part}.{kind}"] for part in "qkv"]
            state[f"{ours}attention.qkv.{kind}"] = torch.cat(parts)
        state[ours + "modulation"] = (raw[theirs + "modulation"][0] + shared).float()
    state["dit.modulation"] = (raw["head.modulation"][0] + embedded).float()
    padding = torch.zeros(size.text)
    state["dit.context"] = text_embedding(
        raw, torch.stack([padding, padding if end is None else end])
    )
    return state


def time_embedding(raw: State, time: float) -> tuple[Tensor, Tensor]:
    """What a time becomes: (M,) for the head and (6, M) for the blocks, in float64."""
    half = TIME_WAVES // 2
    rates = torch.exp(torch.arange(half, dtype=torch.float64) * (-math.log(10000) / half))
    waves = torch.cat([(time * rates).cos(), (time * rates).sin()])
    hidden = F.silu(_linear(raw, "time_embedding.0", waves))
    embedded = _linear(raw, "time_embedding.2", hidden)
    shared = _linear(raw, "time_projection.1", F.silu(embedded))
    return embedded, shared.unflatten(0, (6, -1))


def text_embedding(raw: State, rows: Tensor) -> Tensor:
    """Encoded words (rows, text width) to rows of the context (rows, M), in float32."""
    hidden = F.gelu(_linear(raw, "text_embedding.0", rows.double()), approximate="tanh")
    return _linear(raw, "text_embedding.2", hidden).float()


def _linear(raw: State, name: str, x: Tensor) -> Tensor:
    return F.linear(x, raw[name + ".weight"].double(), raw[name + ".bias"].double())


def autoencoder_config(tensors: State) -> WanVAEConfig:
    """The size of an autoencoder by the first layer of its encoder, in either layout."""
    for name in ("encoder.conv1.weight", "encoder.conv_in.weight"):
        if name in tensors and tensors[name].dim():
            return WanVAEConfig(width=tensors[name].shape[0])
    return WanVAEConfig()


def known_autoencoder(config: WanVAEConfig) -> Shapes:
    """Every tensor of an autoencoder of this size."""
    with torch.device("meta"):
        own = {name: tuple(x.shape) for name, x in WanVAE(config).named_parameters()}
    return autoencoder_shapes(own)


def own_autoencoder(raw: State, config: WanVAEConfig) -> State:
    """Our autoencoder's tensors, `encoder.*` and `decoder.*`. raw: `checked` ones."""
    with torch.device("meta"):
        own = dict(WanVAE(config).named_parameters())
    state = {name: raw[rename(name, OWN_AUTOENCODER)].view(x.shape) for name, x in own.items()}
    for part in ("encoder", "decoder"):
        for name, numbers in (("mean", MEAN), ("std", STD)):
            state[f"{part}.{name}"] = torch.tensor(numbers).view(-1, 1, 1, 1)
    return state


def tiny_config(tensors: State) -> TinyConfig:
    """The widths of a tiny decoder by the convolutions between its resolutions."""
    blocks = TinyConfig().blocks
    places = [f"decoder.{place}.weight" for place in _tiny_places(blocks)]
    if not all(place in tensors and tensors[place].dim() for place in places):
        return TinyConfig()
    first, second, third, last = (tensors[place].shape[0] for place in places)
    return TinyConfig(widths=(first, second, third, last), blocks=blocks)


def _tiny_places(blocks: int) -> tuple[int, int, int, int]:
    """Where the first convolution and those that change the width stand in the decoder."""
    stage = blocks + 3
    return 1, 2 + stage, 2 + 2 * stage, 2 + 3 * stage


def known_tiny(config: TinyConfig) -> Shapes:
    """Every tensor of a tiny autoencoder of this size."""
    return tiny_shapes(config.widths, config.blocks, config.latent_channels)


def same_frames(tensors: State, known: Shapes) -> State:
    """A tiny decoder's tensors, without the channels of layers that make more frames than ours.

    Such files exist; of the frames that a layer makes, the last are the ones to keep (TAEHV).
    """
    return {
        name: tensor[-known[name][0] :]
        if name in known and re.fullmatch(r"decoder\.\d+\.conv\.weight", name)
        else tensor
        for name, tensor in tensors.items()
    }


def own_tiny(raw: State) -> State:
    """Our tiny decoder's tensors, `decoder.layers.*`; its encoder is not used. raw: `checked`."""
    return {
        name.replace("decoder.", "decoder.layers.", 1): tensor.contiguous()
        for name, tensor in raw.items()
        if name.startswith("decoder.")
    }
