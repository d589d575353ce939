"""The registry's lines for a checkpoint that is to be released: python tools/registry_entry.py FILE

Prints what `oasis_cli/checkpoints/registry.toml` says of a file that can be read from it: SHA-256,
size, parameters, decoders and looks, under the name that the file gives itself. It writes nothing.
"""

import json
import math
import sys
from pathlib import Path
from typing import Any

from safetensors import safe_open

from oasis_cli.checkpoints.format import BESIDE, OTHERS, describe, looks, networks
from oasis_cli.checkpoints.registry import sha256
from oasis_cli.errors import OasisError


def facts(path: Path) -> dict[str, Any]:
    """Fields of the registry, as a checkpoint has them. Raises OasisError for what is none.

    Its parameters are those of the network with its own decoder.
    """
    decoders, named = list(networks(str(path))), list(looks(str(path)))
    with safe_open(path, "pt") as file:
        shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
    own = [shape for name, shape in shapes.items() if not name.startswith((BESIDE, OTHERS))]
    return {
        "sha256": sha256(path),
        "size": path.stat().st_size,
        "parameters": sum(map(math.prod, own)),
        "decoders": decoders,
        "looks": named,
    }


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(f"usage: python {sys.argv[0]} FILE.safetensors")
    path = Path(sys.argv[1])
    try:
        print(f"[{describe(str(path))['name']}]")
        for key, value in facts(path).items():
            print(f"{key} = {json.dumps(value)}")
    except OasisError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
