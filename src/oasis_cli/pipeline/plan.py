"""What a run will do, decided before it starts: pure data, printable, and all refusals.

probe -> make_plan -> Plan -> (upscale.py) the run
"""

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar

import torch

from oasis_cli.checkpoints.format import FAITHFUL, decoder_for, is_look, networks
from oasis_cli.checkpoints.registry import AUTO, find
from oasis_cli.errors import UsageError
from oasis_cli.media.info import MediaInfo
from oasis_cli.media.input.limits import file_size
from oasis_cli.media.input.raw import RawInput
from oasis_cli.media.input.reader import ReadOptions
from oasis_cli.media.output.encoders import KINDS
from oasis_cli.media.output.plan import EncodeOptions, OutputPlan, plan_output
from oasis_cli.model.oasis import SMALL, OasisConfig
from oasis_cli.pipeline.fidelity import ColorFix
from oasis_cli.pipeline.fitting import Choice, Needs, encoder_memory, fit, least_tile
from oasis_cli.pipeline.model_choice import ModelChoice, model_for
from oasis_cli.pipeline.torch_backend import TORCH
from oasis_cli.pipeline.windows import WindowOptions
from oasis_cli.runtime.backend import Backend, ModelSpec
from oasis_cli.runtime.device_memory import free_memory
from oasis_cli.runtime.devices import capabilities, choose_devices, settle_precision

Device = TypeVar("Device", str, torch.device)

DEFAULT_SCALE = 4.0
SMALLEST, LARGEST = 16, 16384
"""Sides the network takes and encoders write, in pixels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How to upscale; the same for every file of a batch."""

    scale: float | None = None
    """1 to 4; 4 when neither scale nor size is given."""
    size: tuple[int, int] | None = None
    """(width, height) of the output instead."""
    model: str = AUTO
    """A name of the registry, or a path; "auto" is the one for the device."""
    heads: str | None = None
    """A table of attention groups to use instead of the checkpoint's own."""
    decoder: str = "auto"
    """The name of one that the checkpoint holds; "auto" is the look's, or where memory is short one
    that needs less."""
    look: str = AUTO
    """How details are drawn: "faithful", by the network's own decoder, or by another of this name;
    "auto" is faithful, or what a job that was begun draws."""
    device: str = "auto"
    elsewhere: bool = False
    """The device is one of other machines: do not look for it here."""
    precision: str = "auto"
    windows: WindowOptions = field(default_factory=WindowOptions)
    fit_windows: bool = False
    """Whether shorter windows may be chosen where memory is short: nobody asked for these."""
    tile: int | None = None
    """Work on tiles of this many target pixels."""
    strength: float = 1.0
    """0 is the bicubic picture, 1 all that the model adds."""
    color_fix: ColorFix = "none"
    raw: RawInput = field(default_factory=RawInput)
    read: ReadOptions = field(default_factory=ReadOptions)
    encode: EncodeOptions = field(default_factory=EncodeOptions)

    def __post_init__(self) -> None:
        if self.scale is not None and self.size is not None:
            raise UsageError("--scale and --size exclude each other", hint="give one of them")
        if self.scale is not None and not 1 <= self.scale <= 4:
            raise UsageError(
                f"a scale of {self.scale:g} is not possible", hint="choose --scale from 1 to 4"
            )
        if self.look not in (AUTO, FAITHFUL) and self.decoder != "auto":
            raise UsageError(
                "--look and --decoder exclude each other", hint="a look is a decoder: give one"
            )
        if self.tile is not None and self.tile < 64:
            raise UsageError(
                f"tiles of {self.tile} pixels are too small", hint="choose --tile 64 or more"
            )

    def with_model(self, name: str) -> "Options":
        """The same for a model of this name, with the look settled."""
        look = FAITHFUL if self.look == AUTO else self.look
        return replace(self, model=name, look=look)

    def spec(self, device: torch.device, precision: str, decoder: str) -> ModelSpec:
        """Their model, whose name is settled, with what else was settled."""
        return ModelSpec(
            name=self.model, heads=self.heads, device=device, precision=precision, decoder=decoder
        )

    @property
    def left_open(self) -> set[str]:
        """Fields that the user left open. They may depend on the free memory."""
        unasked = {
            "windows": self.fit_windows,
            "tile": self.tile is None,
            "precision": self.precision == "auto",
            "decoder": self.decoder == "auto" and self.look in (AUTO, FAITHFUL),
        }
        return {name for name, free in unasked.items() if free}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One file's run."""

    source: str
    target: str
    info: MediaInfo
    options: Options
    output: OutputPlan
    size: tuple[int, int]
    """(width, height) of the pictures the model makes."""
    devices: tuple[str, ...]
    precision: str
    decoder: str
    """Its kind; "auto" is the checkpoint's own, which nobody knows where the file is elsewhere."""
    frames: int | None
    """Expected, from the container's word; None when nobody knows."""
    memory: int
    """Bytes needed beside the model, about."""
    disk: int | None
    """Bytes of output, about."""
    model_why: str = ""
    """Why the options' model is this one; empty when the user named it."""
    notes: tuple[str, ...] = ()
    backend: Backend = TORCH

    @property
    def spec(self) -> ModelSpec:
        """The model, as its backend loads it."""
        return self.options.spec(self.device, self.precision, self.decoder)

    @property
    def device(self) -> torch.device:
        """The first device: the one the main process uses."""
        return torch.device(self.devices[0])

    @property
    def network(self) -> OasisConfig:
        """The network with the decoder that was chosen."""
        chosen = replace(self.options, decoder=self.decoder, look=FAITHFUL)
        return next(iter(known_networks(chosen).values()))

    @property
    def least_tile(self) -> int:
        """Pixels of a side below which tiles are hardly worth it."""
        return least_tile(self.network)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "event": "plan",
            "source": self.source,
            "target": self.target,
            "size": list(self.size),
            "model": self.options.model,
            "model_why": self.model_why,
            "look": self.options.look,
            "devices": list(self.devices),
            "precision": self.precision,
            "decoder": self.decoder,
            "windows": asdict(self.options.windows),
            "tile": self.options.tile,
            "frames": self.frames,
            "memory_bytes": self.memory,
            "disk_bytes": self.disk,
            "input": self.info.to_json(),
            "output": self.output.to_json(),
            "notes": list(self.notes),
        }


