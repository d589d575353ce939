import pytest
import torch
from judges.cases import bicubic
from judges.straight import ANGLES, FRAMES, WIDTH, Line, Straightness, draw, edges


def off(clip, line):
    return torch.stack([edges(frame, line, n) for n, frame in enumerate(clip)])


def clean(line):
    return draw(line) / 127.5 - 1


@pytest.mark.parametrize("angle", [ANGLES[0], 45, ANGLES[-1]])
@pytest.mark.parametrize("bright", [True, False])
def test_a_drawn_line_is_straight(angle, bright):
    line = Line(angle, bright)
    assert off(clean(line), line).abs().max() < 0.15


def test_a_bent_line_measures_its_bend():
    line = Line(30, bright=True, bend=1.5)
    found = off(clean(line), Line(30, bright=True)).square().mean().sqrt()
    assert found == pytest.approx(1.5 / 2**0.5, rel=0.1)


def test_a_bite_out_of_the_line_counts():
    line = Line(30, bright=True)
    clip = clean(line)
    whole = off(clip, line).abs().max()
    clip[..., 185:195, 185:195] = -0.4
    assert off(clip, line).abs().max() > whole + WIDTH / 3


def test_a_line_that_is_gone_is_not_straight():
    line = Line(30, bright=True)
    flat = torch.zeros(FRAMES, 3, 384, 384)
    assert off(flat, line).min() == WIDTH / 2
    assert off(-clean(line), line).min() == WIDTH / 2, "a dark line where a bright one was"


def test_damage_makes_lines_ragged_and_is_the_same_every_time():
    judge = Straightness(angles=(30,))
    (case,), (again,) = judge.cases(), judge.cases()
    assert torch.equal(case.low, again.low)
    found = judge.score(case, bicubic(case))
    assert judge.score(case, clean(case.truth))["off straight"] < 0.1 < found["off straight"]
    assert found["worst"] > found["off straight"]
