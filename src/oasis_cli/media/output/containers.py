"""The containers we write: their suffixes, their options, which tags they keep."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path

from oasis_cli.errors import UsageError
from oasis_cli.media.info import MediaInfo
from oasis_cli.media.input.stills import is_pattern

MUXERS = {
    ".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".qt": "mov", ".mkv": "matroska",
    ".webm": "webm", ".ts": "mpegts", ".m2ts": "mpegts", ".mts": "mpegts", ".nut": "nut",
    ".gif": "gif", ".apng": "apng", ".y4m": "yuv4mpegpipe", ".yuv": "rawvideo",
    ".png": "images", ".jpg": "images", ".jpeg": "images", ".tif": "images", ".tiff": "images",
    ".webp": "images",
}  # fmt: skip
PICTURE_CODECS = {
    ".png": "png", ".jpg": "mjpeg", ".jpeg": "mjpeg", ".tif": "tiff", ".tiff": "tiff",
    ".webp": "libwebp",
}  # fmt: skip
PIPE_FORMATS = {
    "nut": "nut", "matroska": "matroska", "mkv": "matroska", "mpegts": "mpegts", "ts": "mpegts",
    "mp4": "mp4", "y4m": "yuv4mpegpipe", "rawvideo": "rawvideo",
}  # fmt: skip
CONSTANT_RATE = {"yuv4mpegpipe", "rawvideo"}
CHAPTERS = {"mp4", "mov", "matroska", "webm", "nut"}
"""Those that hold chapters."""
ROTATES = {"mp4", "mov", "matroska", "webm"}
STALE_TAGS = {
    "major_brand", "minor_version", "compatible_brands", "encoder", "duration", "creation_tool",
    "number_of_frames", "number_of_bytes", "bps",
}  # fmt: skip
"""Container keys that describe the old file; copied, they would reappear as wrong tags."""
MP4_TAGS = {
    "title", "artist", "album_artist", "composer", "album", "date", "comment", "genre",
    "copyright", "grouping", "lyrics", "description", "synopsis", "show", "episode_id", "network",
    "keywords", "media_type", "hd_video", "compilation", "track", "disc", "rating",
}  # fmt: skip
"""Tags that every mp4 can hold."""


def choose_muxer(target: str, asked: str | None, info: MediaInfo) -> str:
    """The container: from --format, else from the suffix; a folder means a PNG sequence."""
    if asked is not None:
        if asked not in PIPE_FORMATS:
            raise UsageError(
                f"there is no output format {asked}",
                hint=f"choose one of {', '.join(PIPE_FORMATS)}",
            )
        return PIPE_FORMATS[asked]
    if target == "-":
        return "nut"
    path = Path(target)
    suffix = path.suffix.lower()
    folder = path.is_dir() and suffix not in MUXERS
    if target.endswith(("/", os.sep)) or folder or (not suffix and info.files):
        return "images"
    if suffix not in MUXERS:
        raise UsageError(
            f"{target}: no container is known by the suffix {suffix or '(none)'}",
            hint="choose .mp4, .mkv, .mov, .webm, .ts, .nut, .gif or .png, or pass --format",
        )
    single = MUXERS[suffix] == "images" and not is_pattern(path)
    if single and not info.is_still:
        raise UsageError(
            f"{target} is one picture, but the input is a video",
            hint=f"write {path.stem}_%05d{suffix}, or a folder",
        )
    return MUXERS[suffix]


def container_options(muxer: str, target: str, base: Fraction, *, cover: bool) -> dict[str, str]:
    """The muxer's options; `base` is the video's time base, `cover` whether there is a cover."""
    # Packets arrive in order, so the muxer need not wait its 10 s for a sparse subtitle stream.
    common = {"max_interleave_delta": "1000000"}
    if muxer in ("mp4", "mov"):
        # Start offsets are stored in this unit, by default milliseconds: 1/30 s would not fit.
        common["movie_timescale"] = str(base.denominator if base.denominator > 1000 else 90000)
        # Own tags and a cover exclude each other in FFmpeg's mp4: `own_tags_lost` says so.
        tags = "" if cover else "+use_metadata_tags"
        if target == "-":
            flags = "frag_keyframe+empty_moov+default_base_moof+frag_discont"
            # Else each track begins at 0: its first packet is moved there and lasts until the next.
            common |= {"avoid_negative_ts": "make_non_negative", "use_editlist": "0"}
            return {"movflags": f"{flags}{tags}"} | common
        return {"movflags": f"+faststart{tags}"} | common
    if muxer == "yuv4mpegpipe":
        return {"strict": "-1"}
    if muxer in ("gif", "apng"):
        return {"loop": "0"} if muxer == "gif" else {"plays": "0"}
    return common


def own_tags_lost(metadata: dict[str, str]) -> list[str]:
    """The tags that an mp4 with a cover cannot hold."""
    return sorted(k for k in clean_tags(metadata) if k.lower() not in MP4_TAGS)


def clean_tags(metadata: dict[str, str]) -> dict[str, str]:
    """The tags worth keeping: those about the work, not about the old file."""
    return {
        k: v
        for k, v in metadata.items()
        if k.lower() not in STALE_TAGS and not k.upper().startswith("_STATISTICS")
        and not k.upper().startswith(("DURATION", "BPS-", "NUMBER_OF_"))
    }  # fmt: skip
