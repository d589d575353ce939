"""Render segments as tasks of an existing Ray cluster.

Ray schedules, retries after a node is lost, and hands out GPUs; each task is one `render`. Nodes
that see the input and the job's folder under the same path use them; otherwise the input, the
checkpoint, the head table and the finished segments travel through Ray's object store.
"""

import hashlib
import logging
import os
import signal
import socket
import tempfile
import threading
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from oasis_cli import __version__
from oasis_cli.checkpoints.registry import registry
from oasis_cli.errors import MediaError, OasisError
from oasis_cli.jobs.job import Job, Segment, input_identity
from oasis_cli.jobs.render import render
from oasis_cli.media.atomic import discard, temporary_beside, write_whole
from oasis_cli.media.info import MediaInfo
from oasis_cli.pipeline.plan import Plan
from oasis_cli.pipeline.run import ProgressMeter, Report, load, make_runner
from oasis_cli.pipeline.threads import TICK, Stop
from oasis_cli.pipeline.window_runner import WindowRunner
from oasis_cli.runtime.devices import capabilities

RETRIES = 3
"""Times Ray may run a segment again after a node or a worker was lost."""

REACH_SECONDS = 5.0

CHUNK = 64 << 20
"""Bytes of a file in one object of the store."""


@dataclass(frozen=True, slots=True)
class Parcel:
    """A file that travels through the object store, in pieces."""

    name: str
    digest: str
    pieces: tuple[Any, ...]
    """References to the pieces; Ray frees them when the run ends."""


@dataclass(frozen=True, slots=True)
class Task:
    """What a node needs to know of a job. `None` parcels: the node reads the path itself."""

    plan: Plan
    folder: str
    manifest: dict[str, Any]
    version: str
    source: Parcel | None
    weights: Parcel | None
    heads: Parcel | None


def render_on_cluster(
    job: Job, plan: Plan, address: str, meter: ProgressMeter, report: Report, stop: Stop
) -> None:
    """Render the missing segments on the cluster at `address`. Raises when one cannot be made."""
    ray = connect(address)
    try:
        task = _pack(ray, job, plan)
        if task.source is not None:
            report({"event": "note", "text": "the input travels through Ray's object store"})
        on_gpu = not capabilities(plan.device).host
        remote = ray.remote(
            num_cpus=1,
            num_gpus=1 if on_gpu else 0,
            max_retries=RETRIES,
            scheduling_strategy="SPREAD",
        )(render_remotely)
        handle = ray.put(task)
        pending = {remote.remote(handle, segment): segment for segment in job.missing()}
        try:
            _collect(ray, pending, job, meter, stop)
        finally:
            for reference in pending:
                with suppress(Exception):  # the cluster may be gone
                    ray.cancel(reference, force=True)
    finally:
        ray.shutdown()


def _collect(
    ray: Any, pending: dict[Any, Segment], job: Job, meter: ProgressMeter, stop: Stop
) -> None:
    while pending:
        stop.check()
        done, _ = ray.wait(list(pending), timeout=TICK)
        for reference in done:
            segment = pending.pop(reference)
            try:
                data = ray.get(reference)
            except ray.exceptions.RayTaskError as error:
                cause = error.cause
                if isinstance(cause, OasisError):
                    raise cause from error
                raise
            except ray.exceptions.RayError as error:
                raise MediaError(
                    f"frames {segment.start} to {segment.stop} were lost with their node, "
                    f"{RETRIES + 1} times",
                    hint="the finished segments are kept; the same command continues",
                ) from error
            if data is not None:
                write_whole(job.path(segment), data)
            meter.tick("model", segment.frames)


def connect(address: str) -> Any:
    """The `ray` module, connected to an existing cluster. Raises OasisError."""
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError as error:
        raise OasisError(
            "Ray is not installed", hint="pip install 'oasis-cli[ray]', here and on every node"
        ) from error
    _check_reachable(address)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise _no_cluster(address, str(error).splitlines()[0]) from error
    if threading.current_thread() is threading.main_thread():
        for number, handler in handlers.items():  # Ray puts its own in their place
            signal.signal(number, handler)
    return ray


def _check_reachable(address: str) -> None:
    """Ray itself tries for minutes to reach a host that is not there."""
    host, _, port = address.rpartition(":")
    if not port.isdigit() or "://" in address:
        return
    try:
        socket.create_connection((host, int(port)), REACH_SECONDS).close()
    except OSError as error:
        raise _no_cluster(address, error.strerror or str(error)) from error


def _no_cluster(address: str, why: str) -> OasisError:
    return OasisError(
        f"there is no Ray cluster at {address}: {why}",
        hint="start one with `ray start --head`, or pass --address HOST:PORT",
    )


