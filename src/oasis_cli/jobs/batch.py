"""The verb for many files: a folder in, the same tree of larger videos out."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from oasis_cli.errors import MediaError, OasisError
from oasis_cli.jobs.apart import Apart
from oasis_cli.jobs.folders import Item, Problem, find_items
from oasis_cli.jobs.items import (
    BatchOptions,
    FileResult,
    check_model,
    models_of,
    result_text,
    run_items,
    stamp_of,
    with_model,
)
from oasis_cli.pipeline.plan import Plan
from oasis_cli.pipeline.run import Report
from oasis_cli.pipeline.threads import TICK, Stop
from oasis_cli.runtime.backend import Model

POLL_SECONDS = 1.0
"""Between two looks at a watched folder."""


def batch(
    source: Path,
    target: Path,
    options: BatchOptions,
    report: Report,
    stop: Stop,
    get_model: Callable[[Plan], Model] | None = None,
) -> list[FileResult]:
    """Upscale every video in `source` into `target`. One bad file never stops the rest.

    Raises UsageError for folders that make no sense and for what every file would fail at,
    Interrupted when `stop` is set.
    """
    items, problems = find_items(source, target, options.folders)
    with _worker(target, options, report, stop, get_model) as work:
        results = [_unreadable(problem) for problem in problems]
        for result in results:
            report(result.to_json() | {"text": result_text(result)})
        return results + work(items)


@contextmanager
def _worker(
    target: Path,
    options: BatchOptions,
    report: Report,
    stop: Stop,
    get_model: Callable[[Plan], Model] | None,
) -> Iterator[Callable[[list[Item]], list[FileResult]]]:
    """What works through items, with one model; in a process of its own if the options say so."""
    if options.apart and get_model is None:
        with Apart(target, options, report, stop) as apart:
            yield apart.run
        return
    options = with_model(options)
    if get_model is None:
        check_model(options)
    models = get_model or models_of(options)
    yield lambda items: run_items(items, target, options, report, stop, models)


def _unreadable(problem: Problem) -> FileResult:
    return FileResult(source=str(problem.path), target="", status="failed", error=problem.sentence)


def watch(
    source: Path,
    target: Path,
    options: BatchOptions,
    report: Report,
    stop: Stop,
    get_model: Callable[[Plan], Model] | None = None,
) -> None:
    """Upscale what appears in `source`, for ever: ends by raising the Stop's reason.

    A file is taken when it has not changed for `settle` seconds. One that failed is tried again
    when it changes.
    """
    seen: dict[Path, tuple[list[int] | None, float]] = {}
    handled: dict[Path, list[int] | None] = {}
    told: set[str] = set()
    with _worker(target, options, report, stop, get_model) as work:
        while True:
            if handled and not source.is_dir():
                raise OasisError(f"{source} went away", hint="start again when it is back")
            items, problems = find_items(source, target, options.folders)
            for problem in problems:
                if problem.sentence not in told:
                    told.add(problem.sentence)
                    report(_unreadable(problem).to_json() | {"text": problem.sentence})
            ready, now = [], time.monotonic()
            for item in items:
                stamp = stamp_of(item.source)
                if stamp is None or handled.get(item.source) == stamp:
                    continue
                if seen.get(item.source, (None, 0.0))[0] != stamp:
                    seen[item.source] = (stamp, now)
                elif now - seen[item.source][1] >= options.settle:
                    handled[item.source] = stamp
                    ready.append(item)
            work(ready)
            stop.wait(min(POLL_SECONDS, max(TICK, options.settle)))
            stop.check()


def check_results(results: list[FileResult]) -> None:
    """Raise when any file failed."""
    failed = [result for result in results if result.status == "failed"]
    if failed:
        raise MediaError(
            f"{len(failed)} of {len(results)} files failed",
            hint=f"the first: {failed[0].source}: {failed[0].error}",
        )
