"""The name by which `oasis_cli.evaluation.measure` was documented before."""

from oasis_cli.evaluation.measure import measure as measure
