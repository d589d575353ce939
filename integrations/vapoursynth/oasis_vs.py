"""oasis as a VapourSynth filter: `enlarge(clip, scale=2)`. Needs vapoursynth and oasis-cli."""

from typing import Any

import numpy as np
import vapoursynth as vs

from oasis_cli import Options, Upscaler
from oasis_cli.checkpoints.registry import AUTO
from oasis_cli.pipeline.windows import WindowOptions


def enlarge(
    clip: Any, scale: float = 4, model: str = AUTO, device: str = "auto", window: int = 17
) -> Any:
    """A clip `scale` times as large, in RGB24. Its frames may be asked for in any order."""
    rgb = _to_rgb(clip)
    server = Upscaler(Options(model=model, device=device)).server(
        lambda number: _to_array(rgb.get_frame(number)),
        rgb.num_frames,
        (clip.width, clip.height),
        scale=scale,
        windows=WindowOptions(frames=window, overlap=min(4, window // 2)),
    )
    width, height = server.size
    blank = vs.core.std.BlankClip(
        rgb, width=width, height=height, format=vs.RGB24, length=rgb.num_frames
    )

    def fill(n: int, f: Any) -> Any:
        picture = server[n]
        out = f.copy()
        for plane in range(3):
            np.asarray(out[plane])[:] = picture[..., plane]
        return out

    return blank.std.ModifyFrame(blank, fill)


def _to_rgb(clip: Any) -> Any:
    """RGB24, by the matrix that the clip names, else by the usual one of its height."""
    unspecified = 2
    named = clip.get_frame(0).props.get("_Matrix", unspecified) != unspecified
    if named or clip.format.color_family == vs.RGB:
        return clip.resize.Bicubic(format=vs.RGB24)
    return clip.resize.Bicubic(format=vs.RGB24, matrix_in_s="709" if clip.height > 576 else "170m")


def _to_array(frame: Any) -> Any:
    """(H, W, 3) uint8 of an RGB24 frame."""
    return np.stack([np.asarray(frame[plane]) for plane in range(3)], axis=-1)
