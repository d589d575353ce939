"""Encode a few frames into nothing, to learn how large and how slow the whole will be."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import av
import numpy as np

from oasis_cli.media.output.encoders import PACKED
from oasis_cli.media.output.plan import OutputPlan
from oasis_cli.media.output.writer import configure_encoder, video_frame
from oasis_cli.media.scheduling import usual_scheduling


@dataclass(frozen=True, slots=True)
class Trial:
    """What an encoder made of a few frames."""

    frames: int
    bytes: int
    first: int
    """Bytes of the first packet: a key frame."""
    seconds: float
    """Of encoding, flush included."""


def can_try(plan: OutputPlan) -> bool:
    """Whether the encoder takes what the model makes: no alpha plane, no palette."""
    return not plan.spec.layout.alpha and plan.codec != "gif"


def encode_for_size(plan: OutputPlan, pictures: Iterable[tuple[np.ndarray, ...]]) -> Trial | None:
    """Encode pictures as `plan` says and keep nothing. None when there are none."""
    context: Any = av.CodecContext.create(plan.codec, "w")
    configure_encoder(context, plan)
    context.pix_fmt = PACKED.get((plan.codec, plan.spec.pix_fmt), plan.spec.pix_fmt)
    context.options = dict(plan.options)
    with usual_scheduling():
        context.open()
    sizes: list[int] = []
    count, spent = 0, 0.0
    for count, planes in enumerate(pictures, start=1):
        frame = video_frame(planes, plan)
        frame.pts, frame.time_base = count - 1, 1 / plan.rate
        began = time.perf_counter()
        sizes += [packet.size for packet in context.encode(frame)]
        spent += time.perf_counter() - began
    began = time.perf_counter()
    sizes += [packet.size for packet in context.encode(None)] if count else []
    spent += time.perf_counter() - began
    return Trial(count, sum(sizes), sizes[0], spent) if sizes else None
