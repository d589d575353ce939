"""Run by test_kernels.py with TRITON_INTERPRET=1, which counts before triton is imported.

Prints one JSON object: the largest errors against float64 attention under a mask, and against
norms and rotations in float64.
"""

import itertools
import json
import sys

import torch
import torch.nn.functional as F

from oasis_cli.checkpoints.format import channels_last
from oasis_cli.model import attention
from oasis_cli.model.decoders import wan_layers
from oasis_cli.model.decoders.wan import WanDecoder, WanVAEConfig
from oasis_cli.model.dit import DiT, DiTConfig
from oasis_cli.model.heads.routing import HeadTable
from oasis_cli.model.inference import _linear_gelu, fix_context, to_fp8
from oasis_cli.model.kernels import token as token_kernels
from oasis_cli.model.kernels import window as window_kernel
from oasis_cli.model.kernels.token import add_norm, norm_rope, shares
from oasis_cli.model.kernels.window import (
    FORWARD,
    run_forward,
    window_attention,
    window_attention_into,
)
from oasis_cli.model.rope import apply_rope, rope_table

CASES = {
    "one frame": ((1, 7, 9), (3, 5, 5), 16),
    "smaller than the window": ((2, 3, 4), (3, 5, 5), 32),
    "one token": ((1, 1, 1), (3, 5, 5), 16),
    "no side divides": ((3, 5, 9), (3, 5, 5), 16),
    "another window": ((4, 2, 3), (5, 3, 7), 16),
}


