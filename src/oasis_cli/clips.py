"""The name by which `oasis_cli.pipeline.clips` was documented before."""

from oasis_cli.pipeline.clips import (
    Clip as Clip,
)
from oasis_cli.pipeline.clips import (
    open_clip as open_clip,
)
