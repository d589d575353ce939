"""oasis: make video sharper and larger. The command is `oasis`; see `oasis --help`.

The public names are loaded when they are first used: the command starts without PyTorch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from oasis_cli.errors import OasisError as OasisError
    from oasis_cli.media.output import EncodeOptions as EncodeOptions
    from oasis_cli.media.reader import ReadOptions as ReadOptions
    from oasis_cli.plan import Options as Options
    from oasis_cli.segmented import JobOptions as JobOptions
    from oasis_cli.upscale import Result as Result
    from oasis_cli.upscaler import Upscaler as Upscaler
    from oasis_cli.windows import WindowOptions as WindowOptions

__version__ = "0.1.0"

_PUBLIC = {
    "EncodeOptions": "media.output",
    "JobOptions": "segmented",
    "OasisError": "errors",
    "Options": "plan",
    "ReadOptions": "media.reader",
    "Result": "upscale",
    "Upscaler": "upscaler",
    "WindowOptions": "windows",
}
"""Where each public name is."""


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_PUBLIC[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
