"""A device beside the CPU, as `oasis doctor` does it."""

from oasis_cli.evaluation.device_check import check_device
from oasis_cli.runtime.devices import capabilities


def test_this_cpu_makes_the_frames_of_plain_operators():
    made = check_device(capabilities("cpu"))
    assert made.device == "cpu" and made.decibels > 55
    assert not made.on_cpu and not made.notes
