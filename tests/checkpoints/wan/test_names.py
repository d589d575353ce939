"""The names and shapes of Wan2.1's files against the diffusers package, at the published size."""

import pytest
import torch

from oasis_cli.checkpoints.wan.names import (
    TRANSFORMER,
    autoencoder,
    autoencoder_shapes,
    rename,
    tiny_shapes,
    transformer_shapes,
)
from oasis_cli.model.decoders.tiny import TinyConfig, TinyDecoder
from oasis_cli.model.decoders.wan import WanVAE


def shapes(make):
    with torch.device("meta"):
        return {name: tuple(x.shape) for name, x in make().named_parameters()}


def test_all_825_tensors_of_the_transformer():
    theirs = pytest.importorskip("diffusers.models.transformers.transformer_wan")
    found = shapes(
        lambda: theirs.WanTransformer3DModel(
            num_attention_heads=12, attention_head_dim=128, ffn_dim=8960, num_layers=30
        )
    )
    known = transformer_shapes(1536, 30, 8960, 16)
    assert len(known) == 825
    assert {rename(name, TRANSFORMER): shape for name, shape in found.items()} == known


def test_all_194_tensors_of_the_autoencoder():
    theirs = pytest.importorskip("diffusers.models.autoencoders.autoencoder_kl_wan")
    found = shapes(theirs.AutoencoderKLWan)
    known = autoencoder_shapes(shapes(WanVAE))
    assert len(known) == 194
    assert {autoencoder(name): shape for name, shape in found.items()} == known


def test_the_tiny_decoders_tensors_have_the_published_numbers():
    config = TinyConfig()
    known = tiny_shapes(config.widths, config.blocks, config.latent_channels)
    assert len(known) == 128
    own = shapes(lambda: TinyDecoder(config))
    decoder = {name: shape for name, shape in known.items() if name.startswith("decoder.")}
    assert {name.replace("layers.", "decoder.", 1): shape for name, shape in own.items()} == decoder
