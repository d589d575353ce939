"""Run by test_window_kernel.py with TRITON_INTERPRET=1, which counts before triton is imported.

Prints one JSON object: the largest errors against float64 attention under a mask.
"""

import itertools
import json

import torch
import torch.nn.functional as F

from oasis_cli.model import attention
from oasis_cli.model.window_kernel import (
    FORWARD,
    run_forward,
    window_attention,
    window_attention_into,
)

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
    attention.KERNEL = None
    plain = run(routed, fused)
    return {"plain": worst(ours, plain), "compiled": worst(compiled, plain)}


if __name__ == "__main__":
    torch.manual_seed(0)
    print(
        json.dumps(
            {
                **{name: errors(*case) for name, case in CASES.items()},
                "slice": into_a_slice(),
                "compiled": compiled(),
                "half": half(),
                "shipped": shipped_shape(),
                "layer": layer(),
            }
        )
    )
