"""What a device can do, on machines that have it and on stand-ins for those."""

from types import SimpleNamespace

import pytest
import torch

from oasis_cli.errors import UsageError
from oasis_cli.model.oasis import PAPER
from oasis_cli.pipeline.fitting import Choice, Needs, fit
from oasis_cli.pipeline.torch_backend import as_run
from oasis_cli.pipeline.windows import WindowOptions
from oasis_cli.runtime import devices
from oasis_cli.runtime.devices import (
    KINDS,
    capabilities,
    choose_device,
    choose_devices,
    found,
    own_device,
    settle_precision,
    supports_fp8,
)


@pytest.fixture
def machine(monkeypatch):
    """machine(version=(9, 4), hip="6.2", cards=1, intel=0): a machine with such cards."""

    def make(version=(9, 0), hip=None, cards=1, intel=0):
        about = SimpleNamespace(name="A card", total_memory=16 << 30)
        for module, number in ((torch.cuda, cards), (torch.xpu, intel)):
            monkeypatch.setattr(module, "is_available", lambda number=number: number > 0)
            monkeypatch.setattr(module, "device_count", lambda number=number: number)
            monkeypatch.setattr(module, "get_device_properties", lambda index: about)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index=None: version)
        monkeypatch.setattr(torch.version, "hip", hip)
        devices._accelerator.cache_clear()

    yield make
    devices._accelerator.cache_clear()


@pytest.mark.parametrize("version", [(9, 0), (9, 4), (11, 0), (12, 0)])
def test_under_rocm_no_number_is_read_as_nvidias(machine, version):
    """gfx90a, gfx942 and gfx1100 say (9, 0), (9, 4) and (11, 0)."""
    machine(version, hip="6.2.41133")
    card = capabilities("cuda:0")
    assert not (card.fp8 or card.cudnn_attention or card.graphs or card.fused_kernels)
    assert card.precisions == ("fp32", "fp16", "bf16") and card.default_precision == "fp16"
    assert card.streams and card.autocast and card.large_models  # what both makers' cards do
    with pytest.raises(UsageError, match="needs an NVIDIA card"):
        settle_precision("fp8", torch.device("cuda:0"))
    network = torch.nn.Identity()
    assert as_run(network, torch.device("cuda:0")) is network


@pytest.mark.parametrize("hip", [None, "6.2.41133"])
def test_where_memory_is_short_8_bits_are_chosen_on_nvidias_cards_alone(machine, hip):
    machine((9, 4), hip)
    needs = Needs({"wan": PAPER}, torch.device("cuda:0"), (640, 360))
    usual = Choice(windows=WindowOptions(), tile=None, precision="fp16", decoder="wan")
    free = needs.all(usual) - 1
    chosen, note = fit(needs, usual, {"precision"}, free)
    assert chosen.precision == ("fp16" if hip else "fp8")
    assert ("fp8 weights" in note) == (hip is None)


@pytest.mark.parametrize(
    ("version", "fp8", "cudnn"),
    [((8, 0), False, False), ((8, 9), True, False), ((9, 0), True, True), ((10, 0), True, False)],
)
def test_nvidias_cards_are_known_by_their_number(machine, version, fp8, cudnn):
    machine(version)
    card = capabilities("cuda:0")
    assert (card.fp8, card.cudnn_attention) == (fp8, cudnn)
    assert card.graphs and card.fused_kernels and card.streams and card.tried == (version == (9, 0))
    assert (card.name, card.memory, card.index) == ("A card", 16 << 30, 0)
    assert supports_fp8(torch.device("cuda:0")) == fp8


@pytest.mark.parametrize(
    ("cards", "intel", "mps", "kind"),
    [(1, 1, True, "cuda"), (0, 1, True, "xpu"), (0, 0, True, "mps"), (0, 0, False, "cpu")],
)
def test_auto_takes_the_first_kind_that_is_here(machine, monkeypatch, cards, intel, mps, kind):
    machine(cards=cards, intel=intel)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert choose_devices("auto") == [torch.device(kind)]
    assert found()[0].kind == kind and found()[-1].kind == "cpu"


def test_where_there_can_be_one_device_several_are_refused(machine):
    machine(cards=2)
    assert choose_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(UsageError, match="cuda:0,cuda:1 are several devices"):
        choose_device("cuda:0,cuda:1")


def test_intels_cards_are_devices_of_which_nothing_is_promised(machine):
    machine(cards=0, intel=2)
    assert choose_devices("xpu:1,xpu") == [torch.device("xpu:1"), torch.device("xpu")]
    with pytest.raises(UsageError, match="no xpu:2: torch sees 2 XPU devices"):
        choose_devices("xpu:2")
    card = capabilities("xpu:1")
    assert (card.name, card.memory) == ("A card", 16 << 30)
    assert not (card.fp8 or card.graphs or card.fused_kernels or card.streams or card.autocast)
    assert settle_precision("auto", torch.device("xpu")) == "fp16"


def test_processes_share_what_a_machine_has_once_and_take_cards_by_number(monkeypatch):
    current = []
    monkeypatch.setattr(torch.accelerator, "set_device_index", current.append)
    for kind, own in (("cpu", "cpu"), ("mps", "mps"), ("cuda", "cuda:1"), ("xpu", "xpu:1")):
        assert own_device(torch.device(kind), 1) == torch.device(own)
    assert current == [1, 1]


@pytest.mark.parametrize("kind", ["cuda", "xpu", "mps"])
def test_a_device_that_is_not_here_is_refused_and_still_described(machine, monkeypatch, kind):
    machine(cards=0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(UsageError, match=kind):
        choose_devices(kind)
    card = capabilities(kind)
    assert card.kind == kind and card.name == "" and card.memory is None and not card.fp8


def test_each_device_computes_in_its_default():
    for kind in KINDS:
        card = capabilities(kind)
        assert card.default_precision in card.precisions
        assert settle_precision("auto", torch.device(kind)) == card.default_precision


def test_this_machine_is_found():
    here = found()
    assert here[-1].host and here[-1].name
    assert [KINDS.index(device.kind) for device in here] == sorted(
        KINDS.index(device.kind) for device in here
    )
