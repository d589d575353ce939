"""The name by which `oasis_cli.checkpoints.format` was documented before."""

from oasis_cli.checkpoints.format import (
    describe as describe,
)
from oasis_cli.checkpoints.format import (
    load_model as load_model,
)
from oasis_cli.checkpoints.format import (
    save_model as save_model,
)
from oasis_cli.checkpoints.registry import (
    registry as registry,
)
