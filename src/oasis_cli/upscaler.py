"""A model that is loaded once, for files, frames and previews: what every road stands on.

>>> from oasis_cli import Options, Upscaler
>>> upscaler = Upscaler(Options(scale=2))
>>> upscaler.file("in.mp4", "out.mp4").frames                          # doctest: +SKIP
250
"""

import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

from oasis_cli.errors import UsageError
from oasis_cli.evaluation.preview import Preview, preview
from oasis_cli.jobs.estimate import Estimate, estimate
from oasis_cli.jobs.execute import JobOptions, carry_out, left_to_job, waiting_job, with_job
from oasis_cli.media.input.probe import probe
from oasis_cli.pipeline.frame_server import FrameServer
from oasis_cli.pipeline.frame_server import Picture as ServedPicture
from oasis_cli.pipeline.model_choice import ModelChoice
from oasis_cli.pipeline.plan import (
    Options,
    Plan,
    Setting,
    choose_model_for,
    make_plan,
    scaled_size,
    settle,
)
from oasis_cli.pipeline.run import (
    Report,
    Result,
    in_one_go,
    make_runner,
    with_fidelity,
)
from oasis_cli.pipeline.threads import Stop
from oasis_cli.pipeline.torch_backend import TORCH
from oasis_cli.runtime.backend import Backend, Model, ModelSpec
from oasis_cli.stream import Picture, as_clip, enlarge_frames


def _silent(event: dict[str, Any]) -> None:
    pass


