"""Is this installation able to work? Each check tries the thing instead of trusting a list."""

import os
import platform
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from oasis_cli import __version__
from oasis_cli.checkpoints.registry import registry, verify
from oasis_cli.errors import OasisError
from oasis_cli.runtime.processors import processors

if TYPE_CHECKING:
    from oasis_cli.runtime.devices import Capabilities

ENCODERS = {
    "libx264": "yuv420p",
    "libx265": "yuv420p10le",
    "libsvtav1": "yuv420p10le",
    "prores_ks": "yuv422p10le",
    "ffv1": "yuv420p",
}
"""Encoders that oasis promises, with a pixel format each takes."""

UNTRIED = (
    "{names} was never tried by us: please report these lines, also if all is well, with the table "
    "of `oasis bench`"
)

HARDWARE_ENCODERS = ("h264_nvenc", "hevc_nvenc", "av1_nvenc")


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at."""

    name: str
    ok: bool
    found: str

    def to_dict(self) -> dict[str, object]:
        """For JSON."""
        return asdict(self)


def examine() -> list[Check]:
    """Every check, in the order in which they matter."""
    return [
        _try("oasis", lambda: __version__),
        _try("python", _python),
        _try("torch", _torch),
        _try("devices", _devices),
        _try("kernels", _kernels),
        _try("media", _media),
        *(_try(name, lambda name=name: _opens(name)) for name in ENCODERS),  # type: ignore[misc]
        _hardware(),
        *_weights(),
        *_computing(),
    ]


def to_report() -> str:
    """What to ask of somebody with a device that nobody tried; empty if there is none."""
    from oasis_cli.runtime.devices import found

    names = [device.name or device.kind for device in found() if not device.tried]
    return UNTRIED.format(names=" and ".join(dict.fromkeys(names))) if names else ""


def _try(name: str, look: Callable[[], str]) -> Check:
    try:
        return Check(name, True, look())
    except Exception as error:  # whatever is broken is the answer
        return Check(name, False, f"{type(error).__name__}: {error}")


def _python() -> str:
    return f"{platform.python_version()} on {platform.system()} {platform.machine()}"


def _torch() -> str:
    import torch

    return f"{torch.__version__}, {torch.get_num_threads()} threads, {_processors()}"


def _processors() -> str:
    mine, all_of_them = processors(), os.cpu_count() or 1
    if mine == all_of_them:
        return f"{mine} processors"
    return f"{mine} of {all_of_them} processors (the rest is not for this process)"


def _devices() -> str:
    from oasis_cli.runtime.devices import found

    return "; ".join(_about(device) for device in found())


def _kernels() -> str:
    from oasis_cli.model.attention import KERNEL
    from oasis_cli.runtime.devices import may_run_triton

    if KERNEL is not None:
        return "Triton's, for windows and tokens"
    if may_run_triton():
        return "Triton is not installed: PyTorch's own operators are used, which take longer"
    return "PyTorch's own: ours are for NVIDIA cards"


def _about(device: "Capabilities") -> str:
    """One device in a line."""
    facts = [device.name] if device.name else []
    facts += [f"{device.memory / 2**30:.0f} GiB"] if device.memory else []
    facts += [f"{device.default_precision}, also {', '.join(_others(device))}"]
    able = {"fused kernels": device.fused_kernels, "graphs": device.graphs}
    facts += [name for name, there in able.items() if there]
    number = "" if device.index is None else f":{device.index}"
    return f"{device.kind}{number} ({', '.join(facts)})"


def _others(device: "Capabilities") -> list[str]:
    return [name for name in device.precisions if name != device.default_precision]


def _media() -> str:
    import av

    codec = ".".join(str(n) for n in av.library_versions["libavcodec"])
    return f"PyAV {av.__version__}, libavcodec {codec}"


def _opens(encoder: str) -> str:
    """Encode a frame: an encoder may be listed and still refuse to open."""
    import av

    from oasis_cli.media.scheduling import usual_scheduling

    os.environ.setdefault("SVT_LOG", "1")
    pix_fmt = ENCODERS.get(encoder, "yuv420p")
    with tempfile.TemporaryDirectory() as folder:
        container = av.open(str(Path(folder) / "try.mkv"), "w")
        try:
            quiet = {"x265-params": "log-level=none"} if encoder == "libx265" else {}
            stream = container.add_stream(encoder, rate=Fraction(25), options=quiet)
            stream.width, stream.height, stream.pix_fmt = 256, 144, pix_fmt  # type: ignore[union-attr]
            with usual_scheduling():
                container.start_encoding()
            frame = av.VideoFrame(256, 144, pix_fmt)
            for plane in frame.planes:
                plane.update(bytes(plane.buffer_size))
            frame.pts, frame.time_base = 0, Fraction(1, 25)
            packets = [*stream.encode(frame), *stream.encode(None)]  # type: ignore[union-attr, arg-type]
            if not packets:
                raise OasisError(f"{encoder} opened and returned nothing")
        finally:
            container.close()
    return f"encodes {pix_fmt}"


def _hardware() -> Check:
    """Not having a hardware encoder is normal (data-centre GPUs have none): never a failure."""
    found = [name for name in HARDWARE_ENCODERS if _try(name, lambda n=name: _opens(n)).ok]  # type: ignore[misc]
    return Check("hardware encoders", True, ", ".join(found) or "none open; software is used")


def _weights() -> Iterator[Check]:
    for entry in registry().values():
        if entry.ships or entry.path is not None:
            yield _try(f"weights {entry.name}", lambda name=entry.name: _as_released(name))  # type: ignore[misc]
        else:
            found = f"not here; `oasis weights fetch {entry.name}` brings it"
            yield Check(f"weights {entry.name}", True, found)


def _as_released(name: str) -> str:
    right, found = verify(name)
    if not right:
        raise OasisError(f"SHA-256 is {found}, not the released one")
    return f"SHA-256 {found[:16]}... as released"


def _computing() -> Iterator[Check]:
    """A window on each device, compared with the CPU's."""
    try:
        from oasis_cli.evaluation.device_check import check_device
        from oasis_cli.runtime.devices import found

        cards = found()
    except Exception as error:
        yield Check("frames", False, f"{type(error).__name__}: {error}")
        return
    for card in cards:
        number = "" if card.index is None else f":{card.index}"
        yield _try(f"frames {card.kind}{number}", lambda card=card: str(check_device(card)))  # type: ignore[misc]
