"""oasis: make video sharper and larger. The command is `oasis`; see `oasis --help`.

The public names are loaded when they are first used: the command starts without PyTorch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from oasis_cli.checkpoints.format import load_model as load_model
    from oasis_cli.errors import OasisError as OasisError
    from oasis_cli.jobs.execute import JobOptions as JobOptions
    from oasis_cli.media.input.reader import ReadOptions as ReadOptions
    from oasis_cli.media.output.plan import EncodeOptions as EncodeOptions
    from oasis_cli.pipeline.clips import open_clip as open_clip
    from oasis_cli.pipeline.plan import Options as Options
    from oasis_cli.pipeline.run import Result as Result
    from oasis_cli.pipeline.windows import WindowOptions as WindowOptions
    from oasis_cli.stream import enlarge_frames as enlarge_frames
    from oasis_cli.upscaler import Upscaler as Upscaler

__version__ = "0.1.0"

_PUBLIC = {
    "EncodeOptions": "media.output.plan",
    "JobOptions": "jobs.execute",
    "OasisError": "errors",
    "Options": "pipeline.plan",
    "ReadOptions": "media.input.reader",
    "Result": "pipeline.run",
    "Upscaler": "upscaler",
    "WindowOptions": "pipeline.windows",
    "enlarge_frames": "stream",
    "load_model": "checkpoints.format",
    "open_clip": "pipeline.clips",
}
"""Where each public name is."""


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_PUBLIC[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
