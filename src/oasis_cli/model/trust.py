"""Whether our fused kernels compute what plain operators do, asked once of each kind of card.

They were made and measured on Hopper. Another card's compiler may refuse or break them; then the
plain operators are as good, only slower.
"""

import torch

from oasis_cli.model import attention
from oasis_cli.model.dit import DiT, DiTConfig
from oasis_cli.model.heads.routing import HeadTable
from oasis_cli.runtime.devices import capabilities

DIFFERS = 0.05
"""Part of the largest value from which on a result is another one: 16 bits round to 0.01 of it."""

_asked: set[str] = set()


def keep_working_kernels(device: torch.device) -> str:
    """Compare the kernels with plain operators on a device that nobody tried, once, and do without
    them in this process if they fail. Returns a sentence for the user in that case, else ""."""
    card = capabilities(device)
    if not card.fused_kernels or card.tried or card.name in _asked:
        return ""
    _asked.add(card.name)
    why = failure(device)
    if why:
        attention.KERNEL = attention.TOKENS = None
        return f"PyTorch's operators instead of our kernels, which {why} on {card.name}"
    return ""


@torch.inference_mode()
def failure(device: torch.device) -> str:
    """Why the kernels of a device cannot be trusted, as the end of a sentence; "" if they can."""
    half = torch.float32 if capabilities(device).host else torch.float16
    kept = attention.KERNEL, attention.TOKENS
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            config = DiTConfig(width=128, layers=1, heads=2, ffn=64, latent_channels=8, gate=0.5)
            layer = DiT(config)
            latent = torch.randn(1, 8, 3, 12, 14)
        layer.route(HeadTable(("gw",)))
        layer, latent = layer.to(device, half).eval(), latent.to(device, half)
        fused = layer(latent)
        attention.KERNEL = attention.TOKENS = None
        plain = layer(latent)
    except Exception as error:  # whatever a compiler or a driver says
        return f"fail ({type(error).__name__})"
    finally:
        attention.KERNEL, attention.TOKENS = kept
    near = (fused - plain).abs().max() <= DIFFERS * plain.abs().max()
    return "" if bool(near) else "compute something else"
