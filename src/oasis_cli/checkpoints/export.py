"""The whole network as an ONNX file, for other engines: one window of one size.

What a file takes and gives is written into it: see `WindowShape`. Needs the extra [export].
"""

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn

from oasis_cli.checkpoints.format import check_trained, describe, load_model
from oasis_cli.errors import OasisError, UsageError
from oasis_cli.model.oasis import Oasis

OPSET = 18
"""Of the file: what ONNX Runtime 1.14, OpenVINO 2023.1 and TensorRT 8.6 read."""

MOST_BYTES = 2_000_000_000
"""What fits into one ONNX file: its format counts in 31 bits."""

MOST_PIXELS = 2**28
"""Of a window's output, all frames together: 32 frames of 3840x2160."""

LOW, HIGH = "low", "high"
"""What the file's input and output are called."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowShape:
    """The one window that a file serves.

    `low` (1, frames, 3, height, width) float32, RGB in [-1, 1], becomes `high` (1, frames, 3,
    target[1], target[0]), the same, clamped.
    """

    frames: int
    size: tuple[int, int]
    """(width, height) of the input."""
    target: tuple[int, int]
    """(width, height) of the output, 16 or more."""

    def __post_init__(self) -> None:
        if self.frames < 1:
            raise UsageError("a window has at least one frame")
        if min(self.target) < 16:
            raise UsageError("the smallest picture is 16x16", hint="choose a larger --size")
        if self.frames * self.target[0] * self.target[1] > MOST_PIXELS:
            raise UsageError(
                f"{self.frames} frames of {self.target[0]}x{self.target[1]} are too large a window",
                hint="export a tile, and cut pictures into tiles of its size: --size 128x128",
            )


class FixedWindow(nn.Module):
    """A network that enlarges one window to one size."""

    def __init__(self, network: Oasis, target: tuple[int, int]) -> None:
        super().__init__()
        self.network, self.target = network, (target[1], target[0])

    def forward(self, low: Tensor) -> Tensor:
        """low: (1, F, 3, h, w). Returns (1, F, 3, H, W), clamped to [-1, 1]."""
        high: Tensor = self.network(low, self.target)
        return high.clamp(-1, 1)


def check_export() -> None:
    """Raise OasisError where a package of the [export] extra is missing."""
    if missing := [name for name in ("onnx", "onnxscript") if find_spec(name) is None]:
        raise OasisError(
            f"exporting needs {' and '.join(missing)}, not installed here",
            hint="pip install 'oasis-cli[export]'",
        )


def to_onnx(model: str, shape: WindowShape) -> bytes:
    """A named model, or a checkpoint's path, as an ONNX file in float32 with its weights inside.

    Raises OasisError where packages are missing or the network has no ONNX form, and WeightsError
    for a bad checkpoint.
    """
    check_export()
    check_trained(model)
    network = load_model(model)
    if (size := 4 * sum(x.numel() for x in network.state_dict().values())) > MOST_BYTES:
        raise UsageError(f"{model} takes {size / 1e9:.1f} GB, and an ONNX file holds 2")
    window = FixedWindow(network, shape.target)
    width, height = shape.size
    low = torch.rand(1, shape.frames, 3, height, width) * 2 - 1
    with TemporaryDirectory() as folder, torch.inference_mode(False), torch.no_grad(), _quiet():
        window(low)  # makes the tables of its grid, which the export then finds
        path = Path(folder) / "model.onnx"
        try:
            program = torch.onnx.export(
                window,
                (low,),
                dynamo=True,
                opset_version=OPSET,
                input_names=[LOW],
                output_names=[HIGH],
                external_data=False,
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as error:
            raise OasisError(f"{model} has no ONNX form: {error}") from error
        assert program is not None
        about = {"model": describe(model)["name"], **asdict(shape)}
        program.model.metadata_props["oasis"] = json.dumps(about)
        program.model.doc_string = (WindowShape.__doc__ or "").strip()
        program.save(path, external_data=False)
        return path.read_bytes()


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter warns of what is decided here."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
