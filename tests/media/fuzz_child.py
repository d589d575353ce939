"""Run by test_fuzz: damage files in many ways and put each result through the media layer.

fuzz_child.py WORK FIRST LAST SOURCE...   writes one line of JSON for each damaged file
"""

import gc
import importlib.util
import json
import os
import random
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType

from oasis_cli.errors import OasisError
from oasis_cli.media.output.plan import EncodeOptions

TARGETS = ("out.mp4", "out.mkv", "out.mov", "out.nut")
EXTREMES = (b"\xff", b"\x00", b"\x7f\xff", b"\xff\xff", b"\x7f\xff\xff\xff", b"\xff\xff\xff\xff",
            b"\x80\x00\x00\x00", b"\xff\xff\xff\x7f", b"\x7f" + 7 * b"\xff", 8 * b"\xff",
            b"\x00\x00\x00\x00", b"\x3e\x80\x3e\x80", b"\x80\x3e\x80\x3e")  # fmt: skip
"""Numbers that sizes, counts and times do not like; the last two are 16000x16000."""
WAYS = 8


def mutate(data: bytes, seed: int) -> bytes:
    """Flip bits, cut, splice, repeat or write extreme numbers; another way for each seed."""
    dice = random.Random(seed)
    found = bytearray(data)
    kind = seed % WAYS
    if kind in (0, 1):  # flips anywhere, or in the header only
        last = len(found) if kind == 0 else min(len(found), 600)
        for _ in range(dice.choice((1, 3, 20, 100))):
            found[dice.randrange(last)] ^= 1 << dice.randrange(8)
    elif kind == 2:  # cut at the end
        del found[dice.randrange(1, len(found)) :]
    elif kind == 3:  # a hole in the middle
        start = dice.randrange(len(found))
        del found[start : start + dice.randrange(1, 2000)]
    elif kind == 4:  # the end of one joined to the beginning of another
        start = dice.randrange(len(found))
        found = found[:start] + bytearray(data[dice.randrange(len(data)) :])
    elif kind in (5, 6):  # extreme numbers anywhere, or in the header only
        last = len(found) if kind == 5 else min(len(found), 600)
        for _ in range(dice.choice((1, 2, 5))):
            number, start = dice.choice(EXTREMES), dice.randrange(last)
            found[start : start + len(number)] = number
    else:  # a part that comes twice
        start = dice.randrange(len(found))
        found[start:start] = found[start : start + dice.randrange(1, 4000)]
    return bytes(found)


def kit() -> ModuleType:
    """The test kit, which is no module that can be imported by name."""
    spec = importlib.util.spec_from_file_location("kit", Path(__file__).with_name("conftest.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def forget_peak() -> None:
    """Let the most memory count from now on."""
    if sys.platform == "linux":
        Path("/proc/self/clear_refs").write_text("5")


def peak() -> int:
    """The most memory since then, in bytes; 0 where nobody says."""
    if sys.platform != "linux":
        return 0
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


@contextmanager
def through(path: Path, *, piped: bool) -> Iterator[str]:
    """The name of the file, or of a pipe that it is written to."""
    if not piped:
        yield str(path)
        return
    reading, writing = os.pipe()

    def feed() -> None:
        with suppress(BrokenPipeError), os.fdopen(writing, "wb", 0) as pipe:
            pipe.write(path.read_bytes())

    thread = threading.Thread(target=feed, daemon=True)
    thread.start()
    try:
        yield f"/dev/fd/{reading}"
    finally:
        os.close(reading)  # oasis has closed its own end
        gc.collect()
        thread.join(5)


def main(work: Path, first: int, last: int, sources: list[Path]) -> None:
    tools = kit()
    for number in range(first, last):
        source, seed = sources[number % len(sources)], number // len(sources)
        broken = work / f"broken{source.suffix}"
        broken.write_bytes(mutate(source.read_bytes(), seed))
        target = work / TARGETS[seed % len(TARGETS)]
        line = {"number": number, "kind": source.suffix, "seed": seed, "frames": 0, "exit": 0,
                "sentence": "", "bug": ""}  # fmt: skip
        began = time.monotonic()
        forget_peak()
        try:
            preset = "ultrafast" if not target.name.endswith("nut") else None
            options = EncodeOptions(codec="libx264", preset=preset, overwrite=True)
            with through(broken, piped=seed % 3 == 2 and sys.platform == "linux") as name:
                done = tools.enlarge(name, target, scale=1, encode=options)
            line["frames"] = done.report.frames
            assert target.stat().st_size > 0
            target.unlink()
        except OasisError as error:
            line.update(sentence=str(error), exit=error.exit_code)
        except Exception:
            line["bug"] = traceback.format_exc()
        broken.unlink()
        line["left"] = [p.name for p in work.iterdir()]
        for path in work.iterdir():
            path.unlink()
        line |= {"memory": peak(), "seconds": round(time.monotonic() - began, 1)}
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), [Path(p) for p in sys.argv[4:]])
