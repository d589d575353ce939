"""Names of the tensors in Wan2.1's published files, in both layouts that are in use.

Names of the *original* layout are what the import works with; names of the *diffusers* layout are
translated to them. The rules give all 825 names of the transformer and all 194 of the autoencoder.
"""

import re

Rules = list[tuple[str, str]]
"""Patterns and what replaces them; every rule is tried once, in order, anywhere in a name."""


def rename(name: str, rules: Rules) -> str:
    """Apply the rules.

    >>> rename("blocks.3.norm2.weight", TRANSFORMER)
    'blocks.3.norm3.weight'
    """
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


TRANSFORMER: Rules = [
    (r"^condition_embedder\.text_embedder\.linear_1\.", "text_embedding.0."),
    (r"^condition_embedder\.text_embedder\.linear_2\.", "text_embedding.2."),
    (r"^condition_embedder\.time_embedder\.linear_1\.", "time_embedding.0."),
    (r"^condition_embedder\.time_embedder\.linear_2\.", "time_embedding.2."),
    (r"^condition_embedder\.time_proj\.", "time_projection.1."),
    (r"^scale_shift_table$", "head.modulation"),
    (r"^proj_out\.", "head.head."),
    (r"\.scale_shift_table$", ".modulation"),
    (r"\.attn1\.", ".self_attn."),
    (r"\.attn2\.", ".cross_attn."),
    (r"_attn\.to_([qkv])\.", r"_attn.\1."),
    (r"_attn\.to_out\.0\.", "_attn.o."),
    (r"\.norm2\.", ".norm3."),  # the norm with an affine part stands before the cross-attention
    (r"\.ffn\.net\.0\.proj\.", ".ffn.0."),
    (r"\.ffn\.net\.2\.", ".ffn.2."),
]
"""The transformer, from diffusers to original."""

AUTOENCODER: Rules = [
    (r"\.norm1\.gamma$", ".residual.0.gamma"),
    (r"\.conv1\.", ".residual.2."),
    (r"\.norm2\.gamma$", ".residual.3.gamma"),
    (r"\.conv2\.", ".residual.6."),
    (r"\.conv_shortcut\.", ".shortcut."),
    (r"^quant_conv\.", "conv1."),
    (r"^post_quant_conv\.", "conv2."),
    (r"\.conv_in\.", ".conv1."),
    (r"\.norm_out\.", ".head.0."),
    (r"\.conv_out\.", ".head.2."),
    (r"\.mid_block\.resnets\.0\.", ".middle.0."),
    (r"\.mid_block\.attentions\.0\.", ".middle.1."),
    (r"\.mid_block\.resnets\.1\.", ".middle.2."),
    (r"\.down_blocks\.", ".downsamples."),
]
"""The autoencoder, from diffusers to original; `autoencoder` adds the decoder's numbers."""


def autoencoder(name: str, blocks: int = 2) -> str:
    """A name of the autoencoder, from diffusers to original. blocks: residual blocks per level.

    >>> autoencoder("decoder.up_blocks.1.upsamplers.0.time_conv.weight")
    'decoder.upsamples.7.time_conv.weight'
    """
    level = blocks + 2
    found = re.match(r"decoder\.up_blocks\.(\d+)\.(resnets|upsamplers)\.(\d+)\.(.*)", name)
    if found:
        above, kind, place, rest = found.groups()
        number = level * int(above) + (int(place) if kind == "resnets" else level - 1)
        name = f"decoder.upsamples.{number}.{rest}"
    return rename(name, AUTOENCODER)


OWN_TRANSFORMER: Rules = [
    (r"^(blocks|head)\.", r"dit.\1."),
    (r"^patch_embedding\.", "dit.patch."),
    (r"^dit\.head\.head\.", "dit.head."),
    (r"_attn\.o\.", "_attn.out."),
    (r"_attn\.norm_([qk])\.weight$", r"_attn.\1_norm"),
    (r"\.self_attn\.", ".attention."),
    (r"\.cross_attn\.", ".cross."),
    (r"\.norm3\.", ".cross.norm."),
]
"""From the transformer's original names to ours, where one tensor stays one tensor."""

OWN_AUTOENCODER: Rules = [
    (r"^encoder\.quant\.", "conv1."),
    (r"^decoder\.post_quant\.", "conv2."),
    (r"coder\.first\.", "coder.conv1."),
    (r"coder\.last\.norm\.weight$", "coder.head.0.gamma"),
    (r"coder\.last\.conv\.", "coder.head.2."),
    (r"^encoder\.blocks\.", "encoder.downsamples."),
    (r"^decoder\.blocks\.", "decoder.upsamples."),
    (r"\.one\.norm\.weight$", ".residual.0.gamma"),
    (r"\.one\.conv\.", ".residual.2."),
    (r"\.two\.norm\.weight$", ".residual.3.gamma"),
    (r"\.two\.conv\.", ".residual.6."),
    (r"\.space\.", ".resample.1."),
    (r"\.time\.", ".time_conv."),
    (r"\.middle\.1\.norm\.weight$", ".middle.1.norm.gamma"),
    (r"\.middle\.1\.qkv\.", ".middle.1.to_qkv."),
    (r"\.middle\.1\.out\.", ".middle.1.proj."),
]
"""From our names of the autoencoder to the original ones."""

