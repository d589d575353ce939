"""`python -m oasis_cli` is the `oasis` command."""

from oasis_cli.cli.main import command

if __name__ == "__main__":
    command()
