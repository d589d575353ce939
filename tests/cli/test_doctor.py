"""`oasis doctor` tries what it says."""

import json

import torch
from toys import invoke

from oasis_cli.cli import doctor
from oasis_cli.pipeline import torch_backend
from oasis_cli.runtime.devices import capabilities


def test_doctor_tries_things():
    checks = {c["name"]: c for c in json.loads(invoke("doctor", "--json").stdout)}
    for name in (
        "torch",
        "devices",
        "kernels",
        "libx264",
        "libx265",
        "libsvtav1",
        "prores_ks",
        "ffv1",
    ):
        assert checks[name]["ok"], checks[name]


def test_doctor_fails_a_device_that_makes_other_frames(monkeypatch):
    honest = torch_backend.load_network

    def broken(*args):
        network = honest(*args)
        torch.nn.init.normal_(network.decoder.last.weight, std=0.1)
        return network

    monkeypatch.setattr(torch_backend, "load_network", broken)
    (check,) = doctor._computing()
    assert not check.ok and "other frames than the CPU" in check.found


def test_who_has_a_device_that_nobody_tried_is_asked_to_report(monkeypatch):
    assert doctor.to_report() == ""
    monkeypatch.setattr(
        "oasis_cli.runtime.devices.found", lambda: [capabilities("mps"), capabilities("cpu")]
    )
    assert doctor.to_report().startswith("mps was never tried")
