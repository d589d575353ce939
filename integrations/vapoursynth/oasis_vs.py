"""oasis as a VapourSynth filter: `enlarge(clip, scale=2)`. Needs vapoursynth and oasis-cli."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import vapoursynth as vs

from oasis_cli.stream import enlarge_frames
from oasis_cli.weights import DEFAULT, load_model
from oasis_cli.windows import WindowOptions


def enlarge(
    clip: Any, scale: float = 4, model: str = DEFAULT, device: str = "cpu", window: int = 17
) -> Any:
    """A clip `scale` times as large, in RGB24. Ask for its frames in order: it streams."""
    rgb = _to_rgb(clip)
    network = load_model(model, device=device)
    width, height = round(clip.width * scale), round(clip.height * scale)
    blank = vs.core.std.BlankClip(
        rgb, width=width, height=height, format=vs.RGB24, length=rgb.num_frames
    )
    state: dict[str, Any] = {"next": -1, "stream": iter(())}

    def start(number: int) -> Iterator[Any]:
        sources = (_to_array(rgb.get_frame(n)) for n in range(number, rgb.num_frames))
        windows = WindowOptions(frames=window, overlap=min(4, window // 2))
        return enlarge_frames(
            sources, network, size=(width, height), windows=windows, device=device
        )

    def fill(n: int, f: Any) -> Any:
        if n != state["next"]:  # a jump: a new stream begins here
            state["stream"] = start(n)
        picture = next(state["stream"])
        state["next"] = n + 1
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
