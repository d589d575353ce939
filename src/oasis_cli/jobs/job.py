"""Long jobs on disk: a work folder with a manifest and the finished segments.

    .out.mp4.oasis/               beside the target, or in --work-dir
        manifest.json             what is being made, from what; times, scenes, segments
        0000000-0000250.mkv       a segment; it exists if and only if it is complete
        lock                      held by the process that works on the job

Whoever renders the missing segments finishes the job: the same command again, several processes,
several machines.
"""

import hashlib
import json
import os
import stat
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from oasis_cli import __version__
from oasis_cli.errors import MediaError, OasisError, UsageError
from oasis_cli.jobs.manifest import FORMAT, MANIFEST, differences, read_manifest
from oasis_cli.media import locks
from oasis_cli.media.atomic import discard, write_whole
from oasis_cli.media.info import MediaInfo
from oasis_cli.media.output.segments import encoder_threads
from oasis_cli.media.timeline import Timeline
from oasis_cli.pipeline.plan import Plan
from oasis_cli.pipeline.torch_backend import TORCH
from oasis_cli.pipeline.windows import WindowOptions

ENDS = 1 << 20
"""Bytes of the input's beginning and end that identify it."""

LOCK = "lock"

LONGEST_NAME = 200
"""Bytes of a target's name that its folder is called after."""

SHORTEST_SECONDS = 2.0
"""Shorter segments cost quality: encoders look ahead."""


@dataclass(frozen=True, slots=True)
class Segment:
    """Frames [start, stop) of the output."""

    start: int
    stop: int

    @property
    def frames(self) -> int:
        """How many."""
        return self.stop - self.start

    @property
    def name(self) -> str:
        """The name of its file."""
        return f"{self.start:07d}-{self.stop:07d}.mkv"


def split(scenes: Sequence[int], total: int, goal: int, shortest: int) -> list[Segment]:
    """Cut `total` frames into segments of about `goal` frames, at scene cuts where there are any.

    No segment is shorter than `shortest`, but for the only one of a short video.

    >>> [(s.start, s.stop) for s in split([0, 90, 230], 400, 100, 50)]
    [(0, 90), (90, 190), (190, 290), (290, 400)]
    """
    shortest = min(shortest, goal)
    segments: list[Segment] = []
    start = 0
    while total - start >= goal + shortest:
        cuts = [at for at in scenes if start + max(shortest, goal // 2) <= at <= start + goal]
        stop = max(cuts, default=start + goal)
        segments.append(Segment(start, stop))
        start = stop
    if total > start:
        segments.append(Segment(start, total))
    return segments


def runs(segments: Iterable[Segment]) -> list[list[Segment]]:
    """Group neighbours: rendered in one go, they share their windows.

    >>> [len(r) for r in runs([Segment(0, 5), Segment(5, 9), Segment(20, 30)])]
    [2, 1]
    """
    groups: list[list[Segment]] = []
    for segment in segments:
        if groups and groups[-1][-1].stop == segment.start:
            groups[-1].append(segment)
        else:
            groups.append([segment])
    return groups


def folder_for(target: str, work_dir: str | None) -> Path:
    """Where the job of a target lives."""
    path = Path(target)
    name = short_name(path.name)
    if work_dir is None:
        return path.parent / f".{name}.oasis"
    mark = hashlib.sha256(os.fsencode(path.absolute())).hexdigest()[:8]
    return Path(work_dir) / f"{name}.{mark}.oasis"


def short_name(name: str) -> str:
    """A name with room for what stands around it: file systems take 255 bytes.

    >>> short_name("out.mp4"), short_name("x" * 250 + ".mp4")[190:]
    ('out.mp4', 'xxxxxxxxxx~0ddbe18c')
    """
    data = os.fsencode(name)
    if len(data) <= LONGEST_NAME:
        return name
    mark = hashlib.sha256(data).hexdigest()[:8]
    return f"{data[:LONGEST_NAME].decode(errors='ignore')}~{mark}"


def identity(plan: Plan, weights: str) -> dict[str, Any]:
    """Everything that decides the pixels and packets of the output.

    weights: hash of the model. A device counts by its kind: a GPU rounds differently from a CPU.
    Raises UsageError when the head table cannot be read.
    """
    options, output = plan.options, plan.output
    reading = _plain(asdict(options.read))
    reading.pop("hwaccel", None)  # who decodes does not matter: decoding is exact
    return {
        "version": __version__,
        "input": input_identity(plan.info),
        "weights": weights,
        "model": {
            "size": list(plan.size),
            "device": plan.device.type,
            "precision": plan.precision,
            "decoder": plan.decoder,
            "windows": asdict(options.windows),
            "heads": heads_hash(options.heads),
            "strength": options.strength,
            "color_fix": options.color_fix,
            **({} if plan.backend == TORCH else {"backend": plan.backend.name}),
        },
        "reading": reading,
        "encoding": {
            "codec": output.codec,
            "options": dict(output.options),
            "pix_fmt": output.spec.pix_fmt,
            "container": output.muxer,
            "streams": [stream.fate for stream in output.streams],
        },
    }


def heads_hash(path: str | None) -> str | None:
    """SHA-256 of a head table; None for the checkpoint's own. Raises UsageError."""
    if path is None:
        return None
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError as error:
        raise UsageError(
            f"the head table {path} cannot be read: {error.strerror or error}",
            hint="check the spelling",
        ) from error


def input_identity(info: MediaInfo) -> dict[str, Any]:
    """`file_identity` of an input, which may be many pictures. Raises MediaError without it."""
    try:
        if not info.files:
            return file_identity(Path(info.path))
        each = [file_identity(Path(path)) for path in info.files]
    except OSError as error:
        raise MediaError(f"{info.path} cannot be read: {error.strerror or error}") from error
    return {
        "size": sum(about["size"] for about in each),
        "mtime_ns": max(about["mtime_ns"] for about in each),
        "ends": hashlib.sha256(json.dumps(each).encode()).hexdigest(),
    }


def file_identity(path: Path) -> dict[str, Any]:
    """Size, time and a hash of both ends: enough to notice any replaced or edited file."""
    about = path.stat()
    digest = hashlib.sha256()
    with path.open("rb") as file:
        digest.update(file.read(ENDS))
        file.seek(max(ENDS, about.st_size - ENDS))
        digest.update(file.read(ENDS))
    return {"size": about.st_size, "mtime_ns": about.st_mtime_ns, "ends": digest.hexdigest()}


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value, default=str))


