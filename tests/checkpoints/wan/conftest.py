"""Wan2.1's files at toy size with random weights, made by diffusers, in both layouts."""

import json
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from oasis_cli.checkpoints.wan.names import TRANSFORMER, autoencoder, rename, tiny_shapes

TEXT = 20
"""Channels of an encoded word."""

VAE_WIDTH = 4


def random_weights(model):
    """Every parameter at random, also those that start at one or zero; forward stays tame."""
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1 or "scale_shift" in name or "gamma" in name:
            torch.nn.init.uniform_(
                parameter, 0.5, 1.5
            ) if "weight" in name or "gamma" in name else (
                torch.nn.init.normal_(parameter, std=0.3)
            )
        else:
            torch.nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="session")
def wan():
    """The networks of diffusers: `transformer` of 2 layers and 4 heads of 12, and `vae`."""
    transformer = pytest.importorskip("diffusers.models.transformers.transformer_wan")
    vae = pytest.importorskip("diffusers.models.autoencoders.autoencoder_kl_wan")
    return SimpleNamespace(
        transformer=random_weights(
            transformer.WanTransformer3DModel(
                num_attention_heads=4,
                attention_head_dim=12,
                ffn_dim=40,
                num_layers=2,
                text_dim=TEXT,
            )
        ),
        vae=random_weights(vae.AutoencoderKLWan(base_dim=VAE_WIDTH)),
        end=torch.randn(TEXT, generator=torch.Generator().manual_seed(1)),
    )


@pytest.fixture(scope="session")
def published(wan, tmp_path_factory):
    """Folders `diffusers` and `original`, and files `end` and `tiny`."""
    root = tmp_path_factory.mktemp("wan")
    theirs, original = root / "diffusers", root / "original"
    wan.transformer.save_pretrained(theirs / "transformer")
    wan.vae.save_pretrained(theirs / "vae")
    original.mkdir()
    state = {rename(name, TRANSFORMER): x for name, x in wan.transformer.state_dict().items()}
    save_file(state, original / "diffusion_pytorch_model.safetensors")
    size = {"dim": 48, "ffn_dim": 40, "num_heads": 4, "num_layers": 2, "text_dim": TEXT}
    about = {"_class_name": "WanModel", "model_type": "t2v", "eps": 1e-6, **size}
    (original / "config.json").write_text(json.dumps(about))
    vae = {autoencoder(name): x for name, x in wan.vae.state_dict().items()}
    torch.save(vae, original / "Wan2.1_VAE.pth")
    end = root / "end.safetensors"
    save_file({"prompt_embeds": torch.cat([wan.end[None], torch.zeros(511, TEXT)])[None]}, end)
    tiny = root / "tiny.pth"
    shapes = tiny_shapes((12, 8, 6, 4), 3, 16)
    torch.save({name: torch.randn(shape) * 0.1 for name, shape in shapes.items()}, tiny)
    return SimpleNamespace(root=root, diffusers=theirs, original=original, end=end, tiny=tiny)
