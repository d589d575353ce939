"""The files below a folder."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path


def walk(
    top: Path, refused: Callable[[OSError], None] | None = None
) -> Iterator[tuple[Path, list[str], list[str]]]:
    """(folder, its folders, its files) from `top` down, as `os.walk`; what goes from the first list
    is left out.

    Links are followed. A folder that has several names, or lies in a loop of links, is walked once,
    under the last of its names. refused: told of each folder that cannot be listed.
    """
    seen: set[str] = set()
    for name, folders, files in os.walk(top, followlinks=True, onerror=refused):
        real = os.path.realpath(name)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders.sort(reverse=True)
        yield Path(name), folders, files
