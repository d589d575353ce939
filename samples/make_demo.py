"""Make samples/demo.mp4: two seconds that look like an old web rip.

    python samples/make_demo.py

Three shots (a portrait, a launch, a cup) from pictures that scikit-image ships, each with camera
motion and a printed sign. The clean 1280x720 shots are blurred, shrunk to 320x180, made noisy and
squeezed through x264 at a low quality. A stereo tune and a subtitle track are made here as well.
`--clean FILE` also writes the clean 1280x720 version, lossless: the reference for `oasis metrics`.
"""

import argparse
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.subtitles.subtitle import SubtitleSet
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import gaussian_filter
from skimage import data

HERE = Path(__file__).parent
CLEAN = (1280, 720)
SMALL = (320, 180)
RATE = 25
SHOT_FRAMES = 17
SOUND_RATE = 48_000

# name, sign on the wall, centre (x, y) and width of the view at the start and the end, as shares
# of the picture's width. A view is 16:9.
SHOTS = (
    ("astronaut", "COLLINS", (0.46, 0.30, 0.92), (0.44, 0.29, 0.74)),
    ("rocket", "PAD 40", (0.46, 0.33, 0.64), (0.46, 0.45, 0.68)),
    ("coffee", "ESPRESSO 2.40", (0.43, 0.32, 0.66), (0.50, 0.33, 0.68)),
)
ASS_HEADER = """[Script Info]
ScriptType: v4.00+
[V4+ Styles]
Format: Name, Fontname, Fontsize, PrimaryColour, SecondaryColour, OutlineColour, BackColour, Bold, \
Italic, Underline, StrikeOut, ScaleX, ScaleY, Spacing, Angle, BorderStyle, Outline, Shadow, \
Alignment, MarginL, MarginR, MarginV, Encoding
Style: Default,Arial,16,&Hffffff,&Hffffff,&H0,&H0,0,0,0,0,100,100,0,0,1,1,0,2,10,10,10,1
[Events]
Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text
"""
LINES = ("She commanded STS-93.", "Ignition, and lift-off.", "Time for a coffee.")


def picture(name: str, sign: str) -> Image.Image:
    """A shipped picture, three times larger, with a printed sign on it."""
    image = Image.fromarray(getattr(data, name)())
    image = image.resize((image.width * 3, image.height * 3), Image.Resampling.LANCZOS)
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(image.width / 26)
    x, y = {"astronaut": (0.08, 0.36), "rocket": (0.2, 0.3), "coffee": (0.19, 0.44)}[name]
    corner = (image.width * x, image.width * y)
    box = draw.textbbox(corner, sign, font=font)
    edge = image.width / 90
    draw.rectangle((box[0] - edge, box[1] - edge, box[2] + edge, box[3] + edge), fill="#f4f1e6")
    draw.text(corner, sign, font=font, fill="#1d2a44")
    return image


def clean_frames() -> Iterator[NDArray[np.uint8]]:
    """The shots before the damage: (720, 1280, 3)."""
    for name, sign, start, end in SHOTS:
        image = picture(name, sign)
        for number in range(SHOT_FRAMES):
            share = number / (SHOT_FRAMES - 1)
            x, y, width = (a + (b - a) * share for a, b in zip(start, end, strict=True))
            width *= image.width
            x = x * image.width + 3 * np.sin(number * 0.9)  # a hand holds this camera
            y = y * image.width + 2 * np.cos(number * 1.3)
            scale = width / CLEAN[0]
            view = (scale, 0, x - width / 2, 0, scale, y - width * CLEAN[1] / CLEAN[0] / 2)
            frame = image.transform(CLEAN, Image.Transform.AFFINE, view, Image.Resampling.BICUBIC)
            yield np.asarray(frame)


