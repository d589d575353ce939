"""PyTorch: how a checkpoint becomes a model that runs."""

from collections import deque
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from oasis_cli.checkpoints.format import check_trained, describe, load_model
from oasis_cli.checkpoints.registry import find, sha256
from oasis_cli.model.cuda_graph import CudaGraphModel
from oasis_cli.model.heads.routing import HeadTable
from oasis_cli.model.heads.table_file import load_table
from oasis_cli.model.inference import prepare_for_inference
from oasis_cli.model.int8 import use_int8
from oasis_cli.model.kernels import ahead
from oasis_cli.model.oasis import Oasis
from oasis_cli.model.trust import keep_working_kernels
from oasis_cli.model.winograd import use_winograd
from oasis_cli.runtime.backend import Backend, Model, ModelSpec
from oasis_cli.runtime.device_memory import release_unused
from oasis_cli.runtime.devices import PRECISIONS, capabilities, settle_precision


@dataclass(frozen=True, slots=True)
class TorchBackend:
    """Runs checkpoints by the classes of `oasis_cli.model`."""

    name: str = "torch"

    def load(self, spec: ModelSpec) -> Model:
        """A network with its head table, as a run calls it."""
        check_trained(spec.name)
        table = None
        if spec.heads:
            weights = sha256(find(spec.name))
            table = load_table(Path(spec.heads), describe(spec.name), weights)
        network = load_network(spec.name, spec.device, spec.precision, table, spec.decoder)
        if capabilities(spec.device).host:
            same_for_any_thread_count(network)
        return as_run(network, spec.device)

    def release(self, device: torch.device) -> None:
        """Empties PyTorch's cache of a device."""
        release_unused(device)


TORCH: Backend = TorchBackend()


def load_network(
    name: str,
    device: torch.device,
    precision: str,
    table: HeadTable | None = None,
    decoder: str = "auto",
) -> Oasis:
    """A named model, routed by `table` if given, in a settled precision, with `notes` for the user.
    decoder: as for `load_model`."""
    network = load_model(name, device=device, dtype=PRECISIONS[precision], decoder=decoder)
    if table:
        network.dit.route(table)
    card = capabilities(device)
    if card.fused_kernels or precision == "fp8":
        prepare_for_inference(network.dit, fp8=precision == "fp8")
    if card.fused_kernels:
        ahead.finish()
    notes = [keep_working_kernels(device)]
    if card.host:
        use_winograd(network)
        if precision == "int8":
            settle_precision(precision, device)  # a cluster's CPUs may lack what the planner's has
            use_int8(network)
    elif not (card.tried or card.fused_kernels):
        notes.append(
            f"{device}: nobody tried such a device; what it lacks runs on the CPU, and "
            "`oasis doctor` compares the two"
        )
    network.notes = deque(filter(None, notes))
    return network


def as_run(network: Oasis, device: torch.device) -> Model:
    """A network as a run calls it, also from several threads: its launches are replayed where that
    is possible."""
    if not capabilities(device).graphs:
        return network
    replayed = CudaGraphModel(network)
    replayed.notes.extend(getattr(network, "notes", ()))
    return replayed


def same_for_any_thread_count(model: torch.nn.Module) -> None:
    """Replace the 1x1 convolutions by matrix products.

    On a CPU a 1x1 convolution sums in an order that depends on the number of threads, a product
    does not. Without this a segment made by one of two workers would differ, in the last bit, from
    the same segment made by one.
    """
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if isinstance(child, torch.nn.Conv2d) and child.kernel_size == (1, 1):
                setattr(parent, name, Product1x1(child))


class Product1x1(torch.nn.Module):
    """A 1x1 convolution as a matrix product, with the same parameters."""

    def __init__(self, layer: torch.nn.Conv2d) -> None:
        super().__init__()
        self.weight, self.bias = layer.weight, layer.bias

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, C, H, W). Returns (N, C', H, W), channels last in memory."""
        out = F.linear(x.movedim(1, -1), self.weight[:, :, 0, 0], self.bias)
        return out.movedim(-1, 1)