Shapes = dict[str, tuple[int, ...]]
"""Every tensor of a file by its original name."""

TIME_WAVES = 256
"""Sines and cosines that a time becomes before the time MLP."""

TEXT_WIDTH = 4096
"""Channels of an encoded word (umt5-xxl)."""


def transformer_shapes(
    width: int, layers: int, ffn: int, channels: int, text: int = TEXT_WIDTH, patch: int = 2
) -> Shapes:
    """The transformer's tensors. patch: rows and columns of a token.

    >>> len(transformer_shapes(1536, 30, 8960, 16))
    825
    """
    shapes: Shapes = {
        "patch_embedding.weight": (width, channels, 1, patch, patch),
        "patch_embedding.bias": (width,),
        **_linear("text_embedding.0", text, width),
        **_linear("text_embedding.2", width, width),
        **_linear("time_embedding.0", TIME_WAVES, width),
        **_linear("time_embedding.2", width, width),
        **_linear("time_projection.1", width, 6 * width),
        "head.modulation": (1, 2, width),
        **_linear("head.head", width, channels * patch * patch),
    }
    for number in range(layers):
        block = f"blocks.{number}."
        shapes[block + "modulation"] = (1, 6, width)
        shapes |= {block + "norm3.weight": (width,), block + "norm3.bias": (width,)}
        for attention in ("self_attn", "cross_attn"):
            for part in "qkvo":
                shapes |= _linear(f"{block}{attention}.{part}", width, width)
            for part in "qk":
                shapes[f"{block}{attention}.norm_{part}.weight"] = (width,)
        shapes |= _linear(block + "ffn.0", width, ffn) | _linear(block + "ffn.2", ffn, width)
    return shapes


def autoencoder_shapes(own: Shapes) -> Shapes:
    """The autoencoder's tensors, from our own: theirs are 2-D where ours span one frame."""
    shapes: Shapes = {}
    for name, shape in own.items():
        theirs = rename(name, OWN_AUTOENCODER)
        if theirs.endswith(".gamma"):
            shape = (*shape, 1, 1) if ".middle.1." in theirs else (*shape, 1, 1, 1)
        elif len(shape) == 5 and re.search(r"\.(resample\.1|to_qkv|proj)\.", theirs):
            shape = (*shape[:2], *shape[3:])
        shapes[theirs] = shape
    return shapes


def tiny_shapes(widths: tuple[int, int, int, int], blocks: int, channels: int) -> Shapes:
    """The tensors of TAEHV's taew2_1, encoder and decoder.

    >>> len(tiny_shapes((256, 128, 64, 64), 3, 16))
    128
    """
    shapes: Shapes = {}

    def conv(place: str, wide: int, out: int, size: int = 3, bias: bool = True) -> None:
        shapes[place + ".weight"] = (out, wide, size, size)
        if bias:
            shapes[place + ".bias"] = (out,)

    def memory(first: int, width: int, part: str) -> int:
        for number in range(first, first + blocks):
            conv(f"{part}.{number}.conv.0", 2 * width, width)
            conv(f"{part}.{number}.conv.2", width, width)
            conv(f"{part}.{number}.conv.4", width, width)
        return first + blocks

    last = widths[-1]
    conv("encoder.0", 3, last)
    place = 2
    for frames in (2, 2, 1):  # that a frame is made from
        conv(f"encoder.{place}.conv", frames * last, last, 1, bias=False)
        conv(f"encoder.{place + 1}", last, last, bias=False)
        place = memory(place + 2, last, "encoder")
    conv(f"encoder.{place}", last, channels)
    conv("decoder.1", channels, widths[0])
    place = 3
    for frames, wide, out in zip((1, 2, 2), widths[:-1], widths[1:], strict=True):
        place = memory(place, wide, "decoder")
        conv(f"decoder.{place + 1}.conv", wide, frames * wide, 1, bias=False)
        conv(f"decoder.{place + 2}", wide, out, bias=False)
        place += 3
    conv(f"decoder.{place + 1}", last, 3)
    return shapes


def _linear(name: str, wide: int, out: int) -> Shapes:
    return {name + ".weight": (out, wide), name + ".bias": (out,)}
