"""Pictures in the terminal."""

import numpy as np
import pytest

from oasis_cli.cli.terminal import encode, protocol, sixels


@pytest.mark.parametrize("program", ["kitty", "iterm", "sixel"])
def test_every_protocol_carries_the_picture(program):
    picture = np.zeros((12, 20, 3), np.uint8)
    picture[:, 10:] = (255, 0, 0)
    data = encode(program, picture, b"png" * 3000)
    start = {"kitty": b"\x1b_Ga=T,f=100,m=1;", "iterm": b"\x1b]1337;File=", "sixel": b"\x1bP"}
    assert data.startswith(start[program]) and data.endswith(b"\n")


def test_sixels_draw_what_the_picture_has():
    """Decoded with a few lines: palette, runs, bands."""
    picture = np.zeros((7, 9, 3), np.uint8)
    picture[:, 5:] = (255, 0, 0)
    text = sixels(picture).decode()
    assert '"1;1;9;7' in text and "#180;2;100;0;0" in text and "#0;2;0;0;0" in text
    bands = text.split("q", 1)[1].count("-")
    assert bands == 2
    assert "#180!5?!4~$" in text


def test_a_multiplexer_gets_no_picture():
    assert protocol({"TERM": "xterm-kitty", "TMUX": "1"}) is None
