"""Which head attends to what: the head table of attention specialization routing (OASIS, sec. ASR).

A table is data. It is made once by calibration, stored in the checkpoint, and the network only
reads it. Heads are numbered as in the checkpoint; `order` gives the execution order, in which the
heads of one group lie side by side so that a group is a slice, never a gather.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from oasis_cli.errors import WeightsError

GROUPS = "giw"
"""g global: all tokens.  i intra-frame: tokens of the same latent frame.  w window: neighbours."""


@dataclass(frozen=True, slots=True)
class HeadTable:
    """One string of group letters for each layer, one letter for each head."""

    layers: tuple[str, ...]

    def __post_init__(self) -> None:
        for number, groups in enumerate(self.layers):
            if not groups or set(groups) - set(GROUPS):
                raise WeightsError(
                    f"layer {number} of the head table is {groups!r}, not a row of g, i and w",
                    hint="make a table with `oasis calibrate-heads`",
                )
        if len({len(groups) for groups in self.layers}) > 1:
            raise WeightsError("the layers of the head table have different numbers of heads")

    @classmethod
    def dense(cls, layers: int, heads: int) -> "HeadTable":
        """Every head global: plain attention.

        >>> HeadTable.dense(2, 3).layers
        ('ggg', 'ggg')
        """
        return cls(("g" * heads,) * layers)

    @classmethod
    def repeat(cls, groups: str, layers: int) -> "HeadTable":
        """The same row in every layer."""
        return cls((groups,) * layers)

    @property
    def is_dense(self) -> bool:
        return all(set(groups) == {"g"} for groups in self.layers)


def order(groups: str) -> list[int]:
    """Head numbers in execution order [global | intra | window], stable inside a group.

    >>> order("wgiwg")
    [1, 4, 2, 0, 3]
    """
    return sorted(range(len(groups)), key=lambda head: GROUPS.index(groups[head]))


def counts(groups: str) -> tuple[int, int, int]:
    """How many heads are global, intra-frame and window.

    >>> counts("wgiwg")
    (2, 1, 2)
    """
    g, i, w = (groups.count(letter) for letter in GROUPS)
    return g, i, w


def channels(heads: Sequence[int], head_width: int) -> list[int]:
    """The channels of `heads`, head by head.

    >>> channels([1, 0], 2)
    [2, 3, 0, 1]
    """
    return [head * head_width + c for head in heads for c in range(head_width)]
