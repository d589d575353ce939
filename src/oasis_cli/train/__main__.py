"""`torchrun --nproc-per-node N -m oasis_cli.train ...`: training without the rest of the command.

Needs torch, safetensors, einops, numpy and PyAV alone.
"""

import argparse
import sys
from pathlib import Path

from oasis_cli.errors import OasisError
from oasis_cli.train.loop import Trainer
from oasis_cli.train.options import RunOptions
from oasis_cli.train.parallel import leave
from oasis_cli.train.presets import read_config


def main() -> int:
    """Parse, train, and end with the exit code of the command."""
    parser = argparse.ArgumentParser(prog="python -m oasis_cli.train")
    parser.add_argument("config", help="a preset or a TOML file")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--perceptual", type=Path)
    parser.add_argument("--vgg", type=Path)
    parser.add_argument("--teacher", type=Path)
    parser.add_argument("--encoder", type=Path)
    parser.add_argument("--start-from", type=Path)
    parser.add_argument("--max-minutes", type=float)
    parser.add_argument("--max-steps", type=int)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--resume", action="store_true")
    given = vars(parser.parse_args())
    config = given.pop("config")
    try:
        chosen, options = read_config(config), RunOptions(**given)
        options.out.mkdir(parents=True, exist_ok=True)
        Trainer(chosen, options, lambda text: print(text, flush=True)).run()
    except OasisError as error:
        print(f"error: {error}\nhint:  {error.hint}", file=sys.stderr)
        return error.exit_code
    finally:
        leave()
    return 0


if __name__ == "__main__":
    sys.exit(main())
