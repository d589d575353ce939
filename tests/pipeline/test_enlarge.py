import weakref

import pytest
import torch
from torch.nn import functional as F

from oasis_cli.errors import OasisError, UsageError
from oasis_cli.pipeline.window_runner import (
    Compact,
    Copies,
    Enlarger,
    is_out_of_memory,
    load_network,
    same_for_any_thread_count,
)
from oasis_cli.pipeline.windows import WindowOptions
from oasis_cli.runtime.devices import capabilities, choose_devices, settle_precision

WINDOWS = WindowOptions(frames=17, overlap=4)


def nearest(low, size, tile=None):
    return F.interpolate(low[0], size=size)[None]


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
    enlarge = Enlarger(model, (32, 600), WINDOWS, say=said.append)

    assert torch.equal(enlarge(low), nearest(low[None], (32, 600))[0])
    assert said == [f"out of memory: going on with tiles of {n} pixels" for n in (512, 256)]
    calls = model.calls
    enlarge(low)
    assert model.calls == calls + 1


def test_tiles_that_are_hardly_worth_it_come_after_half_a_window():
    said, low = [], torch.rand(17, 3, 8, 300)
    enlarge = Enlarger(Hungry(128, 5), (16, 600), WINDOWS, least_tile=300, say=said.append)
    torch.testing.assert_close(enlarge(low), nearest(low[None], (16, 600))[0])
    steps = [text.removeprefix("out of memory: going on with ") for text in said]
    assert steps == [
        "tiles of 512 pixels", "9 frames at once", "tiles of 256 pixels", "tiles of 128 pixels",
        "5 frames at once",
    ]  # fmt: skip


@pytest.mark.parametrize("fits", [1, 5, 9])
def test_then_a_window_is_computed_in_parts(fits):
    said, low = [], torch.rand(17, 3, 8, 8)
    enlarge = Enlarger(Hungry(9999, fits), (16, 16), WINDOWS, say=said.append)

    torch.testing.assert_close(enlarge(low), nearest(low[None], (16, 16))[0])
    assert said[-1] == f"out of memory: going on with {fits} frames at once"


def test_a_clip_of_three_frames_is_computed_frame_by_frame():
    low = torch.rand(3, 3, 8, 8)
    enlarge = Enlarger(Hungry(9999, 1), (16, 16), WINDOWS)
    torch.testing.assert_close(enlarge(low), nearest(low[None], (16, 16))[0])


def test_what_a_try_computed_is_gone_when_the_next_one_begins():
    tries, alive = [], []

    def model(low, size, tile=None):
        alive.append(sum(part() is not None for part in tries))
        part = torch.zeros(1)
        tries.append(weakref.ref(part))
        if low.shape[1] > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return nearest(low, size)

    Enlarger(model, (16, 16), WINDOWS)(torch.rand(17, 3, 8, 8))
    assert alive[:4] == [0, 0, 0, 0]


def test_when_nothing_fits_the_end_is_clear():
    enlarge = Enlarger(Hungry(1, 0), (16, 16), WINDOWS)
    with pytest.raises(OasisError, match="one frame of 16x16 does not fit") as caught:
        enlarge(torch.zeros(5, 3, 8, 8))
    assert "--scale" in caught.value.hint


def test_other_errors_are_not_swallowed():
    error = RuntimeError("mat1 and mat2 shapes cannot be multiplied")
    assert not is_out_of_memory(error)
    with pytest.raises(RuntimeError, match="mat1"):
        Enlarger(Hungry(1, 0, error), (16, 16), WINDOWS)(torch.zeros(5, 3, 8, 8))


def test_devices():
    assert choose_devices("cpu") == [torch.device("cpu")]
    assert choose_devices("cpu,cpu") == [torch.device("cpu")] * 2
    assert len(choose_devices("auto")) == 1
    for name in ("tpu", "meta", "cuda:99", "", "cpu,"):
        with pytest.raises(UsageError):
            choose_devices(name)


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