def make_plan(
    info: MediaInfo,
    target: str,
    options: Options,
    workers: int | None = None,
    at_once: int = 1,
    model: ModelChoice | None = None,
    backend: Backend = TORCH,
) -> Plan:
    """Decide everything for one input. Raises UsageError or MediaError; touches no file.

    workers: processes that share the devices, one for each when None. at_once: runs like this one
    at the same time. model: chosen before; None chooses it here. backend: what will run it; the
    memory that is planned is PyTorch's.
    """
    size = target_size(info, options)
    model = model or choose_model_for(options)
    options = options.with_model(model.name)
    usual = _usual(options, size)
    output = plan_output(info, target, size, options.encode, options.read)
    notes = [model.note] if model.note else []
    if options.size is not None:
        output, note = keep_shape(info, output, size, options)
        notes += [note] if note else []
    frames = expected_frames(info, options.read)
    setting = _fitted(usual, options, encoder_memory(output, size), workers, at_once)
    choice = setting.choice
    notes += [setting.note] if setting.note else []
    disk = _disk(size, frames, output)
    notes += _disk_note(target, disk)
    return Plan(
        source=info.path,
        target=target,
        info=info,
        options=replace(options, windows=choice.windows, tile=choice.tile),
        output=output,
        size=size,
        devices=tuple(str(device) for device in setting.devices),
        precision=choice.precision,
        decoder=choice.decoder,
        frames=frames,
        memory=setting.memory,
        disk=disk,
        model_why=model.why,
        notes=tuple(notes),
        backend=backend,
    )


def choose_model_for(options: Options) -> ModelChoice:
    """The model that options name, or the one for their device."""
    return model_for(options.model, options.device, elsewhere=options.elsewhere)


@dataclass(frozen=True, slots=True)
class Setting:
    """Where a network runs, and what of the run depends on that."""

    devices: tuple[torch.device, ...]
    choice: Choice
    memory: int
    """Bytes needed beside the model, about."""
    note: str
    """How short memory changed the plan; empty when there is enough."""

    @property
    def device(self) -> torch.device:
        """The first one."""
        return self.devices[0]


def settle(options: Options, size: tuple[int, int]) -> Setting:
    """Choose devices and precision, and fit what was left open to the memory that is free.

    options: their model is named. size: (width, height) of the output. Raises UsageError.
    """
    return _fitted(_usual(options, size), options)


@dataclass(frozen=True, slots=True)
class _Usual:
    """A setting before anybody looked at the memory."""

    devices: tuple[torch.device, ...]
    needs: Needs
    choice: Choice


def _usual(options: Options, size: tuple[int, int]) -> _Usual:
    if options.elsewhere:
        devices = [torch.device(options.device)]
    else:
        devices = choose_devices(options.device)
    usual, *others = known_networks(options).items()
    known = dict([usual, *((name, it) for name, it in others if not is_look(name))])
    choice = Choice(
        windows=options.windows,
        tile=options.tile,
        precision=settle_precision(options.precision, devices[0]),
        decoder=usual[0],
    )
    return _Usual(tuple(devices), Needs(known, devices[0], size), choice)