class Busy(OasisError):
    """Another process works on the job."""


class Job:
    """One work folder."""

    def __init__(self, folder: Path, manifest: dict[str, Any]) -> None:
        self.folder = folder
        self.manifest = manifest
        self.timeline = Timeline.from_json(manifest["timeline"])
        self.scenes: list[int] = manifest["scenes"]
        self.segments = [Segment(*pair) for pair in manifest["segments"]]
        self.encoder_threads: int = manifest["encoder_threads"]
        """Of the machine where the job began: packets depend on them."""

    @classmethod
    def create(
        cls,
        folder: Path,
        plan: Plan,
        identity: dict[str, Any],
        *,
        timeline: Timeline,
        scenes: list[int],
        segments: list[Segment],
        seekable: bool,
        warnings: list[str],
    ) -> "Job":
        """Write the manifest of a new job. From here on it can be resumed."""
        manifest = {
            "format": FORMAT,
            "version": __version__,
            "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "source": str(Path(plan.source).absolute()),
            "target": str(Path(plan.target).absolute()),
            "identity": identity,
            "timeline": timeline.to_json(),
            "scenes": scenes,
            "segments": [[s.start, s.stop] for s in segments],
            "encoder_threads": encoder_threads(),
            "seekable": seekable,
            "warnings": warnings,
        }
        write_whole(folder / MANIFEST, json.dumps(manifest).encode())
        return cls(folder, manifest)

    @classmethod
    def load(cls, folder: Path) -> "Job | None":
        """The job in a folder; None when it has no manifest. Raises MediaError for a bad one."""
        manifest = read_manifest(folder / MANIFEST)
        return None if manifest is None else cls(folder, manifest)

    @property
    def windows(self) -> WindowOptions:
        """The windows it began with."""
        return WindowOptions(**self.manifest["identity"]["model"]["windows"])

    @property
    def weights(self) -> str:
        """SHA-256 of the checkpoint it began with."""
        return str(self.manifest["identity"]["weights"])

    @property
    def precision(self) -> str:
        """The precision it began with."""
        return str(self.manifest["identity"]["model"]["precision"])

    @property
    def decoder(self) -> str:
        """The decoder it began with."""
        return str(self.manifest["identity"]["model"]["decoder"])

    def check(self, now: dict[str, Any]) -> None:
        """Refuse to continue with another program, input or model, or with other options."""
        begun_by = self.manifest["version"]
        if begun_by != __version__:
            raise OasisError(
                f"{self.folder} holds a job that oasis {begun_by} began; this is oasis "
                f"{__version__}, whose pictures may look different",
                hint=f"finish it with oasis {begun_by}, or pass --no-resume to start over",
            )
        changed = list(differences(self.manifest["identity"], _plain(now)))
        if changed:
            raise OasisError(
                f"{self.folder} holds an unfinished job with another {'; '.join(changed[:3])}",
                hint="run the command that began it, or pass --no-resume to start over",
            )

    def check_input(self, now: dict[str, Any]) -> None:
        """Refuse to go on with an input that is another one than the job's: it was replaced."""
        if now != self.manifest["identity"]["input"]:
            raise MediaError(
                f"{self.manifest['source']} was replaced or edited while it was being upscaled",
                hint="put it back and run the same command, or start over with --no-resume",
            )

    def check_frames(self, info: MediaInfo) -> None:
        """The same for frames that were just read, by what is quickly seen: size and time.

        info: of the file they are from. A copy, as on a node of a cluster, says nothing.
        """
        if info.files or str(Path(info.path).absolute()) != self.manifest["source"]:
            return
        with suppress(FileNotFoundError):  # joining needs it and will say so
            about, known = os.stat(info.path), self.manifest["identity"]["input"]
            self.check_input(known | {"size": about.st_size, "mtime_ns": about.st_mtime_ns})

    def path(self, segment: Segment) -> Path:
        """The file of a segment."""
        return self.folder / segment.name

    def size(self, segment: Segment) -> int | None:
        """Bytes of a segment; None where it is not there, or a link to a file of somebody's."""
        with suppress(OSError):
            about = self.path(segment).lstat()
            return about.st_size if stat.S_ISREG(about.st_mode) else None
        return None

    def missing(self) -> list[Segment]:
        """The segments that are not there yet, in order."""
        return [segment for segment in self.segments if self.size(segment) is None]

    def forget_parts(self) -> None:
        """Remove what was being written when a process died."""
        for pattern in (".oasis-*.part*", "*.part"):
            for part in self.folder.glob(pattern):
                discard(part)

    def to_json(self) -> dict[str, Any]:
        """For `oasis jobs`."""
        sizes = {s: size for s in self.segments if (size := self.size(s)) is not None}
        return {
            "folder": str(self.folder),
            "source": self.manifest["source"],
            "target": self.manifest["target"],
            "created": self.manifest["created"],
            "frames": len(self.timeline),
            "frames_done": sum(s.frames for s in sizes),
            "segments": len(self.segments),
            "segments_done": len(sizes),
            "bytes": sum(sizes.values()),
            "running": is_locked(self.folder),
        }


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Work on a job alone. The lock goes away with its process, however that ends; where nothing is
    left but the lock, the folder goes with it, before anybody else can begin there.

    Raises MediaError where the folder cannot be made or is a link, Busy when another process has
    the lock.
    """
    lock = _take(folder)
    if lock is None:
        raise Busy(
            f"another process is working on {folder}",
            hint="wait for it, or write to another target",
        )
    over = False
    try:
        yield
    finally:
        with suppress(OSError):
            over = os.listdir(folder) == [LOCK]
        lock.release(remove=over)
        if over:
            with suppress(OSError):  # somebody may have begun there by now
                folder.rmdir()


def _take(folder: Path) -> locks.Lock | None:
    began = time.monotonic()
    while True:
        if folder.is_symlink():
            raise MediaError(
                f"{folder} is a link: oasis did not make it, and does not write there",
                hint="remove it; --work-dir puts the segments on another disk",
            )
        try:
            folder.mkdir(parents=True, exist_ok=True)
            return locks.take(folder / LOCK)
        except OSError as error:
            gone = isinstance(error, FileExistsError | FileNotFoundError)
            if not gone or _is_no_folder(folder) or time.monotonic() - began > locks.PATIENCE:
                raise MediaError(f"{folder} cannot be used: {error.strerror or error}") from error
            time.sleep(0.001)  # another run was over just now, and removed it


def _is_no_folder(path: Path) -> bool:
    """Whether something else lies there. Asked at once: it may be removed at any moment."""
    with suppress(OSError):
        return not stat.S_ISDIR(path.stat().st_mode)
    return False


def is_locked(folder: Path) -> bool:
    """Whether somebody works on the job now. Keeps nobody from beginning to."""
    return locks.is_held(folder / LOCK)


def remove(folder: Path) -> None:
    """Delete a job and its segments, for who has `locked` it: the folder goes with the lock."""
    for name in set(os.listdir(folder)) - {LOCK}:
        with suppress(OSError):
            discard(folder / name)


def find_jobs(folder: Path) -> list[Path]:
    """The work folders in `folder`, not deeper; links are none."""
    if folder.name.endswith(".oasis") and (folder / MANIFEST).exists():
        return [folder]
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise OasisError(f"{folder} cannot be listed: {error.strerror}") from error
    found = [folder / name for name in names if name.endswith(".oasis")]
    return [path for path in found if path.is_dir() and not path.is_symlink()]