def test_a_network_in_eight_bits_is_the_same_to_a_few_thousandths(tiny_weights):
    plain = load_network(str(tiny_weights), torch.device("cpu"), "bf16")
    rounded = load_network(str(tiny_weights), torch.device("cpu"), "fp8")
    latent = torch.randn(1, plain.config.dit.latent_channels, 2, 4, 4, dtype=torch.bfloat16)
    one, other = plain.refine(latent), rounded.refine(latent)
    assert 0 < (one - other).abs().max() < 0.1 * one.abs().max()


@pytest.mark.parametrize(("kind", "notes"), [("xpu", 1), ("cpu", 0)])
def test_a_device_that_nobody_tried_is_named_once(tiny_weights, monkeypatch, kind, notes):
    about, said = capabilities(kind), []
    monkeypatch.setattr("oasis_cli.pipeline.window_runner.capabilities", lambda device: about)
    network = load_network(str(tiny_weights), torch.device("cpu"), "fp32")
    enlarge = Enlarger(network, (32, 48), WINDOWS, say=said.append)
    for _ in range(2):
        enlarge(torch.rand(5, 3, 16, 24))
    assert len([text for text in said if "nobody tried such a device" in text]) == notes
    assert len(said) == notes


def test_a_window_made_ahead_is_not_made_again():
    made = []

    def model(low, size, tile=None):
        made.append(low.shape[1])
        return nearest(low, size)

    enlarge = Enlarger(model, (8, 8), WINDOWS)
    low = torch.rand(5, 3, 4, 4)

    assert enlarge.ahead(low) > 0
    assert enlarge.kept.shape == (5, 3, 8, 8)
    assert torch.equal(enlarge(low.clone()), nearest(low[None], (8, 8))[0])
    assert made == [5] and enlarge.kept is None
    enlarge.ahead(low)
    assert torch.equal(enlarge(low + 1), nearest(low[None] + 1, (8, 8))[0])  # another one is asked
    assert made == [5, 5, 5]


def test_the_number_of_threads_changes_no_bit():
    from oasis_cli.checkpoints.format import channels_last
    from oasis_cli.model.dit import DiTConfig
    from oasis_cli.model.oasis import Oasis, OasisConfig
    from oasis_cli.model.winograd import use_winograd

    torch.manual_seed(0)
    network = Oasis(OasisConfig(dit=DiTConfig(width=96, layers=1, heads=2, ffn=96))).eval()
    for parameter in network.parameters():
        if not parameter.abs().sum():
            torch.nn.init.normal_(parameter, std=0.02)
    channels_last(network)
    low, before = torch.rand(1, 5, 3, 45, 80) * 2 - 1, torch.get_num_threads()
    with torch.inference_mode():
        plain = network(low, (180, 320))
        use_winograd(network)
        same_for_any_thread_count(network)
        found = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(network(low, (180, 320)))
    torch.set_num_threads(before)
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])
    torch.testing.assert_close(found[0], plain, atol=1e-5, rtol=0)


@pytest.mark.parametrize("waiting", [Copies(), Compact()])
def test_frames_that_wait_come_back_and_hold_no_window(waiting):
    window = torch.linspace(-1.1, 1.1, 4 * 3 * 300 * 8).view(4, 3, 300, 8)

    held = waiting.keep(window[2])

    assert held.untyped_storage().nbytes() <= window[2].nbytes
    assert (waiting.release(held) - window[2]).abs().max() <= 2**-15
    faded = waiting.fade(held, window[0].clone(), 0.25)
    assert torch.allclose(faded, 0.75 * window[2] + 0.25 * window[0], atol=2**-14)


def test_what_overshoots_stays_white_and_black():
    waiting = Compact()
    held = waiting.keep(torch.tensor([[[-9.0, -2, 1.5, 2, 9]]]))
    assert waiting.release(held).flatten().tolist() == [-2, -2, 1.5, 2 - 2**-14, 2 - 2**-14]
