"""The optimisers of a run: Muon for matrices of the transformer, AdamW for everything else."""

from typing import Any

import torch
import torch.distributed as dist

from oasis_cli.model.oasis import Oasis
from oasis_cli.train.presets import TrainConfig


class Optimizer:
    """Two optimisers behind one step. Muon's updates are scaled to AdamW's size, so one rate fits.

    Muon (Jordan et al., 2024) orthogonalises the momentum of a matrix; it is meant for matrices
    between hidden layers, not for the first and last projection, norms or convolutions.
    """

    def __init__(self, model: Oasis, config: TrainConfig) -> None:
        hidden = {
            id(p): p for p in model.dit.blocks.parameters() if p.ndim == 2 and min(p.shape) > 6
        }
        matrices = list(hidden.values()) if config.muon else []
        chosen = {id(p) for p in matrices}
        rest = [p for p in model.parameters() if id(p) not in chosen]
        decayed = [p for p in rest if p.ndim > 1]
        plain = [p for p in rest if p.ndim <= 1]
        groups = [
            {"params": decayed, "weight_decay": config.weight_decay},
            {"params": plain, "weight_decay": 0.0},
        ]
        fused = next(model.parameters()).is_cuda
        more: dict[str, Any] = {"lr": 0.0, "betas": config.betas, "fused": fused}
        self.sharded = config.shard and dist.is_initialized() and dist.get_world_size() > 1
        """Whether each process keeps the moments of its own part of the parameters alone."""
        self.parts: list[torch.optim.Optimizer] = [
            _shared_out(groups, more) if self.sharded else torch.optim.AdamW(groups, **more)
        ]
        if matrices:
            self.parts.append(
                torch.optim.Muon(
                    matrices,
                    lr=0.0,
                    weight_decay=config.weight_decay,
                    adjust_lr_fn="match_rms_adamw",
                )
            )

    def step(self, rate: float) -> None:
        """Update with learning rate `rate` and clear the gradients."""
        for part in self.parts:
            for group in part.param_groups:
                group["lr"] = rate
            part.step()
            part.zero_grad(set_to_none=True)

    def state_dict(self) -> list[dict[str, Any]]:
        """Whole on the first process. When sharded, every process must call this; others get []."""
        if self.sharded:
            self.parts[0].consolidate_state_dict(to=0)  # type: ignore[attr-defined]
            if dist.get_rank():
                return []
        return [part.state_dict() for part in self.parts]

    def load_state_dict(self, states: list[dict[str, Any]]) -> None:
        for part, state in zip(self.parts, states, strict=True):
            part.load_state_dict(state)


def _shared_out(groups: list[dict[str, Any]], more: dict[str, Any]) -> torch.optim.Optimizer:
    """AdamW of which each process keeps a part."""
    # Imported here: the module is slow, and old parts of it warn.
    from torch.distributed.optim import ZeroRedundancyOptimizer

    return ZeroRedundancyOptimizer(groups, torch.optim.AdamW, **more)
