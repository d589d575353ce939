"""Sentences about inputs, for `oasis info`; nothing here needs PyTorch."""

from fractions import Fraction

from oasis_cli.cli.console import duration, visible
from oasis_cli.media.icc import profile_name
from oasis_cli.media.info import MediaInfo, StreamInfo, VideoInfo, rate_text
from oasis_cli.media.input.reader import Reader, ReadOptions


def info_lines(info: MediaInfo, frames: int | None = None) -> list[str]:
    """What `oasis info` prints. frames: how many were decoded, when they were counted."""
    length = f", {duration(info.duration)}" if info.duration else ""
    lines = [f"{info.path}: {info.format}{length}"]
    if info.parts > 1:
        lines.append(f"parts: {info.parts} files one behind the other, read as one")
    if info.missing:
        lines.append(f"cut off: {info.missing} bytes are missing at its end")
    lines += video_lines(info.video)
    if frames is not None:
        lines.append(f"  frames    {frames} decoded")
    elif info.video.claimed_frames:
        lines.append(f"  frames    {info.video.claimed_frames} by the container (--count decodes)")
    for stream in info.streams:
        if stream.index != info.video.index:
            lines.append(stream_line(stream))
    lines += [f"chapter: {chapter_title(c)}" for c in info.chapters]
    lines += [f"{key}: {value}" for key, value in sorted(info.metadata.items())]
    return [visible(line, keep="") for line in lines]


def video_lines(video: VideoInfo) -> list[str]:
    """The stream that would be enlarged."""
    color = ", ".join(f"{kind} {name}" for kind, name in video.color.names().items())
    lines = [
        f"video #{video.index}: {video.codec}, {video.width}x{video.height}, {video.pix_fmt}, "
        f"{rate_text(video.rate)} frames/s",
        f"  colour    {color or 'untagged'}",
    ]
    if video.icc:
        lines.append(f"  profile   {profile_name(video.icc)}")
    if video.sar is not None:
        lines.append(f"  pixels    {video.sar.numerator}:{video.sar.denominator} (not square)")
    if video.rotation:
        lines.append(f"  rotation  {video.rotation} degrees")
    if video.interlaced:
        lines.append("  interlaced")
    if video.is_hdr:
        lines.append("  HDR" + (" with mastering metadata" if video.hdr else ""))
    flags = {"Dolby Vision": video.dolby_vision, "HDR10+": video.hdr10_plus,
             "closed captions": video.captions, "a second view": video.second_view}  # fmt: skip
    lines += [f"  carries   {name}" for name, there in flags.items() if there]
    return lines


def stream_line(stream: StreamInfo) -> str:
    """Any other stream."""
    parts = [stream.codec, stream.detail, stream.language or "", stream.metadata.get("title", "")]
    return f"{stream.kind} #{stream.index}: " + ", ".join(part for part in parts if part)


def chapter_title(chapter: dict[str, object]) -> str:
    """A chapter's title and start."""
    metadata = chapter.get("metadata")
    title = metadata.get("title", "") if isinstance(metadata, dict) else ""
    begin = Fraction(str(chapter.get("start", 0))) * Fraction(str(chapter.get("time_base", 1)))
    return f"{title or 'untitled'} at {duration(float(begin))}"


def count_frames(info: MediaInfo) -> int:
    """Decode everything and count."""
    with Reader(info, ReadOptions(deinterlace="off")) as reader:
        return sum(1 for _ in reader)
