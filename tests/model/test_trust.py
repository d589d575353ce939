"""Kernels on cards that nobody tried: kept if they compute the same, else done without."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from oasis_cli.model import attention, trust
from oasis_cli.model.trust import keep_working_kernels
from oasis_cli.runtime.devices import capabilities

CPU = torch.device("cpu")


def right(q, k, v, out, grid, reach):
    tiles = attention.window_tiles(tuple(grid), tuple(reach), q.device)
    out.copy_(attention.window_attention(q, k, v, tiles))


def wrong(q, k, v, out, grid, reach):
    out.copy_(v)


def refusing(q, k, v, out, grid, reach):
    raise RuntimeError("no kernel image is available for execution on the device")


@pytest.fixture
def card(monkeypatch):
    """card(kernel, tried=False): this CPU as a card with such a window kernel."""

    def make(kernel, tried=False):
        about = replace(capabilities("cpu"), name="A card", fused_kernels=True, tried=tried)
        module = SimpleNamespace(
            supports=lambda q: True,
            expected=lambda device, width: False,
            window_attention_into=kernel,
        )
        monkeypatch.setattr(trust, "capabilities", lambda device: about)
        monkeypatch.setattr(attention, "KERNEL", module)
        monkeypatch.setattr(attention, "TOKENS", None)
        monkeypatch.setattr(trust, "_asked", set())
        return module

    return make


def test_a_kernel_that_computes_the_same_is_kept(card):
    kernel = card(right)
    assert keep_working_kernels(CPU) == ""
    assert attention.KERNEL is kernel


@pytest.mark.parametrize(
    ("kernel", "why"), [(wrong, "compute something else"), (refusing, "fail (RuntimeError)")]
)
def test_a_kernel_that_fails_is_done_without_and_said_once(card, kernel, why):
    card(kernel)
    assert keep_working_kernels(CPU) == (
        f"PyTorch's operators instead of our kernels, which {why} on A card"
    )
    assert attention.KERNEL is None
    assert keep_working_kernels(CPU) == ""


def test_a_card_that_was_tried_is_not_asked(card):
    kernel = card(refusing, tried=True)
    assert keep_working_kernels(CPU) == ""
    assert attention.KERNEL is kernel
