"""Several processes, one run: each draws its own clips, gradients are averaged, the first writes.

`torchrun` starts the processes. Every one holds the whole network and takes the same steps, so
their weights stay equal without being sent.
"""

import os
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from oasis_cli.runtime.devices import capabilities, own_device


@dataclass(frozen=True, slots=True)
class Processes:
    """The processes of a run, seen from one of them."""

    rank: int = 0
    """Number of this process; 0 is the one that writes and reports."""
    world: int = 1
    """How many there are."""

    @torch.no_grad()
    def average(self, parameters: list[nn.Parameter]) -> None:
        """Replace gradients by their mean over the processes, in one message."""
        gradients = [p.grad for p in parameters if p.grad is not None]
        if self.world == 1 or not gradients:
            return
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)  # a sum: the CPU backend knows no mean
        flat /= self.world
        parts = flat.split([gradient.numel() for gradient in gradients])
        means = [part.view_as(old) for old, part in zip(gradients, parts, strict=True)]
        torch._foreach_copy_(gradients, means)

    def from_first(self, value: Any) -> Any:
        """The first process's value, in every process: clocks and calibrations differ."""
        if self.world == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, 0, device=torch.device("cpu"))
        return box[0]

    def sum(self, value: Tensor) -> Tensor:
        """`value` added up over the processes."""
        if self.world > 1:
            dist.all_reduce(value)
        return value


def join(device: torch.device) -> tuple[Processes, torch.device]:
    """Meet the other processes if torchrun started us. Returns them and this process's device."""
    if "RANK" not in os.environ:
        return Processes(), device
    device = own_device(device, int(os.environ["LOCAL_RANK"]))
    if not dist.is_initialized():
        dist.init_process_group(capabilities(device).collectives)
    return Processes(dist.get_rank(), dist.get_world_size()), device


def leave() -> None:
    """Part from the other processes, when there are any."""
    if dist.is_initialized():
        dist.destroy_process_group()
