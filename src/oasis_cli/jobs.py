"""Long jobs on disk: a work folder with a manifest and the finished segments.

    .out.mp4.oasis/               beside the target, or in --work-dir
        manifest.json             what is being made, from what; times, scenes, segments
        000000-000250.mkv         a segment; it exists if and only if it is complete
        lock                      held by the process that works on the job

Whoever renders the missing segments finishes the job: the same command again, several processes,
several machines.
"""

import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from oasis_cli import __version__
from oasis_cli.errors import MediaError, OasisError
from oasis_cli.media.atomic import commit
from oasis_cli.media.segments import encoder_threads
from oasis_cli.media.timeline import Timeline
from oasis_cli.plan import Plan
from oasis_cli.windows import WindowOptions

FORMAT = "oasis-job/1"
ENDS = 1 << 20
"""Bytes of the input's beginning and end that identify it."""

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
    if work_dir is None:
        return path.with_name(f".{path.name}.oasis")
    mark = hashlib.sha256(str(path.absolute()).encode()).hexdigest()[:8]
    return Path(work_dir) / f"{path.name}.{mark}.oasis"


def identity(plan: Plan, weights: str) -> dict[str, Any]:
    """Everything that decides the pixels and packets of the output.

    weights: hash of the model. A device counts by its kind: a GPU rounds differently from a CPU.
    """
    options, output = plan.options, plan.output
    reading = _plain(asdict(options.read))
    reading.pop("hwaccel", None)  # who decodes does not matter: decoding is exact
    return {
        "input": file_identity(Path(plan.source)),
        "weights": weights,
        "model": {
            "size": list(plan.size),
            "device": plan.device.type,
            "precision": plan.precision,
            "decoder": plan.decoder,
            "windows": asdict(options.windows),
            "heads": options.heads,
            "strength": options.strength,
            "color_fix": options.color_fix,
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


def file_identity(path: Path) -> dict[str, Any]:
    """Size, time and a hash of both ends: enough to notice any replaced or edited file."""
    about = path.stat()
    digest = hashlib.sha256()
    with path.open("rb") as file:
        digest.update(file.read(ENDS))
        if about.st_size > ENDS:
            file.seek(max(ENDS, about.st_size - ENDS))
            digest.update(file.read(ENDS))
    return {"size": about.st_size, "mtime_ns": about.st_mtime_ns, "ends": digest.hexdigest()}


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value, default=str))


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
        part = folder / "manifest.json.part"
        part.write_text(json.dumps(manifest))
        commit(part, folder / "manifest.json")
        return cls(folder, manifest)

    @classmethod
    def load(cls, folder: Path) -> "Job | None":
        """The job in a folder; None when it has no manifest yet."""
        path = folder / "manifest.json"
        try:
            manifest = json.loads(path.read_text())
            if manifest["format"] != FORMAT:
                raise ValueError(manifest["format"])
            return cls(folder, manifest)
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise MediaError(
                f"{path} cannot be read: {error}",
                hint="it was made by another version or damaged: --no-resume starts over",
            ) from error

    @property
    def windows(self) -> WindowOptions:
        """The windows it began with."""
        return WindowOptions(**self.manifest["identity"]["model"]["windows"])

    @property
    def precision(self) -> str:
        """The precision it began with."""
        return str(self.manifest["identity"]["model"]["precision"])

    @property
    def decoder(self) -> str:
        """The decoder it began with."""
        return str(self.manifest["identity"]["model"]["decoder"])

    def check(self, now: dict[str, Any]) -> None:
        """Refuse to continue with another input, other options or another model."""
        changed = list(_differences(self.manifest["identity"], _plain(now)))
        if changed:
            raise OasisError(
                f"{self.folder} holds an unfinished job with another {'; '.join(changed[:3])}",
                hint="run the command that began it, or pass --no-resume to start over",
            )

    def path(self, segment: Segment) -> Path:
        """The file of a segment."""
        return self.folder / segment.name

    def missing(self) -> list[Segment]:
        """The segments that are not there yet, in order."""
        return [segment for segment in self.segments if not self.path(segment).exists()]

    def forget_parts(self) -> None:
        """Remove what was being written when a process died."""
        for part in self.folder.glob("*.part*"):
            part.unlink(missing_ok=True)

    def to_json(self) -> dict[str, Any]:
        """For `oasis jobs`."""
        done = [s for s in self.segments if self.path(s).exists()]
        return {
            "folder": str(self.folder),
            "source": self.manifest["source"],
            "target": self.manifest["target"],
            "created": self.manifest["created"],
            "frames": len(self.timeline),
            "frames_done": sum(s.frames for s in done),
            "segments": len(self.segments),
            "segments_done": len(done),
            "bytes": sum(self.path(s).stat().st_size for s in done),
            "running": is_locked(self.folder),
        }


def _differences(before: Any, now: Any, name: str = "") -> Iterator[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        if name == "input" and before != now:
            yield f"input ({before['size']} bytes then, {now['size']} bytes now)"
            return
        for key in {**before, **now}:
            yield from _differences(before.get(key), now.get(key), key)
    elif before != now:
        shown = [str(v)[:16] if name == "weights" else str(v) for v in (before, now)]
        yield f"{name} ({shown[0]} then, {shown[1]} now)"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Work on a job alone. The lock goes away with its process, however that ends."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as file:
        if not _lock(file):
            raise OasisError(
                f"another process is working on {folder}",
                hint="wait for it, or write to another target",
            )
        yield


def is_locked(folder: Path) -> bool:
    """Whether somebody works on the job now."""
    try:
        with (folder / "lock").open("r+") as file:
            return not _lock(file)
    except FileNotFoundError:
        return False


def _lock(file: IO[str]) -> bool:
    """Lock an open file until it is closed; False when another process holds it."""
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def remove(folder: Path) -> None:
    """Delete a job and its segments."""
    shutil.rmtree(folder, ignore_errors=True)


def find(folder: Path) -> list[Path]:
    """The work folders in `folder`, not deeper."""
    if folder.name.endswith(".oasis") and (folder / "manifest.json").exists():
        return [folder]
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise OasisError(f"{folder} cannot be listed: {error.strerror}") from error
    return [folder / n for n in names if n.endswith(".oasis") and (folder / n).is_dir()]
