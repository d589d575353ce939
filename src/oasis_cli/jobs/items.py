"""Work through the files of a batch in this process: one after another, or several at a time.

What is done is remembered in DST/.oasis-batch, one small file for each output: a second run skips
what is still valid, several machines can share a folder, and nothing has to be locked.
"""

import json
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import uuid4

from oasis_cli import __version__
from oasis_cli.checkpoints.format import FAITHFUL, check_trained
from oasis_cli.checkpoints.registry import AUTO, by_role, content_hash, find
from oasis_cli.errors import Interrupted, OasisError, UsageError
from oasis_cli.jobs.execute import JobOptions, carry_out, left_to_job, waiting_job
from oasis_cli.jobs.folders import FolderOptions, Item
from oasis_cli.jobs.job import heads_hash, short_name
from oasis_cli.jobs.scout import probe_safely
from oasis_cli.media.atomic import write_whole
from oasis_cli.pipeline.model_choice import ModelChoice
from oasis_cli.pipeline.plan import (
    Options,
    Plan,
    choose_model_for,
    known_networks,
    make_plan,
)
from oasis_cli.pipeline.run import Report
from oasis_cli.pipeline.threads import TICK, Stop
from oasis_cli.runtime.backend import Model
from oasis_cli.runtime.devices import choose_devices, settle_precision
from oasis_cli.upscaler import Upscaler


@dataclass(frozen=True, slots=True, kw_only=True)
class FileResult:
    """What became of one file."""

    source: str
    target: str
    status: str
    """done, skipped (it was done before and nothing changed) or failed"""
    frames: int = 0
    seconds: float = 0.0
    error: str = ""
    hint: str = ""
    warnings: tuple[str, ...] = ()
    made_by: str = ""
    """Of what was skipped: the version of the program that made it, where it is known."""

    def to_json(self) -> dict[str, Any]:
        """The "file" event."""
        return {"event": "file", **asdict(self)}


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchOptions:
    """How to go through the files."""

    folders: FolderOptions
    upscale: Options
    jobs: JobOptions
    parallel: int = 1
    """Files at a time; they share one model."""
    settle: float = 3.0
    """Watching: seconds that a file must not have changed."""
    model: ModelChoice | None = None
    """For all files; None chooses it when the first begins."""
    apart: bool = False
    """In a process of its own, so that a file that ends it does not end the batch."""
    run: str = field(default_factory=lambda: uuid4().hex)
    """What records call this run: its own files are not those that were done before."""


def models_of(options: BatchOptions) -> Callable[[Plan], Model]:
    """Loads the model on first use, once for all files that need it in the same form: short memory
    may have chosen another precision or decoder for one."""
    return Upscaler(options.upscale).model_for


def with_model(options: BatchOptions) -> BatchOptions:
    """The options with a model that is one and the same for all files: what is free of a GPU's
    memory changes while they are made. Raises UsageError."""
    return replace(options, model=options.model or choose_model_for(options.upscale))


def check_model(options: BatchOptions) -> None:
    """Refuse at once what every file would fail at. Raises UsageError or WeightsError."""
    assert options.model is not None
    upscale = options.upscale.with_model(options.model.name)
    check_trained(upscale.model)
    known_networks(upscale)
    if not upscale.elsewhere:
        settle_precision(upscale.precision, choose_devices(upscale.device)[0])


def run_items(
    items: list[Item],
    target: Path,
    options: BatchOptions,
    report: Report,
    stop: Stop,
    get_model: Callable[[Plan], Model],
) -> list[FileResult]:
    """Work through the items, several at a time when asked to."""
    alone = options.parallel == 1
    lock = threading.Lock()

    def tell(event: dict[str, Any]) -> None:
        if alone or event["event"] != "progress":
            with lock:
                report(event)

    def one(item: Item) -> FileResult | None:
        if stop.reason is not None:
            return None
        result = run_item(item, target, options, tell, stop, get_model)
        tell(result.to_json() | {"text": result_text(result)})
        return result

    if alone:
        done = [one(item) for item in items]
    else:
        with ThreadPoolExecutor(options.parallel) as pool:
            futures = [pool.submit(one, item) for item in items]
            while wait(futures, timeout=TICK).not_done and stop.reason is None:
                pass
            for future in futures:
                future.cancel()
        done = [_outcome(item, f) for item, f in zip(items, futures, strict=True)]
    stop.check()
    return [result for result in done if result is not None]


def _outcome(item: Item, future: "Future[FileResult | None]") -> FileResult | None:
    """What became of a file in a thread; None when it was not begun, or stopped with the rest."""
    if future.cancelled():
        return None
    error = future.exception()
    if error is None:
        return future.result()
    if isinstance(error, Interrupted):
        return None
    return result_of(item, "failed", error=f"{type(error).__name__}: {error}")