class Upscaler:
    """Enlarges with one model. Several threads may use it; on a GPU their windows take turns.

    Each method takes changes of the options as keywords: `upscaler.file(a, b, strength=0.5)`. The
    model stays loaded as long as what asks for it is the same: name, head table, device, precision
    and decoder. Methods raise OasisError, as the command does.
    """

    def __init__(
        self,
        options: Options | None = None,
        *,
        model: Model | None = None,
        backend: Backend = TORCH,
        report: Report = _silent,
    ) -> None:
        """model: used as it is, instead of the one that options name. backend: loads the one that
        options name. report: told what happens, as dicts with an "event"; see
        `oasis_cli.cli.console`."""
        self.options = options or Options()
        self._given = model
        self._backend = backend
        self._report = report
        self._turn = threading.Lock()
        self._network: Model | None = None
        self._spec: ModelSpec | None = None
        self._choices: dict[tuple[str, str, bool], ModelChoice] = {}

    def plan(
        self, source: str | Path, target: str | Path, jobs: JobOptions | None = None, **changes: Any
    ) -> Plan:
        """What a run will do, and all its refusals, also to go on with a job that was begun with
        other options. Touches no file."""
        options, jobs = self._changed(changes), jobs or JobOptions()
        info = probe(source, options.raw)
        job = waiting_job(str(target), jobs) if self._given is None else None
        options, begun = left_to_job(options, job)
        model = begun or self.choice(options)
        plan = make_plan(
            info, str(target), options, jobs.workers, model=model, backend=self._backend
        )
        return with_job(plan, job)

    def choice(self, options: Options) -> ModelChoice:
        """The model of a run with these options. "auto" stays what it was at first, so that no
        model is loaded instead because this one takes memory."""
        asked = options.model, options.device, options.elsewhere
        if asked not in self._choices:
            self._choices[asked] = choose_model_for(options)
        return self._choices[asked]

    def estimate(
        self, plan: Plan, *, report: Report | None = None, stop: Stop | None = None
    ) -> Estimate | None:
        """Seconds, memory and disk that a plan needs: its first window is made and encoded.

        None for a pipe, which can be read only once.
        """
        runner = make_runner(plan, self.model_for(plan), report or self._report)
        return estimate(plan, runner, stop or Stop(), thorough=True)

    def run(
        self,
        plan: Plan,
        jobs: JobOptions | None = None,
        *,
        report: Report | None = None,
        stop: Stop | None = None,
    ) -> Result:
        """Carry out a plan, which `plan` made.

        jobs: how a long run is kept safe and spread out, as the command's options. None: in
        segments if it is long, and in this process, unless the plan names several devices.
        Further processes import the main module: it must guard its work by
        `if __name__ == "__main__"`.
        """
        report, stop = report or self._report, stop or Stop()
        if self._given is not None:  # segments would not know it again
            return in_one_go(plan, self._given, report, stop)
        jobs = jobs or JobOptions(workers=None if len(plan.devices) > 1 else 1)
        return carry_out(plan, jobs, report, stop, self.model_for)

    def file(
        self,
        source: str | Path,
        target: str | Path,
        *,
        jobs: JobOptions | None = None,
        report: Report | None = None,
        stop: Stop | None = None,
        **changes: Any,
    ) -> Result:
        """Enlarge `source` and write it to `target`, whole or not at all. jobs: as for `run`."""
        plan = self.plan(source, target, jobs, **changes)
        return self.run(plan, jobs, report=report, stop=stop)

    def frames(self, frames: Iterable[Picture], **changes: Any) -> Iterator[Picture]:
        """Yield a larger frame for each frame, in order and of the same kind.

        frames: numpy (H, W, 3) uint8, or torch (3, H, W) in [-1, 1]. Memory is one window; a frame
        comes out when its window is complete.
        """
        options = self._with_model(changes)
        coming = iter(frames)
        for first in coming:
            height, width = as_clip(first).shape[-2:]
            size = scaled_size((width, height), options)
            setting = self._settle(options, size)
            yield from enlarge_frames(
                chain([first], coming),
                self._model(options, setting),
                size=size,
                windows=setting.choice.windows,
                tile=setting.choice.tile,
                device=setting.device,
                say=self._say,
            )

    def server(
        self,
        get: Callable[[int], ServedPicture],
        count: int,
        size: tuple[int, int],
        **changes: Any,
    ) -> FrameServer:
        """Larger frames by number, in any order: `server[n]`.

        get: returns frame n of `count`, (H, W, 3) uint8. size: their (width, height).
        """
        options = self._with_model(changes)
        large = scaled_size(size, options)
        setting = self._settle(options, large)
        return FrameServer(
            get,
            count,
            self._model(options, setting),
            large,
            windows=setting.choice.windows,
            tile=setting.choice.tile,
            device=setting.device,
        )

    def preview(
        self, source: str | Path, target: str | Path, at: float | None = None, **changes: Any
    ) -> Preview:
        """Before and after around `at` seconds, or the middle, as a PNG beside `target`."""
        options = self._with_model(changes)
        return preview(source, Path(target), options, at, get_model=self.model_for, say=self._say)

    def model_for(self, plan: Plan) -> Model:
        """The model of a plan, loaded if the last one was of another form."""
        return self._loaded(plan.options, plan.spec)

    def release(self) -> None:
        """Forget the model; its memory is free when nobody else uses it. The next call loads it."""
        with self._turn:
            spec, self._network, self._spec = self._spec, None, None
            if spec is not None:
                self._backend.release(spec.device)

    def __enter__(self) -> "Upscaler":
        return self

    def __exit__(self, *raised: object) -> None:
        self.release()

    def _changed(self, changes: dict[str, Any]) -> Options:
        """The options with changes; a size takes the place of a scale, and the other way round."""
        if "size" in changes and "scale" not in changes:
            changes = changes | {"scale": None}
        elif "scale" in changes and "size" not in changes:
            changes = changes | {"size": None}
        try:
            return replace(self.options, **changes)
        except TypeError as error:
            raise UsageError(f"no such option: {error}", hint="see oasis_cli.Options") from error

    def _with_model(self, changes: dict[str, Any]) -> Options:
        """The options with changes and the name of a model."""
        options = self._changed(changes)
        return options.with_model(self.choice(options).name)

    def _settle(self, options: Options, size: tuple[int, int]) -> Setting:
        setting = settle(options, size)
        if setting.note:
            self._say(setting.note)
        return setting

    def _model(self, options: Options, setting: Setting) -> Model:
        choice = setting.choice
        return self._loaded(options, options.spec(setting.device, choice.precision, choice.decoder))

    def _loaded(self, options: Options, spec: ModelSpec) -> Model:
        if self._given is not None:
            return self._given
        with self._turn:
            if self._network is None or self._spec != spec:
                self._network = None  # its memory is needed
                self._network, self._spec = self._backend.load(spec), spec
            return with_fidelity(self._network, options)

    def _say(self, text: str) -> None:
        self._report({"event": "note", "text": text})
