"""A larger network that gives what a smaller one gives, to go on training from there.

Net2Net (arXiv 1511.05641), with one rule throughout: what is new may be written, and is not read.
A new channel carries random features whose readers are zero, or its writers are zero and its
readers random; one of the two gets a gradient in the first step, and then both do.

Layer norms need more care, since a new channel changes their mean and variance even if nobody reads
it. Every reader of the token stream normalises it, so its mean over channels is never seen: the
writers are centred first, which changes nothing. Then new channels of zeros leave the mean at zero
and shrink the variance by n/N, which the norms' weights make up for.

Letters: n, N channels before and after   h, H heads before and after
"""

import math
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from oasis_cli.checkpoints.format import channels_last
from oasis_cli.model.decoders.fast import DecoderConfig, FastDecoder, ResidualBlock
from oasis_cli.model.dit import Block, DiT, DiTConfig
from oasis_cli.model.heads.routing import HeadTable
from oasis_cli.model.oasis import Oasis, OasisConfig

QUIET = 3e-3
"""How large queries and keys of new heads start, beside what is usual. They share a norm with those
of old heads, which they must not move; at zero they would get no gradient."""

MAY_GROW = {"width", "layers", "heads", "ffn", "latent_channels"}
DECODER_MAY_GROW = {
    "latent_channels",
    "low_width",
    "low_blocks",
    "high_width",
    "high_blocks",
    "frame_channels",
}


@torch.no_grad()
def grow(model: Oasis, config: OasisConfig) -> Oasis:
    """A network of `config` that gives the frames `model` gives, to 1e-5 in float32.

    Transformer blocks, width, heads of the same width, hidden channels, latent channels, and the
    decoder's blocks and widths may be more. `config.dit_tile` may be another: then only pictures
    that lie in one tile of both come out alike. New heads and layers repeat the head table's
    letters. Raises ValueError when something would shrink, or differs that cannot grow.
    """
    _check(model.config, config)
    device = model.to_latent.linear.weight.device
    new = Oasis(config)
    table = _table(model.dit.table, config.dit)
    checkpoint = model.checkpoint_state()
    old = Oasis.from_checkpoint(
        model.config,
        {name: tensor.detach().float().cpu() for name, tensor in checkpoint.items()},
        HeadTable.dense(model.config.dit.layers, model.config.dit.heads),
    )
    _grow_latents(old, new)
    _grow_transformer(old.dit, new.dit)
    _grow_decoder(cast(FastDecoder, old.decoder), cast(FastDecoder, new.decoder))
    if old.fusion is not None and new.fusion is not None:
        new.fusion.load_state_dict(old.fusion.state_dict())
    new.dit.route(table)
    channels_last(new)
    return new.to(device)


def _check(old: OasisConfig, new: OasisConfig) -> None:
    """Raise ValueError unless `old` can become `new`."""
    if not isinstance(old.decoder, DecoderConfig) or not isinstance(new.decoder, DecoderConfig):
        raise ValueError("only a FastDecoder grows")
    if old.dit.context_rows:
        raise ValueError("a transformer with cross-attention does not grow")
    for before, after, may in (
        (old.dit, new.dit, MAY_GROW),
        (old.decoder, new.decoder, DECODER_MAY_GROW),
    ):
        for name in may:
            if getattr(after, name) < getattr(before, name):
                raise ValueError(f"{name} would shrink, from {getattr(before, name)}")
    # How untrained parts start says nothing about trained ones.
    same: dict[str, Any] = {name: getattr(old.dit, name) for name in MAY_GROW}
    dit = replace(new.dit, gate=old.dit.gate, zero_head=old.dit.zero_head, **same)
    decoder = replace(
        new.decoder, **{name: getattr(old.decoder, name) for name in DECODER_MAY_GROW}
    )
    tiles: dict[str, Any] = {"dit_tile": old.dit_tile, "dit_overlap": old.dit_overlap}
    # A fusion that is new corrects nothing.
    expected = replace(old, fusion=old.fusion or new.fusion)
    if replace(new, dit=dit, decoder=decoder, **tiles) != expected:
        raise ValueError("they differ in more than their size")
    if new.dit.head_width != old.dit.head_width:
        raise ValueError(
            f"heads would be {new.dit.head_width} channels wide instead of {old.dit.head_width}"
        )


