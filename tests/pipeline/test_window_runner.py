import weakref

import pytest
import torch
from toys import nearest

from oasis_cli.errors import OasisError, UsageError
from oasis_cli.pipeline.window_runner import (
    WindowRunner,
    is_out_of_memory,
)
from oasis_cli.pipeline.windows import WindowOptions
from oasis_cli.runtime.devices import (
    choose_devices,
    cpu_has_bf16,
    cpu_has_int8,
    settle_precision,
)

WINDOWS = WindowOptions(frames=17, overlap=4)


class Hungry:
    """Runs out of memory above a tile size and a number of frames."""

    def __init__(self, tile, frames=99, error=None):
        self.fits, self.calls = (tile, frames), 0
        self.error = error or torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB")

    def __call__(self, low, size, tile=None):
        self.calls += 1
        if (tile or max(size)) > self.fits[0] or low.shape[1] > self.fits[1]:
            raise self.error
        return nearest(low, size)


@pytest.mark.parametrize(
    "error",
    [
        None,
        MemoryError(),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 12 bytes"),
    ],
)
def test_tiles_get_smaller_until_they_fit_and_stay_so(error):
    said, low = [], torch.rand(5, 3, 16, 300)
    model = Hungry(256, error=error)
    runner = WindowRunner(model, (32, 600), WINDOWS, say=said.append)

    assert torch.equal(runner(low), nearest(low[None], (32, 600))[0])
    assert said == [f"out of memory: going on with tiles of {n} pixels" for n in (512, 256)]
    calls = model.calls
    runner(low)
    assert model.calls == calls + 1


def test_tiles_that_are_hardly_worth_it_come_after_half_a_window():
    said, low = [], torch.rand(17, 3, 8, 300)
    runner = WindowRunner(Hungry(128, 5), (16, 600), WINDOWS, least_tile=300, say=said.append)
    torch.testing.assert_close(runner(low), nearest(low[None], (16, 600))[0])
    steps = [text.removeprefix("out of memory: going on with ") for text in said]
    assert steps == [
        "tiles of 512 pixels", "9 frames at once", "tiles of 256 pixels", "tiles of 128 pixels",
        "5 frames at once",
    ]  # fmt: skip


@pytest.mark.parametrize("fits", [1, 5, 9])
def test_then_a_window_is_computed_in_parts(fits):
    said, low = [], torch.rand(17, 3, 8, 8)
    runner = WindowRunner(Hungry(9999, fits), (16, 16), WINDOWS, say=said.append)

    torch.testing.assert_close(runner(low), nearest(low[None], (16, 16))[0])
    assert said[-1] == f"out of memory: going on with {fits} frames at once"


def test_a_clip_of_three_frames_is_computed_frame_by_frame():
    low = torch.rand(3, 3, 8, 8)
    runner = WindowRunner(Hungry(9999, 1), (16, 16), WINDOWS)
    torch.testing.assert_close(runner(low), nearest(low[None], (16, 16))[0])


def test_what_a_try_computed_is_gone_when_the_next_one_begins():
    tries, alive = [], []

    def model(low, size, tile=None):
        alive.append(sum(part() is not None for part in tries))
        part = torch.zeros(1)
        tries.append(weakref.ref(part))
        if low.shape[1] > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return nearest(low, size)

    WindowRunner(model, (16, 16), WINDOWS)(torch.rand(17, 3, 8, 8))
    assert alive[:4] == [0, 0, 0, 0]


def test_when_nothing_fits_the_end_is_clear():
    runner = WindowRunner(Hungry(1, 0), (16, 16), WINDOWS)
    with pytest.raises(OasisError, match="one frame of 16x16 does not fit") as caught:
        runner(torch.zeros(5, 3, 8, 8))
    assert "--scale" in caught.value.hint


def test_other_errors_are_not_swallowed():
    error = RuntimeError("mat1 and mat2 shapes cannot be multiplied")
    assert not is_out_of_memory(error)
    with pytest.raises(RuntimeError, match="mat1"):
        WindowRunner(Hungry(1, 0, error), (16, 16), WINDOWS)(torch.zeros(5, 3, 8, 8))


def test_devices():
    assert choose_devices("cpu") == [torch.device("cpu")]
    assert choose_devices("cpu,cpu") == [torch.device("cpu")] * 2
    assert len(choose_devices("auto")) == 1
    for name in ("tpu", "meta", "cuda:99", "", "cpu,"):
        with pytest.raises(UsageError):
            choose_devices(name)


def test_units_that_onednn_may_not_use_do_not_count(monkeypatch):
    units = dict.fromkeys(("avx512_bf16", "avx512_vnni", "amx_bf16", "amx_int8"), True)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: units, raising=False)
    for most, free in {"": True, "avx512_core_bf16": True, "AVX2": False}.items():
        monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", most)
        assert cpu_has_bf16() == free and cpu_has_int8() <= free


@pytest.mark.parametrize("units", [True, False])
def test_precisions(monkeypatch, units):
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    monkeypatch.setattr("oasis_cli.runtime.devices.cpu_has_bf16", lambda: units)
    assert settle_precision("auto", cpu) == ("bf16" if units else "fp32")
    assert settle_precision("auto", cuda) == "fp16"
    assert settle_precision("bf16", cpu) == "bf16"
    for name in ("fp16", "fp64", "fp8"):
        with pytest.raises(UsageError):
            settle_precision(name, cpu)


@pytest.mark.parametrize("bytes_too", [True, False])
@pytest.mark.parametrize("units", [True, False])
def test_int8_is_for_cpus_with_units_for_it_and_for_the_rest(monkeypatch, units, bytes_too):
    known = {"avx512_bf16": units, "avx512_vnni": bytes_too}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: known, raising=False)
    cpu = torch.device("cpu")
    assert settle_precision("auto", cpu) != "int8"
    if units and bytes_too:
        assert settle_precision("int8", cpu) == "int8"
    else:
        with pytest.raises(UsageError, match="int8 is not possible on this CPU: it needs"):
            settle_precision("int8", cpu)
    with pytest.raises(UsageError, match="int8 is not possible on cuda: it needs a CPU"):
        settle_precision("int8", torch.device("cuda"))


def test_a_window_made_ahead_is_not_made_again():
    made = []

    def model(low, size, tile=None):
        made.append(low.shape[1])
        return nearest(low, size)

    runner = WindowRunner(model, (8, 8), WINDOWS)
    low = torch.rand(5, 3, 4, 4)

    assert runner.warm_up(low) > 0
    assert runner.warm_output.shape == (5, 3, 8, 8)
    assert torch.equal(runner(low.clone()), nearest(low[None], (8, 8))[0])
    assert made == [5] and runner.warm_output is None
    runner.warm_up(low)
    assert torch.equal(runner(low + 1), nearest(low[None] + 1, (8, 8))[0])  # another one is asked
    assert made == [5, 5, 5]
