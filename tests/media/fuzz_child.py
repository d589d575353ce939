"""Run by test_fuzz: damage a file in many ways and put each result through the media layer."""

import importlib.util
import json
import random
import sys
from pathlib import Path
from types import ModuleType

from oasis_cli.errors import OasisError
from oasis_cli.media.output import EncodeOptions

TARGETS = ("out.mp4", "out.mkv", "out.mov", "out.nut")


def mutate(data: bytes, seed: int) -> bytes:
    """Flip bits, cut, or splice; a different way for each seed."""
    dice = random.Random(seed)
    found = bytearray(data)
    kind = seed % 5
    if kind in (0, 1):  # flips anywhere, or in the header only
        last = len(found) if kind == 0 else min(len(found), 600)
        for _ in range(dice.choice((1, 3, 20, 100))):
            found[dice.randrange(last)] ^= 1 << dice.randrange(8)
    elif kind == 2:  # cut at the end
        del found[dice.randrange(1, len(found)) :]
    elif kind == 3:  # a hole in the middle
        start = dice.randrange(len(found))
        del found[start : start + dice.randrange(1, 2000)]
    else:  # the end of one joined to the beginning of another
        start = dice.randrange(len(found))
        found = found[:start] + bytearray(data[dice.randrange(len(data)) :])
    return bytes(found)


def kit() -> ModuleType:
    """The test kit, which is no module that can be imported by name."""
    spec = importlib.util.spec_from_file_location("kit", Path(__file__).with_name("conftest.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main(source: Path, work: Path, seeds: int) -> None:
    tools = kit()
    data = source.read_bytes()
    for seed in range(seeds):
        broken = work / f"broken{source.suffix}"
        broken.write_bytes(mutate(data, seed))
        target = work / TARGETS[seed % len(TARGETS)]
        line = {"seed": seed, "frames": 0, "sentence": "", "exit": 0}
        try:
            preset = "ultrafast" if not target.name.endswith("nut") else None
            options = EncodeOptions(codec="libx264", preset=preset, overwrite=True)
            done = tools.enlarge(broken, target, scale=1, encode=options)
            line["frames"] = done.report.frames
            assert target.stat().st_size > 0
            target.unlink()
        except OasisError as error:
            line.update(sentence=str(error), exit=error.exit_code)
        broken.unlink()
        line["left"] = [p.name for p in work.iterdir()]
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
