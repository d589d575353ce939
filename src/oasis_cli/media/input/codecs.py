"""Codecs that change inside one track of a broadcast: FFmpeg keeps the first one's decoder."""

from __future__ import annotations

_START = bytes((0, 0, 1))


def _delimiters(head: bytes, kinds: tuple[int, ...]) -> tuple[bytes, ...]:
    """An access unit delimiter of each kind, and the zeros of the unit behind it."""
    units = [_START + head + bytes((kind, 0, 0)) for kind in kinds]
    return (*units, *(bytes(1) + unit for unit in units))


_SIGNS: dict[str, tuple[bytes, ...]] = {
    "mpeg2video": (_START + b"\xb3",),
    "h264": _delimiters(b"\x09", (0x10, 0x30, 0x50, 0x70, 0x90, 0xB0, 0xD0, 0xF0)),
    "hevc": _delimiters(b"\x46\x01", (0x10, 0x30, 0x50)),
}
"""How a picture begins: with a sequence header, or with the delimiter that MPEG-TS demands."""


HEAD = 16
"""Bytes of a packet that hold such a beginning."""


def other_codec(data: bytes, codec: str) -> tuple[int, str] | None:
    """Where in a packet the first picture begins that is not of `codec`, and its codec, by FFmpeg's
    name; None where there is none, or nobody can be sure.

    >>> other_codec(bytes((7, 0, 0, 1, 0xB3)), "h264")
    (1, 'mpeg2video')
    """
    codec = "mpeg2video" if codec == "mpeg1video" else codec  # they begin alike
    if codec not in _SIGNS:
        return None
    found = (
        (at, other)
        for other, signs in _SIGNS.items()
        for sign in signs
        if other != codec and (at := data.find(sign)) >= 0
    )
    return min(found, default=None)


_SOUND = {
    "aac": (b"\xff\xf0", b"\xff\xf6"),  # ADTS: the layer is 0
    "aac_latm": (b"\x56\xe0", b"\xff\xe0"),
    "mp2": (b"\xff\xe4", b"\xff\xe6"),
    "mp3": (b"\xff\xe2", b"\xff\xe6"),
    "ac3": (b"\x0b\x77", b"\xff\xff"),
    "dca": (b"\x7f\xfe", b"\xff\xff"),
}
"""How a frame of sound begins, and which of these bits count."""
_SOUND_NAMES = {"eac3": "ac3", "mp3float": "mp3", "mp2float": "mp2", "dts": "dca"}


def other_sound(head: bytes, codec: str) -> str | None:
    """The codec of a packet of sound that is not of `codec`; None where that is not sure.

    >>> other_sound(bytes((0xFF, 0xF1, 0x50)), "eac3"), other_sound(bytes((0x0B, 0x77)), "eac3")
    ('aac', None)
    """
    codec = _SOUND_NAMES.get(codec, codec)
    if codec not in _SOUND or len(head) < 2:
        return None
    fits = [
        name
        for name, (sign, mask) in _SOUND.items()
        if all(byte & bits == wanted for byte, bits, wanted in zip(head, mask, sign, strict=False))
    ]
    return fits[0] if fits and codec not in fits else None
