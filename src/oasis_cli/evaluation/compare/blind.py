"""A blind test in one file: which of two pictures is better, without knowing whose they are.

Places are drawn at random from the half where the inputs differ more. Every two inputs meet at
every place, in random order, each as often left as right. Names stand in the file only scrambled,
until the last answer is given. Nothing is sent or loaded.
"""

import base64
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from oasis_cli.errors import OasisError, UsageError
from oasis_cli.evaluation.compare.look import common_size, resize
from oasis_cli.evaluation.compare.page import fill
from oasis_cli.media.pictures import encode_picture
from oasis_cli.pipeline.clips import Clip, lockstep, to_pixels

SIDE = 320
"""Pixels of a place; a third of the height in small pictures."""
LEAST_SIDE = 48
APART = 12
"""Frames within which the same place is shown once."""
LEAST = 0.25
"""A difference below this, in 8-bit steps, cannot be seen: nothing is asked."""
KEY = b"no peeking"
"""Scrambles the names: against a glance, not against an attack."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BlindOptions:
    """How a blind test is made."""

    places: int = 24
    """Places that are shown, at most."""
    seed: int = 0
    """Equal seeds make equal tests of equal inputs."""
    budget: int = 24 << 20
    """Bytes that the pictures may take, as they stand in the file."""
    title: str = "Which is better?"
    reference: int | None = None
    """The number of a clip that is shown beside the others and not judged."""
    progress: Callable[[int], None] = lambda frames: None
    """Told how many frames the first pass has seen."""


@dataclass(frozen=True, slots=True)
class Place:
    """A square of one frame, in pixels of the common size."""

    frame: int
    x: int
    y: int
    side: int


def blind(clips: Sequence[Clip], options: BlindOptions) -> str:
    """Read all clips twice and make the page.

    Raises UsageError when there are not two to choose from, and OasisError when they do not differ
    anywhere.
    """
    judged = [n for n in range(len(clips)) if n != options.reference]
    if len(judged) < 2:
        raise UsageError("a blind test is between two", hint="name two or more videos")
    size = common_size(clips, options.reference)
    draw = random.Random(options.seed)
    places = _draw(_differences(clips, judged, size, options.progress), options.places, draw)
    if not places:
        raise OasisError(
            "the inputs do not differ anywhere, or have no frame in common",
            hint="`oasis compare A B -o report.html` shows them",
        )
    pictures = _pictures(clips, places, size)
    places = _within(places, pictures, options.budget)
    data = questions(places, pictures, [clip.name for clip in clips], judged, draw, options)
    return fill(data, options.title, "blind")


def _differences(
    clips: Sequence[Clip],
    judged: Sequence[int],
    size: tuple[int, int],
    progress: Callable[[int], None],
) -> dict[Place, float]:
    """Of every place the frame where the inputs differ most, in 8-bit steps, each APART frames."""
    width, height = size
    side = min(SIDE, max(LEAST_SIDE, min(size) // 3), *size)
    best: dict[tuple[int, int], tuple[float, Place]] = {}
    with torch.inference_mode():
        for number, frames in enumerate(lockstep(clips, strict=False)):
            same = [resize(frames[n], (height, width)) for n in judged]
            gap = torch.stack([(a - b).abs().mean(0) for a, b in combinations(same, 2)]).mean(0)
            means = F.avg_pool2d(gap[None, None] * 127.5, side)[0, 0]
            for spot, value in enumerate(means.flatten().tolist()):
                row, column = divmod(spot, means.shape[1])
                key = number // APART, spot
                if value > best.get(key, (LEAST, None))[0]:
                    best[key] = value, Place(number, column * side, row * side, side)
            progress(number + 1)
    return {place: value for value, place in best.values()}


def _draw(found: dict[Place, float], count: int, draw: random.Random) -> list[Place]:
    """`count` places of the half that differs more; all when there are no more."""
    order = sorted(found, key=lambda place: -found[place])
    pool = order[: max(count, (len(order) + 1) // 2)]
    return draw.sample(pool, min(count, len(pool)))


def _pictures(
    clips: Sequence[Clip], places: Sequence[Place], size: tuple[int, int]
) -> dict[Place, list[str]]:
    """Second pass: the place in every clip as a data URI, without loss."""
    out: dict[Place, list[str]] = {}
    wanted = {place.frame for place in places}
    for number, frames in enumerate(lockstep(clips, strict=False)):
        if number in wanted:
            pixels = [to_pixels(resize(frame, size[::-1])) for frame in frames]
            for place in (p for p in places if p.frame == number):
                out[place] = [_uri(picture, place) for picture in pixels]
        if number >= max(wanted):
            break
    return out


def _uri(picture: Tensor, place: Place) -> str:
    part = picture[place.y : place.y + place.side, place.x : place.x + place.side]
    return "data:image/png;base64," + base64.b64encode(encode_picture(part.numpy())).decode()


def _within(places: Sequence[Place], pictures: dict[Place, list[str]], budget: int) -> list[Place]:
    """The first places whose pictures fit; always one."""
    kept: list[Place] = []
    used = 0
    for place in places:
        used += sum(map(len, pictures[place]))
        if kept and used > budget:
            break
        kept.append(place)
    return kept


def questions(
    places: Sequence[Place],
    pictures: dict[Place, list[str]],
    names: Sequence[str],
    judged: Sequence[int],
    draw: random.Random,
    options: BlindOptions,
) -> dict[str, Any]:
    """What the page's script reads: pictures in random order, and scrambled whose they are."""
    asked: list[tuple[Place, int, int]] = []
    for one, other in combinations(judged, 2):
        order = draw.sample(places, len(places))
        # Each is as often left as right; who is left once more is drawn.
        first = draw.randrange(2)
        asked += [
            (place, other, one) if (number + first) % 2 else (place, one, other)
            for number, place in enumerate(order)
        ]
    draw.shuffle(asked)
    shown = [(place, n) for place in places for n in range(len(names))]
    draw.shuffle(shown)
    at = {key: number for number, key in enumerate(shown)}
    secret = {
        "names": list(names),
        "seed": options.seed,
        "questions": [
            {"left": left, "right": right, "frame": p.frame, "box": [p.x, p.y, p.side, p.side]}
            for p, left, right in asked
        ],
    }
    return {
        "images": [pictures[place][n] for place, n in shown],
        "questions": [
            {
                "left": at[place, left],
                "right": at[place, right],
                "reference": None if options.reference is None else at[place, options.reference],
            }
            for place, left, right in asked
        ],
        "secret": scramble(json.dumps(secret)),
    }


def scramble(text: str) -> str:
    """Text that says nothing at a glance; `unscramble` in blind.js reads it."""
    data = text.encode()
    return base64.b64encode(bytes(b ^ KEY[n % len(KEY)] for n, b in enumerate(data))).decode()
