"""Which files of a folder are videos to do, and where each one's output goes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from oasis_cli.errors import OasisError, UsageError
from oasis_cli.media.files import walk

KEPT = {".mp4", ".mkv", ".mov", ".webm", ".m4v", ".ts"}
"""Suffixes that the output keeps."""

VIDEOS = KEPT | {
    ".3gp", ".asf", ".avi", ".divx", ".dv", ".f4v", ".flv", ".h264", ".h265", ".hevc", ".m2ts",
    ".m2v", ".mj2", ".mpe", ".mpeg", ".mpg", ".mts", ".mxf", ".nut", ".ogm", ".ogv", ".rm",
    ".rmvb", ".vob", ".wmv", ".y4m",
}  # fmt: skip
"""Suffixes of videos; --include takes any other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderOptions:
    """Which files, and how to name their outputs."""

    recursive: bool = False
    include: tuple[str, ...] = ()
    """Globs of names or of paths inside the folder; all videos when empty."""
    exclude: tuple[str, ...] = ()
    suffix: str = ""
    """Put between the name and its extension."""
    extension: str | None = None
    """Of all outputs, such as ".mkv"; the input's own, or .mkv, when None."""
    shard: tuple[int, int] = (1, 1)
    """(i, n): only every n-th file, from the i-th on, counted from 1."""


@dataclass(frozen=True, slots=True)
class Item:
    """A file to do."""

    source: Path
    target: Path


@dataclass(frozen=True, slots=True)
class Problem:
    """Something in the tree that cannot be read."""

    path: Path
    sentence: str


def parse_shard(text: str) -> tuple[int, int]:
    """ "2/8" -> (2, 8).

    >>> parse_shard("2/8")
    (2, 8)
    """
    first, _, count = text.partition("/")
    if not (first.isdigit() and count.isdigit() and 1 <= int(first) <= int(count)):
        raise UsageError(f"{text!r} is not a shard", hint="write i/n, from 1/n to n/n")
    return int(first), int(count)


def find_items(
    source: Path, target: Path, options: FolderOptions
) -> tuple[list[Item], list[Problem]]:
    """The videos below `source` in order, with their outputs below `target`."""
    if not source.is_dir():
        if source.exists():
            raise UsageError(f"{source} is not a folder", hint="`oasis upscale` takes one file")
        from oasis_cli.media.faults import missing_hint

        raise UsageError(f"{source} does not exist", hint=missing_hint(source))
    if target.exists() and not target.is_dir():
        raise UsageError(f"{target} is a file, not a folder", hint="choose another folder")
    if target.exists() and source.samefile(target):
        raise UsageError(
            "the outputs would lie between the inputs", hint="choose another folder for them"
        )
    if Path(f"a{options.suffix}").name != f"a{options.suffix}":
        raise UsageError(
            f"the suffix {options.suffix} would put outputs into other folders",
            hint="leave out the slash: -x4",
        )
    if not target.parent.is_dir():
        raise UsageError(f"the folder {target.parent} does not exist", hint="make it first")
    problems: list[Problem] = []
    files = [
        path
        for path in sorted(_files(source, target, options.recursive, problems))
        if _wanted(path.relative_to(source), options)
    ]
    if not source.exists():
        raise OasisError(f"{source} went away")
    for path in [path for path in files if path.exists() and not path.is_file()]:
        files.remove(path)
        problems.append(Problem(path, f"{path} is a pipe or a device, not a file"))
    first, count = options.shard
    items = [Item(f, t) for f, t in zip(files, _targets(files, source, target, options),
                                        strict=True)]  # fmt: skip
    return items[first - 1 :: count], problems


def _files(source: Path, target: Path, recursive: bool, problems: list[Problem]) -> Iterator[Path]:
    """Every file that is not hidden and no output."""
    outputs = target.resolve()

    def refused(error: OSError) -> None:
        folder = Path(error.filename)
        problems.append(Problem(folder, f"{folder} cannot be listed: {error.strerror}"))

    for folder, folders, names in walk(source, refused):
        folders[:] = [
            name
            for name in folders
            if recursive and not name.startswith(".") and (folder / name).resolve() != outputs
        ]
        yield from (folder / name for name in names if not name.startswith("."))


def _wanted(path: Path, options: FolderOptions) -> bool:
    def matches(patterns: Sequence[str]) -> bool:
        return any(fnmatch(path.name, p) or fnmatch(str(path), p) for p in patterns)

    if matches(options.exclude):
        return False
    return matches(options.include) if options.include else path.suffix.lower() in VIDEOS


def _targets(files: list[Path], source: Path, target: Path, options: FolderOptions) -> list[Path]:
    """Where each output goes. Names that would collide keep their whole old name."""
    names = [path.relative_to(source) for path in files]
    short = [_target(name, target, options, whole=False) for name in names]
    counts: dict[str, int] = {}
    for path in short:
        key = str(path).casefold()  # some disks see no difference
        counts[key] = counts.get(key, 0) + 1
    taken: set[str] = set()
    targets = []
    for name, path in zip(names, short, strict=True):
        if counts[str(path).casefold()] > 1:
            path = _target(name, target, options, whole=True)
        number, free = 2, path
        while str(free).casefold() in taken:
            number, free = number + 1, path.with_stem(f"{path.stem}-{number}")
        taken.add(str(free).casefold())
        targets.append(free)
    return targets


def _target(path: Path, target: Path, options: FolderOptions, *, whole: bool) -> Path:
    kept = path.suffix.lower() in KEPT
    extension = options.extension or (path.suffix if kept else ".mkv")
    stem = path.name if whole else path.stem
    return target / path.parent / f"{stem}{options.suffix}{extension}"
