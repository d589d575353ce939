"""One node: IMAGE batch in, larger IMAGE batch out. Copy this folder into custom_nodes/.

ComfyUI's IMAGE is (frames, H, W, 3) float in [0, 1]; a video is a batch of frames in order.
"""

from functools import lru_cache
from typing import Any

import torch

from oasis_cli import Options, Upscaler
from oasis_cli.checkpoints.registry import AUTO, registry
from oasis_cli.pipeline.fidelity import COLOR_FIXES
from oasis_cli.pipeline.windows import WindowOptions


@lru_cache(maxsize=1)
def upscaler(name: str) -> Upscaler:
    """Kept between runs: loading takes a second."""
    return Upscaler(Options(model=name))


class OasisUpscale:
    """Enlarge frames with oasis."""

    CATEGORY = "image/upscaling"
    FUNCTION = "run"
    RETURN_TYPES = ("IMAGE",)
    DESCRIPTION = "One-step diffusion video upscaling. Feed all frames of a video in order."

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802  ComfyUI's name
        """The node's sockets and widgets."""
        return {
            "required": {
                "images": ("IMAGE",),
                "scale": ("FLOAT", {"default": 4.0, "min": 1.0, "max": 4.0, "step": 0.1}),
                "model": ([AUTO, *registry()],),
                "strength": ("FLOAT", {"default": 1.0, "min": 0.0, "max": 1.0, "step": 0.05}),
                "color_fix": (list(COLOR_FIXES),),
                "window": ("INT", {"default": 17, "min": 5, "max": 33, "step": 4}),
            }
        }

    def run(
        self,
        images: torch.Tensor,
        scale: float,
        model: str,
        strength: float,
        color_fix: Any,
        window: int,
    ) -> tuple[torch.Tensor]:
        """images: (frames, H, W, 3) in [0, 1]. Returns the same, larger."""
        frames = (image[..., :3].permute(2, 0, 1) * 2 - 1 for image in images)
        windows = WindowOptions(frames=window, overlap=min(4, window // 2))
        out = [
            ((frame.clamp(-1, 1) + 1) / 2).permute(1, 2, 0).cpu()
            for frame in upscaler(model).frames(
                frames, scale=scale, strength=strength, color_fix=color_fix, windows=windows
            )
        ]
        return (torch.stack(out),)


NODE_CLASS_MAPPINGS = {"OasisUpscale": OasisUpscale}
NODE_DISPLAY_NAME_MAPPINGS = {"OasisUpscale": "OASIS video upscale"}
