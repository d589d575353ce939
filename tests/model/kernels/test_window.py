"""The Triton kernels against plain torch in float64: under the interpreter, and on a GPU if any."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton", reason="Triton comes with torch for CUDA and with the dev extra")


@pytest.fixture(scope="module")
def errors():
    child = Path(__file__).with_name("kernel_child.py")
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(child)], env=environment, capture_output=True, text=True, check=False
    )
    if "only 0-dimensional arrays" in done.stderr:
        pytest.skip("this Triton's interpreter does not know this numpy")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    "case",
    ["one frame", "smaller than the window", "one token", "no side divides", "another window"],
)
def test_it_equals_masked_attention_and_has_its_gradients(errors, case):
    assert errors[case]["forward"] < 1e-6
    assert errors[case]["backward"] < 2e-6


def test_it_writes_its_slice_of_a_buffer_and_nothing_else(errors):
    assert errors["slice"]["written"] < 1e-6
    assert errors["slice"]["rest"] == 0


def test_torch_compile_takes_it_in_one_graph(errors):
    assert errors["compiled"] == {"gradients": 0, "filled": 0}


def test_the_first_window_does_not_wait_for_a_compiler_that_nobody_needs(errors):
    assert not errors["compiler"]


def test_what_the_first_window_waits_for_is_begun_once_where_a_gpu_is_and_fails_quietly(
    monkeypatch,
):
    from triton.runtime import cache

    from oasis_cli.model.kernels import ahead

    begun = []

    def no_library(device, dtype):
        begun.append((str(device), dtype))
        raise RuntimeError("no library")

    monkeypatch.setattr(cache, "triton_key", lambda: begun.append("hashed"))
    monkeypatch.setattr(ahead, "first_calls", no_library)
    monkeypatch.setattr(ahead, "_begun", [])
    monkeypatch.setattr(ahead, "count", lambda kind: 2)
    ahead.begin(2, "auto")  # there is no such device
    ahead.finish()
    assert not begun

    ahead.begin(1, "fp8")
    ahead.begin(0, "fp32")
    ahead.finish()
    assert sorted(map(str, begun)) == ["('cuda:1', torch.bfloat16)", "hashed"]
    assert all(thread.daemon and not thread.is_alive() for thread in ahead._begun)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16, torch.float16])
def test_the_first_calls_are_possible_and_keep_the_callers_modes(precision):
    from oasis_cli.model.kernels.ahead import first_calls

    first_calls(torch.device("cpu"), precision)
    assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()


def test_half_precision_is_rounding_away(errors):
    assert errors["half"] < 2e-3


def test_the_tile_of_a_gpu_and_large_scores(errors):
    assert errors["shipped"] < 1e-5


def test_a_layer_calls_it_and_trains_through_it(errors):
    assert errors["layer"]["plain"] < 5e-5
    assert errors["layer"]["compiled"] < 5e-5


def test_norm_and_rope_in_one_pass(errors):
    assert errors["rope"]["float"] < 2e-6
    assert errors["rope"]["half"] < 2e-3


def test_sum_and_norm_in_one_pass(errors):
    assert errors["add_norm"]["gated"] < 2e-6
    assert errors["add_norm"]["plain"] < 2e-6


def test_the_shares_of_two_keys_in_one_pass(errors):
    assert errors["shares"]["heads"] < 1e-6
    assert errors["shares"]["padding"] == 0


def test_a_transformer_computes_the_same_through_kernels(errors):
    assert errors["network"]["fixed"] == 0
    assert errors["network"]["fused"] < 1e-5


def test_eight_bits_are_rounded_as_plain_torch_does(errors):
    assert errors["fp8"]["plain"] == [0, 0, 0]
    scale, step, count = errors["fp8"]["gelu"]
    assert scale < 1e-8
    assert step <= 2
    assert count <= 4


def test_the_wan_decoder_computes_the_same_through_kernels(errors):
    assert errors["wan"]["used"]
    assert errors["wan"]["error"] < 1e-5


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("width", [64, 128])
def test_on_a_gpu_it_equals_the_plain_path(dtype, width):
    from oasis_cli.model.attention import window_attention, window_tiles
    from oasis_cli.model.kernels.window import window_attention as kernel

    grid, window = (5, 19, 13), (3, 5, 5)
    fused = torch.randn(2, 5 * 19 * 13, 3, 4, width, device="cuda", dtype=dtype)
    inputs = [fused[:, :, part, 1:3].requires_grad_() for part in range(3)]
    exact = [x.detach().double().requires_grad_() for x in inputs]
    tiles = window_tiles(grid, window, torch.device("cuda"))
    out, expected = kernel(*inputs, grid, window), window_attention(*exact, tiles)
    weight = torch.randn_like(out)
    ours = torch.autograd.grad((out * weight).sum(), inputs)
    theirs = torch.autograd.grad((expected * weight).sum(), exact)

    for one, other in zip((out, *ours), (expected, *theirs), strict=True):
        assert ((one - other).norm() / other.norm()).item() < 1e-2
