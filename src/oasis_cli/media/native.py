"""Reads of PyAV that end the whole process, made in a way that does not.

PyAV 18 copies two C structures without what they point at, and frees it twice: the map of a
channel layout whose order is its own (7.1 in a MOV), and the names that come with side data (every
ICC profile in a PNG). An object that is never destroyed frees nothing. What is kept alive here is
small: some 50 bytes for a layout, a kilobyte for side data with a profile.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

import av
from av.sidedata.sidedata import Type
from av.video.reformatter import Interpolation, VideoReformatter


def _unknown_side_data(cls: type[Type], value: object) -> Type:
    return cls.VIDEO_HINT  # one we never look at


# PyAV 18 refuses all side data of a frame that has one kind newer than its list (EXIF in TIFF).
Type._missing_ = classmethod(_unknown_side_data)  # type: ignore[assignment]

SMALL = 16
"""Side of the copy whose side data is read, in pixels."""


def _keep_for_ever(thing: object) -> None:
    """One reference too many: Python never destroys it, not at its end either."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


@dataclass(frozen=True, slots=True)
class SoundLayout:
    """How many channels, and which."""

    channels: int
    name: str
    """Such as "stereo" or "5.1"; "6 channels" where nothing says which ones they are, and
    "8 channels (FL+FR+...)" where they come in an order of their own."""

    @property
    def is_named(self) -> bool:
        """Whether FFmpeg has a name for it: encoders take no other."""
        return self.channels > 0 and " " not in self.name

    @property
    def has_own_order(self) -> bool:
        """Whether the channels are in an order that no name stands for."""
        return "(" in self.name


def sound_layout(holder: Any) -> SoundLayout:
    """The channels of an audio codec context, or of a frame of sound."""
    layout = holder.layout
    _keep_for_ever(layout)
    return SoundLayout(layout.nb_channels, layout.name if layout.nb_channels else "")


def give_plain_layout(context: Any) -> SoundLayout:
    """Prepare a decoder that is not open yet; its layout as `sound_layout` says.

    A layout that has a name may still be stored as a list of channels: it is replaced by the
    named one, so that the frames decoded from it are harmless.
    """
    layout = sound_layout(context)
    if layout.is_named and not context.is_open:
        context.layout = layout.name
    return layout


def decode_sound(context: Any, packet: av.Packet[Any] | None) -> list[av.AudioFrame]:
    """Decode one packet of sound, or flush with None. Raises what the decoder says."""
    frames: list[av.AudioFrame] = context.decode(packet)
    listed = context.profile == "xHE-AAC"  # its decoder lists channels whatever their order
    for frame in frames:
        if listed or "(" in frame.layout.name:
            _keep_for_ever(frame.layout)
    return frames


class SideDataReader:
    """Reads the side data of frames, as copies. One thread owns it.

    It looks at a small copy of each frame: PyAV's side data and its frame hold each other, and
    full pictures would pile up until the garbage is collected.
    """

    def __init__(self) -> None:
        self._shrink = VideoReformatter()

    def __call__(self, frame: av.VideoFrame) -> dict[str, bytes]:
        """Bytes by the name of their kind, such as A53_CC; {} where a frame has none."""
        try:
            small = self._shrink.reformat(
                frame, SMALL, SMALL, "gray", interpolation=Interpolation.POINT, threads=1
            )
        except (av.FFmpegError, ValueError):
            return {}  # swscale cannot read this format: nobody but its decoder can
        items: Any = small.side_data  # a mapping whose iterator gives the items
        found = {item.type.name: bytes(item) for item in items}
        if Type.ICC_PROFILE.name in found:
            _keep_for_ever(items)
        return found
