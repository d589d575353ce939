"""Toy models, which stand for a network where none is needed, and the command in this process.

`from toys import nearest, invoke`.
"""

from torch.nn import functional as F
from typer.testing import CliRunner

from oasis_cli.cli.main import app


def invoke(*words):
    """The result of `oasis` with these words, in this process: faster, for what ends early."""
    return CliRunner().invoke(app, [str(word) for word in words])


def nearest(low, size, tile=None):
    """Each pixel again and again."""
    return F.interpolate(low[0], size=size)[None]


def bicubic(low, size, tile=None):
    """What an untrained network returns."""
    if low.shape[-2:] == size:
        return low
    return F.interpolate(low[0], size=size, mode="bicubic", align_corners=False)[None]


def sharpen(low, size, tile=None):
    """A model whose frames depend on their window, so that wrong windows show."""
    high = F.interpolate(low[0], size=size)
    return (high + 0.1 * high.mean(dim=0, keepdim=True))[None]


class Killed(BaseException):
    """Stands for a process that ends at once."""


def dies_after(calls):
    """`sharpen`, `calls` times."""

    def model(low, size, tile=None):
        nonlocal calls
        calls -= 1
        if calls < 0:
            raise Killed
        return sharpen(low, size)

    return model