def dense(q, k, v, grid, window):
    at = torch.tensor(list(itertools.product(*map(range, grid))))
    mask = ((at[:, None] - at[None]).abs() <= torch.tensor(window) // 2).all(-1)
    q, k, v = (x.double().transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2)


def worst(ours, exact):
    return max((a - b).abs().max().item() for a, b in zip(ours, exact, strict=True))


def slices(grid, width, batch=1, dtype=torch.float32):
    """q, k, v as heads 1 and 2 of a fused projection of 4 heads: strided views."""
    length = grid[0] * grid[1] * grid[2]
    fused = torch.randn(batch, length, 3, 4, width, dtype=dtype)
    return tuple(fused[:, :, part, 1:3] for part in range(3))


def errors(grid, window, width):
    inputs = [x.requires_grad_() for x in slices(grid, width)]
    out, exact = window_attention(*inputs, grid, window), dense(*inputs, grid, window)
    weight = torch.randn(out.shape)
    ours = torch.autograd.grad((out * weight).sum(), inputs)
    theirs = torch.autograd.grad((exact * weight).sum(), inputs)
    return {"forward": worst([out], [exact]), "backward": worst(ours, theirs)}


def compiler_loaded():
    """Whether a layer for inference has loaded PyTorch's compiler. Called before all others."""
    config = DiTConfig(width=32, layers=1, heads=2, ffn=32, latent_channels=8, context_rows=512)
    dit = DiT(config).eval()
    dit.route(HeadTable(("gw",)))
    fix_context(dit)
    with torch.inference_mode():
        dit(torch.randn(1, 8, 2, 4, 6))
        _linear_gelu(torch.randn(4, 8), torch.randn(16, 8), torch.randn(16))
    return "torch._dynamo" in sys.modules


def into_a_slice():
    """What is written, and that the rest of the buffer keeps its poison."""
    grid, window = (2, 5, 6), (3, 5, 5)
    q, k, v = slices(grid, 16, batch=2)
    buffer = torch.full((2, 60, 5, 16), 7.0)
    window_attention_into(q, k, v, buffer[:, :, 2:4], list(grid), list(window))
    rest = buffer[:, :, [0, 1, 4]]
    return {
        "written": worst([buffer[:, :, 2:4]], [dense(q, k, v, grid, window)]),
        "rest": worst([rest], [torch.full_like(rest, 7.0)]),
    }


def compiled():
    """Both operators in one graph without a break, gradients included."""
    grid, window = (1, 3, 4), (3, 5, 5)
    inputs = [x.requires_grad_() for x in slices(grid, 16)]

    def run(q, k, v):
        return window_attention(q * 2, k, v, grid, window) * 3

    def fill(q, k, v):
        out = torch.zeros(1, 12, 3, 16)
        window_attention_into(q, k, v, out[:, :, 1:], list(grid), list(window))
        return out

    graph = torch.compile(run, fullgraph=True, backend="aot_eager")
    ours = torch.autograd.grad(graph(*inputs).sum(), inputs)
    theirs = torch.autograd.grad(run(*inputs).sum(), inputs)
    with torch.no_grad():
        filled = torch.compile(fill, fullgraph=True, backend="aot_eager")(*inputs)
        return {"gradients": worst(ours, theirs), "filled": worst([filled], [fill(*inputs)])}


def half():
    q, k, v = slices((2, 4, 5), 16, dtype=torch.float16)
    return worst(
        [window_attention(q, k, v, (2, 4, 5), (3, 5, 5))], [dense(q, k, v, (2, 4, 5), (3, 5, 5))]
    )


def shipped_shape():
    """The tile that runs on a GPU; scores far apart."""
    grid, window = (5, 6, 7), [3, 5, 5]
    q, k, v = slices(grid, 32, batch=2)
    out = torch.full(q.shape, torch.nan)
    run_forward(q * 4, k, v, out, list(grid), window, shape=FORWARD)
    return worst([out], [dense(q * 4, k, v, grid, window)])


def layer():
    """A routed layer through the kernel against the same layer through plain attention: with and
    without gradients, and compiled in one graph."""
    grid, window, cpu = (2, 3, 5), (3, 5, 5), torch.device("cpu")
    routed = attention.RoutedAttention(64, 4, 1e-6)
    routed.route("wgiw")
    x = torch.randn(2, 30, 64, requires_grad=True)
    inputs = [x, *routed.parameters()]

    def run(forward, geo):
        out = forward(x, geo)
        with torch.no_grad():
            filled = forward(x, geo)
        return [filled, out, *torch.autograd.grad(out.square().sum(), inputs)]

    fused = attention.geometry(grid, window, 16, windowed=True, device=cpu)
    assert fused.window is None and attention.KERNEL is not None
    ours = run(routed, fused)
    graph = torch.compile(routed.forward, fullgraph=True, backend="aot_eager")
    compiled = run(graph, fused)
    attention.KERNEL = attention.TOKENS = None
    plain = run(routed, fused)
    return {"plain": worst(ours, plain), "compiled": worst(compiled, plain)}


def norm_and_rope():
    """Two clips, a width that is no power of two; and half precision, rounded once."""
    grid, heads, width = (2, 3, 2), 3, 16
    cos, sin = rope_table(grid, width)
    fused = torch.randn(2, 12, 3 * heads * width)
    norms = torch.rand(2, heads * width)

    def exact(fused):
        found = []
        for x, norm in zip(fused.double().chunk(3, -1), norms, strict=False):
            x = F.rms_norm(x, x.shape[-1:], norm.double(), 1e-6).unflatten(-1, (heads, width))
            found.append(apply_rope(x, cos, sin).flatten(2))
        return found

    with torch.no_grad():
        whole = norm_rope(fused, *norms, cos, sin, 1e-6)
        half = norm_rope(fused.half(), *norms, cos, sin, 1e-6)
    return {
        "float": worst(whole, exact(fused)),
        "half": worst([x.double() for x in half], exact(fused.half())),
    }


def sum_and_norm():
    x, y = torch.randn(2, 2, 5, 48)
    gate, weight, shift = torch.rand(3, 48)
    found = {}
    for name, factor in (("gated", gate), ("plain", None)):
        total = x.double() + y.double() * (1 if factor is None else factor)
        out = F.layer_norm(total, (48,), weight.double(), shift.double(), 1e-6)
        with torch.no_grad():
            found[name] = worst(add_norm(x, y, factor, weight, shift, 1e-6), (total, out))
    return found


def two_keys():
    """Five heads of 16, so that three columns are padding."""
    q, pull = torch.randn(2, 3, 80), torch.randn(80)
    logit = (F.rms_norm(q.double(), (80,), eps=1e-6) * pull).unflatten(-1, (5, 16)).sum(-1)
    with torch.no_grad():
        found = shares(q, pull, 5, 0.7, 1e-6)
    assert found.shape == (2, 3, 8)
    return {
        "heads": worst([found[..., :5]], [torch.sigmoid(logit + 0.7)]),
        "padding": found[..., 5:].abs().max().item(),
    }


def eight_bits():
    """Rows and scales as plain torch rounds them; with GELU a last bit may fall the other way.

    Powers of two are left out: the interpreter, not the GPU, loses the carry on the way to them.
    """
    x = 3 * torch.randn(4, 80)
    found = {}
    for name, gelu in (("plain", False), ("gelu", True)):
        with torch.no_grad():
            ours, scale = token_kernels.to_fp8(x, gelu)
            attention.TOKENS = None
            theirs, expected = to_fp8(x, gelu=gelu)
            attention.TOKENS = token_kernels
        ours, theirs = (rows.view(torch.uint8).int() for rows in (ours, theirs))
        steps = (ours - theirs).abs()[theirs % 8 != 0]
        found[name] = [worst([scale], [expected]), steps.max().item(), steps.bool().sum().item()]
    return found


def network():
    """A whole transformer with cross-attention: kernels against plain torch."""
    config = DiTConfig(
        width=48, layers=2, heads=3, ffn=64, latent_channels=8, context_rows=512, gate=0.7
    )
    dit = DiT(config).eval()
    dit.route(HeadTable(("giw", "wgi")))
    for parameter in dit.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    latent = torch.randn(1, 8, 2, 4, 6)
    with torch.no_grad():
        plain = dit(latent)  # `layer` turned the kernels off
        fix_context(dit)
        fixed = dit(latent)
        attention.KERNEL, attention.TOKENS = window_kernel, token_kernels
        fused = dit(latent)
    size = plain.abs().max()
    return {"fixed": worst([fixed], [plain]), "fused": worst([fused / size], [plain / size])}


def autoencoder():
    """The Wan decoder, streamed, kernels against plain torch; two clips, odd sizes."""
    decoder = WanDecoder(WanVAEConfig(width=6)).eval()
    for parameter in decoder.parameters():
        torch.nn.init.normal_(parameter, std=0.15)
    channels_last(decoder)
    latent = torch.randn(2, 16, 3, 3, 5)
    with torch.no_grad():
        fused = decoder.decode(latent, chunk=2)
        kept, wan_layers.KERNELS = wan_layers.KERNELS, None
        plain = decoder.decode(latent, chunk=2)
        wan_layers.KERNELS = kept
    size = plain.abs().max()
    return {"used": kept is not None, "error": worst([fused / size], [plain / size])}


if __name__ == "__main__":
    loaded = compiler_loaded()
    torch.manual_seed(0)
    print(
        json.dumps(
            {
                "compiler": loaded,
                **{name: errors(*case) for name, case in CASES.items()},
                "slice": into_a_slice(),
                "compiled": compiled(),
                "half": half(),
                "shipped": shipped_shape(),
                "layer": layer(),
                "rope": norm_and_rope(),
                "add_norm": sum_and_norm(),
                "shares": two_keys(),
                "network": network(),
                "fp8": eight_bits(),
                "wan": autoencoder(),
            }
        )
    )
