"""What the tensors of Wan2.1's published files are called, in both layouts that are in use.

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
