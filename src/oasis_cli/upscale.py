"""The name by which `oasis_cli.pipeline.run` was documented before."""

from oasis_cli.pipeline.plan import Options as Options
from oasis_cli.pipeline.run import (
    Result as Result,
)
from oasis_cli.pipeline.run import (
    upscale as upscale,
)