def run_item(
    item: Item,
    target: Path,
    options: BatchOptions,
    report: Report,
    stop: Stop,
    get_model: Callable[[Plan], Model],
) -> FileResult:
    """One file, whatever happens to it. Raises Interrupted only."""
    try:
        model = options.model or choose_model_for(options.upscale)
        record = Record(target, item, options.upscale, model.name)
        if record.is_valid():
            return skipped(item, record)
        item.target.parent.mkdir(parents=True, exist_ok=True)
        upscale = options.upscale
        if record.is_ours():
            upscale = replace(upscale, encode=replace(upscale.encode, overwrite=True))
        asked = upscale.raw, upscale.read, upscale.encode
        info = probe_safely(item.source, item.target, *asked, stop)
        workers, at_once = options.jobs.workers, options.parallel
        upscale, begun = left_to_job(upscale, waiting_job(str(item.target), options.jobs))
        plan = make_plan(info, str(item.target), upscale, workers, at_once, begun or model)
        record.begin(plan.options.model)
        made = carry_out(plan, options.jobs, report, stop, get_model)
        facts = {"frames": made.frames, "seconds": made.seconds, "warnings": made.warnings}
        record.finish(options.run, facts)
    except Interrupted:
        raise
    except OasisError as error:
        return result_of(item, "failed", error=str(error), hint=error.hint)
    except OSError as error:
        return result_of(item, "failed", error=f"{item.target}: {error.strerror or error}")
    except Exception as error:  # a bug must not cost the files that follow; it is named in full
        report({"event": "bug", "source": str(item.source), "trace": traceback.format_exc()})
        return result_of(item, "failed", error=f"{type(error).__name__}: {error}")
    return result_of(item, "done", **facts)


def untold(item: Item, target: Path, options: BatchOptions) -> FileResult | None:
    """What became of a file whose process died, if it had only to be told; None else.

    options: with a model.
    """
    assert options.model is not None
    with suppress(OasisError, OSError):
        record = Record(target, item, options.upscale, options.model.name)
        if record.is_valid():
            made = record.made_in(options.run)
            return result_of(item, "done", **made) if made else skipped(item, record)
    return None


def skipped(item: Item, record: "Record") -> FileResult:
    return result_of(item, "skipped", made_by=record.made_by)


def result_of(item: Item, status: str, **more: Any) -> FileResult:
    return FileResult(source=str(item.source), target=str(item.target), status=status, **more)


def result_text(result: FileResult) -> str:
    """One line for one file."""
    if result.status == "failed":
        return f"FAILED {result.source}: {result.error}"
    if result.status == "skipped":
        by = "" if result.made_by in ("", __version__) else f"; oasis {result.made_by} made it"
        return f"skipped {result.source}: {result.target} is up to date{by}"
    more = "".join(f"; {warning}" for warning in result.warnings)
    return f"done {result.target}: {result.frames} frames in {result.seconds:.1f} s{more}"


def model_hash(options: Options) -> str | None:
    """SHA-256 of the checkpoint; None where its file is on other machines."""
    try:
        return content_hash(find(options.model))
    except UsageError:
        if not options.elsewhere:
            raise
        return None


class Record:
    """What is remembered of one output.

    It is valid while its input, the options, and the contents of weights and head table are those
    it was made with. Another version of the program does not make it invalid, for a folder may be
    weeks of work; the report names that version.
    """

    def __init__(self, target: Path, item: Item, options: Options, model: str) -> None:
        """model: its name. One that "auto" may choose at another time is as good as this one."""
        self._item, self._options = item, options
        name = item.target.relative_to(target)
        self._path = target / ".oasis-batch" / name.with_name(f"{short_name(name.name)}.json")
        self._made_with = self._facts(model)
        others = [by_role("small"), by_role("base")] if options.model == AUTO else []
        self._valid = [self._facts(other.name) for other in others if other and other.path]
        self._valid.append(self._made_with)

    def _facts(self, model: str) -> dict[str, str | None]:
        """What an output depends on beside its input, as hashes."""
        named = self._options.with_model(model)
        values = asdict(replace(named, encode=replace(named.encode, overwrite=False)))
        if named.look == FAITHFUL:
            del values["look"]  # records from before there were looks stay valid
        return {
            "options": sha256(json.dumps(values, default=str).encode()).hexdigest(),
            "weights": model_hash(named),
            "heads": heads_hash(named.heads),
        }

    def is_valid(self) -> bool:
        """Whether the output is there, as we wrote it, of the same input and options."""
        known = self._read()
        return (
            known is not None
            and known["input"] == stamp_of(self._item.source)
            and any(facts.items() <= known.items() for facts in self._valid)
            and known["output"] is not None
            and known["output"] == stamp_of(self._item.target)
        )

    @property
    def made_by(self) -> str:
        """The version of the program that wrote the output; "" where nobody knows."""
        known = self._read() or {}
        return str(known.get("version", ""))

    def is_ours(self) -> bool:
        """Whether the file at the target's place may be replaced: we wrote it, or began to."""
        known = self._read()
        return known is not None and known["output"] in (None, stamp_of(self._item.target))

    def begin(self, model: str) -> None:
        """Note that we are about to write the target with a model."""
        self._made_with = self._facts(model)
        self._write(None)

    def finish(self, run: str, made: dict[str, Any]) -> None:
        """Note that the target is there, and what a run of a batch made, as `FileResult` has it."""
        self._write(stamp_of(self._item.target), run=run, made=made)

    def made_in(self, run: str) -> dict[str, Any] | None:
        """What a run made, as it was noted; None where another one did."""
        known = self._read() or {}
        if known.get("run") != run:
            return None
        return known["made"] | {"warnings": tuple(known["made"]["warnings"])}

    def _read(self) -> dict[str, Any] | None:
        try:
            known = json.loads(self._path.read_text())
            return {**known, "input": known["input"], "output": known["output"]}
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None

    def _write(self, output: list[int] | None, **more: Any) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        data = {"input": stamp_of(self._item.source), "output": output, "version": __version__}
        write_whole(self._path, json.dumps(data | self._made_with | more).encode())


def stamp_of(path: Path) -> list[int] | None:
    """Size and time of a file, or None when it is not there."""
    try:
        about = path.stat()
    except OSError:
        return None
    return [about.st_size, about.st_mtime_ns]