def damaged(frame: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """A clean frame, soft, small and noisy: (180, 320, 3)."""
    soft = gaussian_filter(frame.astype(np.float32), sigma=(2.6, 2.6, 0))
    small = soft.reshape(SMALL[1], 4, SMALL[0], 4, 3).mean(axis=(1, 3))
    noise = gaussian_filter(rng.normal(0, 9, small.shape), sigma=(0.5, 0.5, 0))
    return np.clip(small + noise + 0.5, 0, 255).astype(np.uint8)


def tune(seconds: float) -> NDArray[np.float32]:
    """A stereo arpeggio that walks from left to right: (2, samples) in [-1, 1]."""
    time = np.arange(int(seconds * SOUND_RATE)) / SOUND_RATE
    note = np.array([261.63, 329.63, 392.0, 523.25])[(time * 6).astype(int) % 4]
    wave = np.sin(2 * np.pi * note * time) * np.exp(-6 * ((time * 6) % 1))
    pan = time / seconds
    return (0.35 * np.stack([wave * (1 - pan), wave * pan])).astype(np.float32)


def write_sound(box: av.container.OutputContainer, stream: av.AudioStream, seconds: float) -> None:
    """Encode the tune in pieces of the codec's size."""
    samples = tune(seconds)
    for start in range(0, samples.shape[1], 1024):
        piece = np.ascontiguousarray(samples[:, start : start + 1024])
        frame = av.AudioFrame.from_ndarray(piece, format="fltp", layout="stereo")
        frame.sample_rate, frame.pts = SOUND_RATE, start
        frame.time_base = Fraction(1, SOUND_RATE)
        box.mux(stream.encode(frame))
    box.mux(stream.encode(None))


def write_lines(box: av.container.OutputContainer, stream: Any, shot_seconds: float) -> None:
    """One subtitle for each shot."""
    for number, line in enumerate(LINES):
        entry = SubtitleSet.create(f"{number},0,Default,,0,0,0,,{line}".encode(), 0, 1)
        packet = stream.codec_context.encode_subtitle(entry)
        packet.time_base, packet.stream = Fraction(1, 1000), stream
        packet.pts = packet.dts = round(1000 * shot_seconds * number)
        packet.duration = round(1000 * shot_seconds)
        box.mux(packet)


def write_video(
    box: av.container.OutputContainer, stream: Any, frames: Iterable[NDArray[np.uint8]]
) -> None:
    """Encode RGB frames at the stream's rate."""
    for number, pixels in enumerate(frames):
        frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
        if stream.pix_fmt == "yuv420p":
            frame = frame.reformat(
                format="yuv420p", dst_colorspace="ITU601", dst_color_range="MPEG"
            )
        frame.pts, frame.time_base = number, Fraction(1, RATE)
        box.mux(stream.encode(frame))
    box.mux(stream.encode(None))


def write_demo(path: Path) -> None:
    """The damaged clip with its sound and subtitles."""
    with av.open(path, "w", options={"movflags": "+faststart"}) as box:
        box.metadata["title"] = "oasis sample"
        video: Any = box.add_stream("libx264", rate=RATE, options={"crf": "29", "preset": "medium"})
        video.width, video.height = SMALL
        video.pix_fmt = "yuv420p"
        colour = video.codec_context
        colour.color_primaries = colour.color_trc = colour.colorspace = 6  # SMPTE 170M
        colour.color_range = 1
        sound: Any = box.add_stream("aac", rate=SOUND_RATE, layout="stereo")
        sound.bit_rate = 96_000
        lines: Any = box.add_stream("mov_text")
        lines.codec_context.time_base = lines.time_base = Fraction(1, 1000)
        lines.codec_context.subtitle_header = ASS_HEADER.encode()
        sound.metadata["language"] = lines.metadata["language"] = "eng"
        rng = np.random.default_rng(2026)
        shot = SHOT_FRAMES / RATE
        write_lines(box, lines, shot)
        write_sound(box, sound, len(SHOTS) * shot)
        write_video(box, video, (damaged(frame, rng) for frame in clean_frames()))


def write_clean(path: Path) -> None:
    """The clip before the damage, lossless RGB, without sound."""
    with av.open(path, "w") as box:
        video: Any = box.add_stream("ffv1", rate=RATE)
        video.width, video.height = CLEAN
        video.pix_fmt = "bgr0"
        write_video(box, video, clean_frames())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=HERE / "demo.mp4")
    parser.add_argument("--clean", type=Path, help="also write the undamaged clip here (.mkv)")
    args = parser.parse_args()
    write_demo(args.out)
    print(f"wrote {args.out} ({args.out.stat().st_size // 1024} KiB)")
    if args.clean:
        write_clean(args.clean)
        print(f"wrote {args.clean}")


if __name__ == "__main__":
    main()