def _pack(ray: Any, job: Job, plan: Plan) -> Task:
    source = Path(plan.source).absolute()
    files = tuple(path.absolute() for path in plan.info.files)
    info = replace(plan.info, path=str(source), files=files)
    absolute = replace(plan, source=str(source), info=info)
    folder = job.folder.absolute()
    shared = _all_nodes_see(ray, info, folder)
    if files and not shared:
        raise MediaError(
            f"the nodes do not all see {source} and {folder}, and pictures do not travel",
            hint="put them where every node has them under the same path, or make a video of them",
        )
    weights, heads = _own_weights(plan.options.model), plan.options.heads
    return Task(
        plan=absolute,
        folder=str(folder),
        manifest=job.manifest,
        version=__version__,
        source=None if shared else _parcel(ray, source),
        weights=_parcel(ray, weights.absolute()) if weights else None,
        heads=_parcel(ray, Path(heads).absolute()) if heads else None,
    )


def _own_weights(model: str) -> Path | None:
    """A checkpoint that nodes need not have: a user's file, or one that was fetched."""
    entry = registry().get(model)
    path = Path(model) if entry is None else None if entry.ships else entry.path
    return path if path is not None and path.is_file() else None


def _all_nodes_see(ray: Any, info: MediaInfo, folder: Path) -> bool:
    """Whether every node has the same input and job folder under the same path."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    mark = temporary_beside(folder / "seen-by-driver")
    wanted = input_identity(info)
    look = ray.remote(num_cpus=0)(_sees)
    nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
    answers = [
        look.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(
            info, str(mark), wanted
        )
        for node in nodes
    ]
    try:
        return all(ray.get(answers))
    finally:
        discard(mark)


def _sees(info: MediaInfo, mark: str, wanted: dict[str, Any]) -> bool:
    try:
        return Path(mark).exists() and input_identity(info) == wanted
    except (OSError, MediaError):
        return False


def _parcel(ray: Any, path: Path) -> Parcel:
    pieces, digest = [], hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(CHUNK):
            digest.update(piece)
            pieces.append(ray.put(piece))
    return Parcel(path.name, digest.hexdigest(), tuple(pieces))


def render_remotely(task: Task, segment: Segment) -> bytes | None:
    """On a node: render one segment. Returns the file, or None when it lies in the job's folder."""
    if task.version != __version__:
        raise OasisError(
            f"a node has oasis {__version__}, this machine has {task.version}",
            hint="install the same version everywhere",
        )
    plan = task.plan
    if task.source is None:
        render(Job(Path(task.folder), task.manifest), plan, [segment], _ready(task), Stop(), _quiet)
        return None
    source = _unpack(task.source)
    plan = replace(plan, source=str(source), info=replace(plan.info, path=str(source)))
    with tempfile.TemporaryDirectory(prefix="oasis-") as folder:
        job = Job(Path(folder), task.manifest)
        render(job, plan, [segment], _ready(task), Stop(), _quiet)
        return job.path(segment).read_bytes()


def _quiet(limiting: str) -> None:
    """Progress comes from finished segments."""


_runners: dict[tuple[Any, ...], WindowRunner] = {}
"""Ray keeps worker processes: the model stays loaded between the segments of a job."""


def _ready(task: Task) -> WindowRunner:
    plan = task.plan
    if task.weights is not None:
        path = str(_unpack(task.weights))
        plan = replace(plan, options=replace(plan.options, model=path))
    if task.heads is not None:
        path = str(_unpack(task.heads))
        plan = replace(plan, options=replace(plan.options, heads=path))
    if not capabilities(plan.device).host:
        plan = replace(plan, devices=(plan.device.type,))  # Ray shows a task its own GPU only
    else:
        import torch

        torch.set_num_threads(1)  # a task takes one CPU
    options = plan.options
    key = (plan.backend, options.model, plan.size, plan.precision, plan.decoder, options.windows,
           options.strength, options.color_fix, options.heads, options.tile)  # fmt: skip
    if key not in _runners:
        _runners.clear()
        _runners[key] = make_runner(plan, load(plan), lambda event: None)
    return _runners[key]


def _unpack(parcel: Parcel) -> Path:
    """The parcel as a file of this node, written once for each process."""
    import ray

    path = _folder() / f"{parcel.digest[:16]}{Path(parcel.name).suffix[:16]}"
    if not path.exists():
        part = path.with_name(f"{path.name}.part")
        with part.open("wb") as file:
            for piece in parcel.pieces:
                file.write(ray.get(piece))
        part.rename(path)
    return path


@lru_cache(maxsize=1)
def _folder() -> Path:
    import atexit
    import shutil

    folder = tempfile.mkdtemp(prefix="oasis-node-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)
