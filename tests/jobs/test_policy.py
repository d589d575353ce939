"""What is done with a run, for each situation: nothing is rendered here."""

from dataclasses import replace

import pytest

from oasis_cli.checkpoints import registry
from oasis_cli.jobs.estimate import STARTING, WORTH_KNOWING, Estimate
from oasis_cli.jobs.policy import LONG_SECONDS, JobOptions, Situation, decide, process_count
from oasis_cli.media.input.probe import probe
from oasis_cli.pipeline.plan import Options, make_plan

ONE, TWO = ("cuda:0",), ("cuda:0", "cuda:1")
SHORT, KNOWN, LONG = STARTING, WORTH_KNOWING + 1, LONG_SECONDS + 1
SEGMENTS, RAY = JobOptions(resume=True), JobOptions(engine="ray")
NOT = "gif cannot be joined"


@pytest.fixture
def situation(tiny_clip, tmp_path):
    plan = make_plan(probe(tiny_clip), str(tmp_path / "o.mp4"), Options(scale=1, device="cpu"))

    def make(devices=ONE, seconds=SHORT, wishes=None, model="oasis-small", **facts):
        needs = None
        if seconds:
            needs = Estimate(seconds=seconds, frame_seconds=0.1, encoding=0, memory=0, disk=None)
        used = replace(plan, devices=devices, options=replace(plan.options, model=model))
        return Situation(plan=used, wishes=wishes or JobOptions(), needs=needs, **facts)

    return make


@pytest.mark.parametrize(
    "facts, how, processes, said",
    [
        # One device, nobody asked for anything.
        ({}, "whole", 1, []),
        ({"seconds": None}, "whole", 1, []),
        ({"seconds": KNOWN}, "whole", 1, ["estimate"]),
        ({"seconds": KNOWN, "left": 0.5}, "whole", 1, []),
        ({"seconds": LONG}, "segments", 1, ["estimate"]),
        ({"begun": True}, "segments", 1, []),
        ({"begun": True, "seconds": None, "left": 0.0}, "segments", 1, []),
        # Asked for.
        ({"wishes": SEGMENTS}, "segments", 1, []),
        ({"wishes": JobOptions(workers=3)}, "spread", 3, []),
        ({"wishes": JobOptions(workers=1), "devices": TWO}, "whole", 1, []),
        ({"wishes": RAY, "seconds": None}, "spread", 1, []),
        # Several devices.
        ({"devices": TWO, "seconds": KNOWN}, "spread", 2, ["estimate"]),
        ({"devices": TWO, "seconds": None}, "spread", 2, []),
        ({"devices": TWO, "others_pay": False}, "whole", 1, ["alone"]),
        ({"devices": TWO, "others_pay": False, "begun": True}, "segments", 1, ["alone"]),
        # A slow encoder.
        ({"seconds": LONG, "each": 4}, "company", 4, ["4 processes", "estimate"]),
        ({"seconds": LONG, "each": 2, "devices": TWO}, "company", 4, ["4 processes", "estimate"]),
        ({"seconds": KNOWN, "each": 4}, "whole", 1, ["estimate"]),
        ({"seconds": LONG, "each": 4, "wishes": JobOptions(workers=1)}, "segments", 1,
         ["estimate"]),
        # An output that segments cannot make.
        ({"obstacle": NOT}, "whole", 1, []),
        ({"obstacle": NOT, "wishes": SEGMENTS}, "whole", 1, [NOT]),
        ({"obstacle": NOT, "seconds": LONG}, "whole", 1, ["estimate", NOT]),
        ({"obstacle": NOT, "seconds": LONG, "each": 4}, "whole", 1, ["estimate", NOT]),
        ({"obstacle": NOT, "devices": TWO}, "whole", 2, [NOT]),
        ({"obstacle": NOT, "wishes": RAY}, "whole", 1, [NOT]),
    ],
)  # fmt: skip
def test_what_is_done_and_said(situation, facts, how, processes, said):
    decision = decide(situation(**facts))
    ways = {"whole": (False, False, False), "segments": (True, False, False),
            "spread": (True, True, False), "company": (True, True, True)}  # fmt: skip
    assert (decision.segments, decision.spread, decision.unasked) == ways[how]
    assert process_count(decision.plan, decision.jobs) == processes
    assert len(decision.say) == len(said)
    assert all(words in event["text"] for event, words in zip(decision.say, said, strict=True))


@pytest.mark.parametrize(
    "facts, cores, told",
    [
        ({}, 3, True),
        ({}, 4, False),
        ({"seconds": 3600}, 1, False),
        ({"devices": ("cpu", "cpu")}, 1, True),
        ({"devices": ("cpu", "cuda:0")}, 1, False),
        ({"devices": ("cuda:0",)}, 1, False),
        ({"begun": True}, 1, False),  # that job goes on with its model
        ({"model": "oasis-tiny"}, 1, False),
        ({"model": str(registry.find("oasis-tiny"))}, 1, False),
        ({"model": "oasis-small-dense"}, 1, True),
    ],
)
def test_a_slow_cpu_is_told_once_of_the_tiny_model(situation, monkeypatch, facts, cores, told):
    monkeypatch.setattr("torch.get_num_threads", lambda: cores)
    now = situation(**{"devices": ("cpu",), "seconds": 7200} | facts)
    said = [event["text"] for event in decide(now).say if "oasis-tiny" in event["text"]]
    assert len(said) == told
    assert all("46 min instead of 120" in text and "\n" not in text for text in said)


def test_the_encoders_time_stays_when_the_model_is_a_faster_one(situation, monkeypatch):
    monkeypatch.setattr("torch.get_num_threads", lambda: 2)
    now = situation(devices=("cpu",), seconds=7200)
    now = replace(now, needs=replace(now.needs, encoding=1.0))
    assert "about 83 min instead of 120" in decide(now).say[-1]["text"]


def test_a_checkout_without_the_tiny_model_does_not_name_it(situation, monkeypatch):
    monkeypatch.setattr("torch.get_num_threads", lambda: 1)
    lost = replace(registry.entry_of("oasis-tiny"), file="lost.safetensors")
    for entries in ({}, {"oasis-tiny": lost}):
        monkeypatch.setattr(registry, "_ENTRIES", entries)
        assert len(decide(situation(devices=("cpu",), seconds=7200)).say) == 1


def test_processes_that_share_the_processors_gain_less_than_their_number(situation):
    decision = decide(situation(seconds=960, each=4))
    assert (decision.jobs.workers, decision.needs.seconds) == (4, 600)
    assert decision.say[-1]["seconds"] == 600


def test_wishes_are_never_overruled(situation):
    for workers in (1, 2, 5):
        wishes = JobOptions(workers=workers)
        for facts in ({"others_pay": False}, {"each": 4}, {"seconds": LONG, "each": 4}):
            decision = decide(situation(devices=TWO, wishes=wishes, **facts))
            assert decision.jobs == wishes and decision.plan.devices == TWO
