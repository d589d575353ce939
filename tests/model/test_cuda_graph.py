"""Replayed launches: the network's own result, for whoever asks, also from several threads."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.nn.functional as F

from oasis_cli.model.cuda_graph import CudaGraphModel
from oasis_cli.pipeline.fidelity import FidelityControl
from oasis_cli.pipeline.window_runner import WindowRunner
from oasis_cli.pipeline.windows import WindowOptions

CUDA = torch.device("cuda")
WINDOWS = WindowOptions(frames=5, overlap=2)


class Network(torch.nn.Module):
    """Counts how often it is launched."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, low, size, tile=None):
        self.calls += 1
        return F.interpolate(low[0], size=size)[None] * 2


class Captured:
    """Stands for a graph: the input is copied to a fixed place, the result comes from another. It
    takes as long as it needs for every other thread to get a turn."""

    def __init__(self, network, low, size, tile):
        self.network, self.size, self.low = network, size, low.clone()
        self.high = None

    def __call__(self, low):
        self.low.copy_(low)
        time.sleep(1e-4)
        self.high = self.network(self.low, self.size)
        time.sleep(1e-4)
        return self.high.clone()


def refuse(reason):
    def capture(network, low, size, tile):
        raise reason

    return capture


def wrong_windows(sizes, calls=60):
    """How many windows of each of two threads, one model, were not the network's."""
    model = CudaGraphModel(Network(), Captured)
    start = threading.Barrier(len(sizes))

    def work(number):
        start.wait()
        wrong = 0
        for call in range(calls):
            low = torch.full((1, 2, 3, 4, 5), float(1000 * number + call))
            high = model(low, sizes[number])
            wrong += not torch.equal(high, Network()(low, sizes[number]))
        return wrong

    with ThreadPoolExecutor(len(sizes)) as pool:
        found = list(pool.map(work, range(len(sizes))))
    return found, model.network.calls


def test_two_threads_of_one_size_get_their_own_windows():
    wrong, _ = wrong_windows([(8, 10), (8, 10)])
    assert wrong == [0, 0]


def test_two_threads_of_two_sizes_get_their_own_windows_and_both_are_replayed():
    captures = []

    class Counted(Captured):
        def __init__(self, network, low, size, tile):
            super().__init__(network, low, size, tile)
            captures.append(size)

    model = CudaGraphModel(Network(), Counted)
    sizes = [(8, 10), (16, 20)]
    start = threading.Barrier(2)

    def work(size):
        start.wait()
        for call in range(60):
            low = torch.full((1, 2, 3, 4, 5), float(call))
            assert torch.equal(model(low, size), Network()(low, size))

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(work, sizes))
    assert sorted(captures) == sizes


def test_a_graph_goes_when_its_last_user_asks_for_another_size():
    model, low = CudaGraphModel(Network(), Captured), torch.rand(1, 2, 3, 4, 5)
    for size in ((8, 10), (8, 10), (16, 20), (16, 20)):
        model(low, size)
    assert len(model._graphs) == 1
    with ThreadPoolExecutor(1) as pool:
        for _ in range(2):
            pool.submit(model, low, (8, 10)).result()
        assert len(model._graphs) == 2
    model(low, (16, 20))  # the other thread is gone, and its graph with it
    assert len(model._graphs) == 1


@pytest.mark.parametrize(
    "error", [RuntimeError("operation not permitted\nmore"), torch.OutOfMemoryError("CUDA")]
)
def test_a_capture_that_fails_is_said_once_and_the_run_goes_on(error):
    said, network = [], Network()
    model = FidelityControl(CudaGraphModel(network, refuse(error)), strength=1.0)
    runner = WindowRunner(model, (8, 10), WINDOWS, say=said.append)
    low = torch.rand(2, 3, 4, 5)
    for _ in range(4):
        assert torch.equal(runner(low), Network()(low[None], (8, 10))[0])
    assert network.calls == 4
    assert len(said) == 1 and "without CUDA graphs" in said[0]
    assert "operation not permitted" in said[0] or "memory is short" in said[0]
    assert "\n" not in said[0]


@pytest.mark.skipif(torch.cuda.is_available(), reason="a capture would work")
def test_where_there_is_no_gpu_a_network_runs_as_ever():
    network = Network()
    model, low = CudaGraphModel(network), torch.rand(1, 2, 3, 4, 5)
    for _ in range(3):
        assert torch.equal(model(low, (8, 10)), Network()(low, (8, 10)))
    assert network.calls == 3


class Full(Network):
    """Has no memory for launches while `held` says so."""

    held = staticmethod(lambda: True)

    def forward(self, low, size, tile=None):
        if self.held():
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().forward(low, size, tile)


def test_once_memory_was_short_nothing_is_captured_any_more():
    network, low = Full(), torch.rand(1, 2, 3, 4, 5)
    model = CudaGraphModel(network, lambda *args: pytest.fail("captured"))
    with pytest.raises(torch.OutOfMemoryError):
        model(low, (8, 10))
    network.held = lambda: False
    for _ in range(3):
        assert torch.equal(model(low, (8, 10)), Network()(low, (8, 10)))
    assert network.calls == 3


def test_the_memory_of_a_graph_is_given_up_before_anything_is_made_smaller():
    network, low = Full(), torch.rand(1, 2, 3, 4, 5)
    network.held = lambda: False
    model = CudaGraphModel(network, Captured)
    for _ in range(2):
        model(low, (8, 10))
    network.held = lambda: bool(model._graphs)  # a graph has the memory that is missing
    for _ in range(2):
        assert torch.equal(model(low, (16, 20)), Network()(low, (16, 20)))
    assert not model._graphs


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_replayed_launches_give_what_launching_gives_and_keep_nothing():
    network = Network()
    model = CudaGraphModel(network)
    clips = [torch.rand(1, 2, 3, 4, 5, device=CUDA) for _ in range(5)]
    with torch.inference_mode():
        found = [model(clip, (8, 10)) for clip in clips]
        other = model(clips[0][:, :1], (8, 10))
    assert network.calls == 3  # one launched, one captured, and one of another shape
    for clip, high in zip([*clips, clips[0][:, :1]], [*found, other], strict=True):
        assert torch.equal(high, Network()(clip, (8, 10)))


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("sizes", [[(64, 80), (64, 80)], [(64, 80), (128, 160)]])
def test_threads_share_a_real_graph_without_mixing_their_pictures(sizes):
    network = Network()
    model = CudaGraphModel(network)
    start = threading.Barrier(2)

    @torch.inference_mode()
    def work(number):
        start.wait()
        wrong = 0
        for call in range(300):
            low = torch.full((1, 2, 3, 32, 40), float(1000 * number + call), device=CUDA)
            wrong += not torch.equal(model(low, sizes[number]), Network()(low, sizes[number]))
        return wrong

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(work, range(2))) == [0, 0]
    assert network.calls <= 2 * len(set(sizes)) + 1 and not model.notes