def _places(old: int, new: int) -> list[int]:
    """Where `old` layers lie among `new`: spread evenly, the first one first.

    >>> _places(4, 6)
    [0, 1, 3, 4]
    """
    return [number * new // old for number in range(old)]


def _table(table: HeadTable, config: DiTConfig) -> HeadTable:
    """The head table of the grown network: new heads and layers repeat the letters of old ones."""
    heads, layers = len(table.layers[0]), len(table.layers)
    more, rows = config.heads - heads, []
    places = _places(layers, config.layers)
    for layer in range(config.layers):
        row = table.layers[max(n for n, place in enumerate(places) if place <= layer)]
        rows.append(row + "".join(row[(layer * more + head) % heads] for head in range(more)))
    return HeadTable(tuple(rows))


def _put(new: Tensor, old: Tensor) -> None:
    """Write `old` into the first places of `new`, along every dimension."""
    new[tuple(slice(size) for size in old.shape)] = old


def _grow_latents(old: Oasis, new: Oasis) -> None:
    """New latents look at what the old ones do not, and are as loud as the loudest of them."""
    weight, more = old.to_latent.linear.weight, new.to_latent.linear
    count = len(more.weight) - len(weight)
    if count:
        rows = torch.randn(count, weight.shape[1])
        basis = torch.linalg.qr(weight.T).Q
        rows = torch.linalg.qr((rows - rows @ basis @ basis.T).T).Q.T
        more.weight[-count:] = rows * weight.norm(dim=1).max()
    nn.init.zeros_(more.bias)
    _put(more.weight, weight)
    _put(more.bias, old.to_latent.linear.bias)


def _grow_transformer(old: DiT, new: DiT) -> None:
    narrow, wide = old.config.width, new.config.width
    patches = old.config.patch**2
    norm = math.sqrt(narrow / wide)
    centred = wide > narrow

    def write(layer: nn.Linear, into: nn.Linear, gate: Tensor | None = None) -> None:
        """A layer that adds to the token stream: new rows and new columns are zero."""
        weight, bias = cast(tuple[Tensor, Tensor], (layer.weight, layer.bias))
        if centred:
            if gate is not None:
                weight, bias = gate[:, None] * weight, gate * bias
            weight, bias = weight - weight.mean(0), bias - bias.mean()
        for tensor, part in ((into.weight, weight), (into.bias, bias)):
            tensor.zero_()
            _put(tensor, part)

    def read(shifts: Tensor, scales: Tensor, old_shifts: Tensor, old_scales: Tensor) -> None:
        """Shift and scale of a layer norm. (N,) each, and (n,) each."""
        shifts.zero_()
        scales.zero_()
        _put(shifts, old_shifts)
        _put(scales, (1 + old_scales) * norm - 1 if centred else old_scales)

    write(old.patch, new.patch)
    read(*new.modulation, *old.modulation)
    _grow_head(old.head, new.head, patches)
    places = _places(len(old.blocks), len(new.blocks))
    for number in set(range(len(new.blocks))) - set(places):
        cast(Block, new.blocks[number]).modulation[[2, 5]] = 0.0
    for before, place in zip(old.blocks, places, strict=True):
        block, grown = cast(Block, before), cast(Block, new.blocks[place])
        rows, grown_rows = block.modulation, grown.modulation
        for shift, scale, gate in ((0, 1, 2), (3, 4, 5)):
            read(grown_rows[shift], grown_rows[scale], rows[shift], rows[scale])
            grown_rows[gate] = 1.0
            if not centred:
                _put(grown_rows[gate], rows[gate])
        _grow_attention(block, grown, norm)
        write(block.attention.out, grown.attention.out, rows[2])
        first, grown_first = (cast(nn.Linear, b.ffn[0]) for b in (block, grown))
        nn.init.zeros_(grown_first.bias)
        _put(grown_first.weight, first.weight)
        _put(grown_first.bias, first.bias)
        write(cast(nn.Linear, block.ffn[2]), cast(nn.Linear, grown.ffn[2]), rows[5])


def _grow_head(old: nn.Linear, new: nn.Linear, patches: int) -> None:
    """The velocity of new latents starts at zero. Rows are (position in the patch, latent)."""
    new.weight.unflatten(0, (patches, -1))[:, old.out_features // patches :] = 0
    nn.init.zeros_(new.bias)
    for tensor, part in ((new.weight, old.weight), (new.bias, old.bias)):
        _put(tensor.unflatten(0, (patches, -1)), part.unflatten(0, (patches, -1)))


def _grow_attention(old: Block, new: Block, norm: float) -> None:
    """Rows of q, k and v of old heads, and new heads with quiet q and k."""
    attention, grown = old.attention, new.attention
    weights = grown.qkv.weight.unflatten(0, (3, -1))
    biases = grown.qkv.bias.unflatten(0, (3, -1))
    weights[:2, attention.q_norm.shape[0] :] *= QUIET
    biases.zero_()
    _put(weights, attention.qkv.weight.unflatten(0, (3, -1)))
    _put(biases, attention.qkv.bias.unflatten(0, (3, -1)))
    for mine, theirs in ((grown.q_norm, attention.q_norm), (grown.k_norm, attention.k_norm)):
        _put(mine, theirs * norm)


def _grow_decoder(old: FastDecoder, new: FastDecoder) -> None:
    frames = old.unfold_time.out_channels // old.config.frame_channels
    unfold, grown = old.unfold_time, new.unfold_time
    rows = grown.weight.unflatten(0, (frames, -1))
    rows[:, : old.config.frame_channels] = 0
    _put(rows, unfold.weight.unflatten(0, (frames, -1)))
    biases = (cast(Tensor, layer.bias).unflatten(0, (frames, -1)) for layer in (grown, unfold))
    _put(*biases)
    for join, grown_join, own, blocks, grown_blocks in (
        (old.join_low, new.join_low, "frame_channels", old.low, new.low),
        (old.join_high, new.join_high, "high_width", old.high, new.high),
    ):
        _grow_reader(join, grown_join, getattr(old.config, own), getattr(new.config, own))
        for number, grown_block in enumerate(cast(list[ResidualBlock], list(grown_blocks))):
            if number >= len(blocks):  # the identity
                nn.init.zeros_(grown_block.second.weight)
                nn.init.zeros_(cast(Tensor, grown_block.second.bias))
                continue
            block = cast(ResidualBlock, blocks[number])
            widths = block.second.in_channels, grown_block.second.in_channels
            _grow_reader(block.first, grown_block.first, *widths)
            _grow_reader(block.second, grown_block.second, *widths)
    _grow_reader(old.up, new.up, old.up.in_channels, new.up.in_channels)
    _grow_reader(old.last, new.last, old.last.in_channels, new.last.in_channels)


def _grow_reader(old: nn.Conv2d, new: nn.Conv2d, own: int, grown: int) -> None:
    """A convolution whose old outputs read no new channel; new outputs read all, at random.

    own, grown: how many of its inputs come first, before others that it reads beside them.
    """
    weight, beside = new.weight, old.in_channels - own
    weight[: old.out_channels] = 0
    weight[: old.out_channels, :own] = old.weight[:, :own]
    weight[: old.out_channels, grown : grown + beside] = old.weight[:, own:]
    _put(cast(Tensor, new.bias), cast(Tensor, old.bias))
