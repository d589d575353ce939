"""One node: IMAGE batch in, larger IMAGE batch out. Copy this folder into custom_nodes/.

ComfyUI's IMAGE is (frames, H, W, 3) float in [0, 1]; a video is a batch of frames in order.
"""

from functools import lru_cache
from typing import Any

import torch

from oasis_cli.enlarge import load_network
from oasis_cli.fidelity import COLOR_FIXES, Faithful
from oasis_cli.runtime.devices import choose_devices, settle_precision
from oasis_cli.stream import enlarge_frames
from oasis_cli.weights import DEFAULT, registry
from oasis_cli.windows import WindowOptions


@lru_cache(maxsize=1)
def network(name: str, device: str) -> Any:
    """Kept between runs: loading takes a second."""
    where = torch.device(device)
    return load_network(name, where, settle_precision("auto", where))


class OasisUpscale:
    """Enlarge frames with oasis."""

    CATEGORY = "image/upscaling"
    FUNCTION = "run"
    RETURN_TYPES = ("IMAGE",)
    DESCRIPTION = "One-step diffusion video upscaling. Feed all frames of a video in order."

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802  ComfyUI's name
        """The node's sockets and widgets."""
        names = sorted(registry(), key=lambda name: name != DEFAULT) or [DEFAULT]
        return {
            "required": {
                "images": ("IMAGE",),
                "scale": ("FLOAT", {"default": 4.0, "min": 1.0, "max": 4.0, "step": 0.1}),
                "model": (names,),
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
        device = choose_devices("auto")[0]
        way = Faithful(network(model, str(device)), strength=strength, color_fix=color_fix)
        frames = (image[..., :3].permute(2, 0, 1) * 2 - 1 for image in images)
        windows = WindowOptions(frames=window, overlap=min(4, window // 2))
        out = [
            ((frame.clamp(-1, 1) + 1) / 2).permute(1, 2, 0).cpu()
            for frame in enlarge_frames(frames, way, scale=scale, windows=windows, device=device)
        ]
        return (torch.stack(out),)


NODE_CLASS_MAPPINGS = {"OasisUpscale": OasisUpscale}
NODE_DISPLAY_NAME_MAPPINGS = {"OasisUpscale": "OASIS video upscale"}
