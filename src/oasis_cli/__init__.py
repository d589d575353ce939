"""oasis: make video sharper and larger. The command is `oasis`; see `oasis --help`."""

__version__ = "0.1.0"
