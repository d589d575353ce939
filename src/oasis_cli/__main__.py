"""`python -m oasis_cli` is the `oasis` command."""

from oasis_cli.cli.main import app

app()
