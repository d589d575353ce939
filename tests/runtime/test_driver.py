"""A GPU's driver is awake by the time that PyTorch wants it, where there is one."""

import os

import pytest

from oasis_cli.runtime import driver


class Driver:
    """CUDA's driver, as ctypes shows it; `fails` names a function that refuses."""

    def __init__(self, fails=""):
        self.fails, self.called = fails, []

    def __getattr__(self, name):
        def function(*given):
            self.called.append((name, given[-1]))
            return int(name == self.fails)

        return function


def test_the_context_of_the_named_device_is_there():
    cuda = Driver()
    driver.make_context(2, lambda name: cuda)
    assert [name for name, _ in cuda.called] == [
        "cuInit",
        "cuDeviceGet",
        "cuDevicePrimaryCtxRetain",
    ]
    assert cuda.called[1][1] == 2


@pytest.mark.parametrize("fails", ["cuInit", "cuDeviceGet"])
def test_a_driver_that_refuses_is_left_alone(fails):
    cuda = Driver(fails)
    driver.make_context(0, lambda name: cuda)
    assert cuda.called[-1][0] == fails


def test_a_machine_without_a_driver_goes_on():
    driver.make_context(0, lambda name: driver.ctypes.CDLL("no-such-library.so.7"))
    driver.make_context(0, lambda name: object())


@pytest.mark.parametrize(
    ("devices", "built", "index"),
    [
        ("auto", True, 0),
        ("cuda", True, 0),
        ("cuda:3", True, 3),
        ("cuda:1,cuda:0", True, 1),
        ("auto", False, None),
        ("cpu", True, None),
        ("xpu:1", True, None),
        ("nonsense", True, None),
    ],
)
def test_only_what_may_be_used_is_woken(monkeypatch, devices, built, index):
    monkeypatch.setattr(driver, "_torch_is_for_cuda", lambda: built)
    assert driver.first_cuda(devices) == index


def test_the_context_is_made_in_a_thread(monkeypatch):
    woken = []
    monkeypatch.setattr(driver, "make_context", woken.append)
    monkeypatch.setenv("CUDA_MODULE_LOADING", "")
    monkeypatch.delenv("CUDA_MODULE_LOADING")

    thread = driver.wake(2)

    thread.join()
    assert thread.daemon and woken == [2]
    assert os.environ["CUDA_MODULE_LOADING"] == "LAZY"


def test_this_pytorch_is_known_by_its_files():
    import torch

    assert driver._torch_is_for_cuda() == (torch.version.cuda is not None)