def _fitted(
    usual: _Usual,
    options: Options,
    encoder: int = 0,
    workers: int | None = None,
    at_once: int = 1,
) -> Setting:
    """encoder: bytes that encoding takes of the machine's memory. Others as for `make_plan`."""
    devices, needs, choice, note = usual.devices, usual.needs, usual.choice, ""
    free = None if options.elsewhere else free_memory(devices[0])
    if free is not None:
        beside = encoder if capabilities(devices[0]).host else 0
        share = at_once * _on_first(devices, workers)
        choice, note = fit(needs, choice, options.left_open, free, beside, share)
    return Setting(devices, choice, needs.window(choice), note)


def device_of(devices: Sequence[Device], number: int) -> Device:
    """Workers take the devices in turn."""
    return devices[number % len(devices)]


def _on_first(devices: Sequence[torch.device], workers: int | None) -> int:
    """How many of the workers come to the first device."""
    count = workers or len(devices)
    return sum(device_of(devices, number) == devices[0] for number in range(count))


def target_size(info: MediaInfo, options: Options) -> tuple[int, int]:
    """(width, height) of the output's pictures."""
    return scaled_size(info.video.size(bake_rotation=options.read.bake_rotation), options)


def scaled_size(given: tuple[int, int], options: Options) -> tuple[int, int]:
    """(width, height) of what pictures of a size become. Raises UsageError."""
    width, height = given
    if options.size is not None:
        size = options.size
        if size[0] < width or size[1] < height:
            raise UsageError(
                f"{size[0]}x{size[1]} is smaller than the input ({width}x{height})",
                hint="oasis enlarges; choose a --size at least as large as the input",
            )
        if size[0] > 4 * width or size[1] > 4 * height:
            raise UsageError(
                f"{size[0]}x{size[1]} is more than four times the input ({width}x{height})",
                hint=f"choose a --size up to {4 * width}x{4 * height}, or run twice",
            )
    else:
        scale = Fraction(options.scale if options.scale is not None else DEFAULT_SCALE)
        size = (round(width * scale), round(height * scale))
    if min(size) < SMALLEST or max(size) > LARGEST:
        raise UsageError(
            f"an output of {size[0]}x{size[1]} is not possible",
            hint=f"sides may have {SMALLEST} to {LARGEST} pixels",
        )
    return size


def keep_shape(
    info: MediaInfo, output: OutputPlan, size: tuple[int, int], options: Options
) -> tuple[OutputPlan, str]:
    """A size of another shape: the pixels' shape makes up for it, so that nothing looks wider."""
    width, height = info.video.size(bake_rotation=options.read.bake_rotation)
    change = Fraction(width * size[1], height * size[0])
    sar = ((output.sar or 1) * change).limit_denominator(1000)
    if abs(sar - (output.sar or 1)) < Fraction(1, 100):  # rounding to whole pixels, no new shape
        return output, ""
    note = f"{size[0]}x{size[1]} has another shape: pixels are {sar.numerator}:{sar.denominator}"
    if sar == 1:
        return replace(output, sar=None), f"{size[0]}x{size[1]} makes the pixels square"
    return replace(output, sar=sar), note


def expected_frames(info: MediaInfo, read: ReadOptions) -> int | None:
    """What the container lets one expect inside --start and --end.

    A frame takes at least a byte: a length that the file cannot hold is damage.
    """
    rate = info.video.rate * (2 if read.deinterlace == "bob" else 1)
    claimed: float | None = float(info.video.claimed_frames) or None
    if claimed is None and info.files:
        claimed = float(len(info.files))
    if claimed is None and info.duration is not None:
        claimed = info.duration * float(info.video.rate)
    if claimed is not None and not info.files and (size := file_size(info.path)):
        claimed = min(claimed, float(size))
    if read.deinterlace == "bob" and claimed is not None:
        claimed *= 2
    first = float((read.start or 0) * rate)
    last = float(read.end * rate) if read.end is not None else claimed
    if last is None or claimed is None:
        return None
    return max(1, round(min(last, claimed) - first))


def known_networks(options: Options) -> dict[str, OasisConfig]:
    """As `networks`, the usual decoder first: the one that options name, or their look's."""
    options = options.with_model(options.model)
    named = options.decoder != "auto"
    try:
        find(options.model)
    except UsageError:
        if not options.elsewhere:
            raise
        # The file is on other machines: any size will do for a guess.
        return {options.decoder if named or options.look == FAITHFUL else options.look: SMALL}
    decoder = options.decoder if named else decoder_for(options.model, options.look)
    return networks(options.model, decoder)


def _disk(size: tuple[int, int], frames: int | None, output: OutputPlan) -> int | None:
    """Bytes of picture, from what each codec usually needs for a pixel."""
    if frames is None:
        return None
    return round(size[0] * size[1] * frames * KINDS[output.codec].bits / 8)


def _disk_note(target: str, needed: int | None) -> list[str]:
    folder = Path(target).parent
    if needed is None or target == "-" or not folder.is_dir():
        return []
    free = shutil.disk_usage(folder).free
    if needed < free:
        return []
    return [f"about {needed >> 20} MiB will be written and {free >> 20} MiB are free in {folder}"]
