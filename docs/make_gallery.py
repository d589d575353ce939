"""Make docs/gallery.md and its pictures: python docs/make_gallery.py CLIPS [--work out/gallery]

    pip install 'oasis-cli[peers]'          for Real-ESRGAN x4plus; left out without it
    python docs/make_gallery.py CLIPS

CLIPS is a folder with the files that SOURCES names, as their packages have them; what is missing is
skipped and named. Each place is cut out with a margin, and enlarged four times by whoever has a
name in the page: bicubic, x4plus, and each look of what `--model auto` chooses from (and of
--model). Some clips are damaged by this script first, since nobody publishes such ones freely. What
the networks made is kept in --work, so that the next run makes only what is new.

One picture a place: two cells in a row, and three frames in a row where flicker matters. The
sentences in gallery_places.py were written after looking. Look again when the weights change.
"""

import argparse
import hashlib
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from gallery_places import CHOSEN, PLACES, SEEN, SEEN_WITH, SOURCES, VERDICTS, Place, Verdict
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from oasis_cli.checkpoints.format import decoder_for, load_model, looks
from oasis_cli.checkpoints.registry import by_role, find, sha256
from oasis_cli.errors import OasisError
from oasis_cli.model.latent import bicubic_upsample
from oasis_cli.pipeline.clips import open_clip, to_pixels

HERE = Path(__file__).parent
PAGE, PICTURES = HERE / "gallery.md", HERE / "images" / "gallery"
SCALE, WINDOW, MARGIN = 4, 17, 16
WIDTH, HEIGHT = 96, 64
"""Of a place, in the input's pixels."""
IN_A_ROW = 3
"""Frames of a moving picture."""
PACE = 250
"""Milliseconds of each."""
STRIP, GAP = 26, 4
"""Height of a label, and what lies between cells, in pixels."""
QUALITY = 86
"""Of WebP."""
PEER = "realesrgan-x4plus"

Frames = NDArray[np.uint8]
"""(T, H, W, 3), RGB."""
Maker = Callable[[Frames], Frames]
"""Enlarges a clip four times."""


def cut_out(path: Path, place: Place) -> Frames:
    """WINDOW frames of a place and the margin around it, where the picture has one."""
    left, top = max(0, place.left - MARGIN), max(0, place.top - MARGIN)
    rows = slice(top, place.top + HEIGHT + MARGIN)
    cols = slice(left, place.left + WIDTH + MARGIN)
    clip = open_clip(path)
    if place.left + WIDTH > clip.size[0] or place.top + HEIGHT > clip.size[1]:
        sys.exit(f"error: the place {place.name} is not within {clip.size[0]}x{clip.size[1]}")
    frames = islice(clip.frames(), place.first, place.first + WINDOW)
    return np.stack([to_pixels(frame)[rows, cols].numpy() for frame in frames])


def shown(place: Place, frames: int) -> range:
    """The frames of a clip that are shown: one in its middle, or three around it."""
    count = IN_A_ROW if place.moves else 1
    first = (frames - count) // 2
    return range(first, first + count)


def trimmed(frames: Frames, place: Place, scale: int) -> Frames:
    """Frames without their margin. scale: theirs against the input's."""
    left, top = min(place.left, MARGIN) * scale, min(place.top, MARGIN) * scale
    return frames[:, top : top + HEIGHT * scale, left : left + WIDTH * scale]


def nearest(low: Frames) -> Frames:
    """The input itself, with pixels that one can count."""
    return low.repeat(SCALE, 1).repeat(SCALE, 2)


def bicubic(low: Frames) -> Frames:
    """The plain enlargement that oasis starts from."""
    big = bicubic_upsample(_clip(low), (low.shape[1] * SCALE, low.shape[2] * SCALE))
    return _pixels(big)


def oasis(name: str, look: str) -> Maker:
    """A model of ours with one of its looks."""
    network = load_model(name, decoder=decoder_for(name, look))

    @torch.inference_mode()
    def enlarged(low: Frames) -> Frames:
        size = (low.shape[1] * SCALE, low.shape[2] * SCALE)
        return _pixels(network(_clip(low)[None], size)[0])

    return enlarged


def _clip(frames: Frames) -> torch.Tensor:
    return torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 127.5 - 1


def _pixels(clip: torch.Tensor) -> Frames:
    return np.stack([to_pixels(frame).numpy() for frame in clip])


def peer() -> tuple[Maker, str] | None:
    """Real-ESRGAN x4plus and its version, or None where it is not installed."""
    sys.path.insert(0, str(HERE.parent / "benchmarks"))
    from peer import Missing, called

    try:
        enlarged, version = called(PEER)
    except Missing as error:
        print(f"{PEER} is left out: {error}", file=sys.stderr)
        return None
    return lambda low: np.stack(enlarged(list(low))), version


def models(more: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    """Title, model and look of each column of ours: what `--model auto` chooses from, and more."""
    known = (by_role(role) for role in ("small", "base"))
    here = [entry.name for entry in known if entry is not None and entry.path]
    for name in [*here, *more]:
        for look in looks(name):
            title = Path(name).stem if len(looks(name)) == 1 else f"{Path(name).stem} ({look})"
            yield title, name, look


class Kept:
    """What a network made of a clip, on the disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def __call__(self, who: str, low: Frames, make: Maker) -> Frames:
        """What `who` (a name that changes with its weights) makes of these pixels."""
        key = hashlib.sha256(who.encode() + repr(low.shape).encode() + low.tobytes()).hexdigest()
        path = self.folder / f"{key[:24]}.npy"
        if not path.is_file():
            np.save(path, make(low))
        return np.asarray(np.load(path), np.uint8)


def sheet(cells: Mapping[str, Frames]) -> list[Image.Image]:
    """One picture for each frame: two cells in a row, each under its name."""
    frames, height, width, _ = next(iter(cells.values())).shape
    rows = -(-len(cells) // 2)
    font = ImageFont.load_default(18)
    out = []
    for number in range(frames):
        size = (2 * width + GAP, rows * (height + STRIP) + (rows - 1) * GAP)
        page = Image.new("RGB", size, "#202020")
        pen = ImageDraw.Draw(page)
        for place, (name, pictures) in enumerate(cells.items()):
            x, y = place % 2 * (width + GAP), place // 2 * (height + STRIP + GAP)
            pen.text((x + 6, y + STRIP // 2), name, fill="white", font=font, anchor="lm")
            page.paste(Image.fromarray(pictures[number]), (x, y + STRIP))
        out.append(page)
    return out


def save(pictures: Sequence[Image.Image], path: Path) -> None:
    """A WebP file; it moves if there is more than one picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    first, *rest = pictures
    more = {"save_all": True, "append_images": rest, "duration": PACE, "loop": 0} if rest else {}
    first.save(path, quality=QUALITY, **more)


def clip_of(key: str, clips: Path, work: Path) -> Path | None:
    """The clip that networks see: as it is, or the worse one. None where it is missing."""
    source = SOURCES[key]
    path = clips / source.file
    if not path.is_file():
        print(f"{source.file} is missing: its places are left out", file=sys.stderr)
        return None
    if source.damage is None:
        return path
    worse = work / f"{key}{source.suffix}"
    source.damage(path, worse)
    return worse


@dataclass(frozen=True, slots=True)
class Column:
    """Somebody who enlarges places."""

    title: str
    make: Maker
    version: str = ""
    """Changes when the pictures may; what it makes is kept if it has one."""
    alone: bool = False
    """Frame by frame: it sees only those that are shown."""


def columns(more: Sequence[str]) -> list[Column]:
    """Everybody who is here, in the order of the page."""
    found = [Column("input", nearest, alone=True), Column("bicubic", bicubic, alone=True)]
    if peer_here := peer():
        make, version = peer_here
        found.append(Column("Real-ESRGAN x4plus", make, version, alone=True))
    for title, name, look in models(more):
        found.append(Column(title, oasis(name, look), f"SHA-256 {sha256(find(name))[:16]}, {look}"))
    return found


def cells(place: Place, clip: Path, everybody: Sequence[Column], kept: Kept) -> dict[str, Frames]:
    """A place as each column shows it."""
    low, out = cut_out(clip, place), {}
    some = list(shown(place, len(low)))
    for column in everybody:
        seen = low[some] if column.alone else low
        high = kept(column.version, seen, column.make) if column.version else column.make(seen)
        out[column.title] = trimmed(high if column.alone else high[some], place, SCALE)
    return out


def gallery(
    clips: Path, wanted: Sequence[Place], everybody: Sequence[Column], kept: Kept
) -> list[Place]:
    """Make the pictures. Returns the places that are there."""
    with TemporaryDirectory() as work:
        keys = {place.source for place in wanted}
        paths = {key: clip_of(key, clips, Path(work)) for key in SOURCES if key in keys}
        places = []
        for place in wanted:
            if clip := paths[place.source]:
                pictures = sheet(cells(place, clip, everybody, kept))
                save(pictures, PICTURES / f"{place.name}.webp")
                places.append(place)
                print(place.name, file=sys.stderr)
    return places


INTRO = """# Gallery

Places of {width}x{height} pixels in clips that may be shown, enlarged four times. Each network saw
the place and up to {margin} pixels around it. oasis saw up to {window} frames, the others one. The
input is drawn with square pixels. Row by row a picture shows: {columns}. Moving pictures are three
frames in a row, slowed down: watch for flicker.

**Fails** marks what oasis does wrong. The sentences say what was seen on {seen}, with
{weights}. Make [a blind test](measuring.md#ask-others-which-is-better) of your own clips.

Chosen blind on {seen}, by one judge who works on oasis, with places and sides in random order:
x4plus at {x4plus} places, oasis-base's sharp look at {oasis}, no difference at {same}. Where one
was chosen, it was oasis in {share:.0%} (95 % interval: {least:.0%} to {most:.0%}).

{made_by}

`python docs/make_gallery.py CLIPS` makes this page. CLIPS is a folder with the clips that are
credited below; `docs/gallery_places.py` says where they come from.
"""


def page(places: Sequence[Place], everybody: Sequence[Column]) -> str:
    """The page's text."""
    ours, theirs, same = (len(CHOSEN[name]) for name in ("oasis", "x4plus", "the same"))
    least, most = wilson(ours, ours + theirs)
    parts = [
        INTRO.format(
            oasis=ours,
            x4plus=theirs,
            same=same,
            share=ours / (ours + theirs),
            least=least,
            most=most,
            width=WIDTH,
            height=HEIGHT,
            margin=MARGIN,
            window=WINDOW,
            columns=", ".join(column.title for column in everybody),
            seen=SEEN,
            weights="these weights"
            if any(SEEN_WITH in column.version for column in everybody)
            else f"other weights ({SEEN_WITH}): they may not hold",
            made_by="\n".join(f"- {c.title}: {c.version}" for c in everybody if c.version),
        )
    ]
    verdicts = {place.name: VERDICTS.get(place.name, Verdict("")) for place in places}
    if failures := [place for place in places if verdicts[place.name].fails]:
        names = ", ".join(f"[{p.title}](#{anchor(p.title)})" for p in failures)
        parts.append(f"Failures: {names}.\n")
    for place in places:
        source, verdict = SOURCES[place.source], verdicts[place.name]
        made = f" Here {source.about}." if source.about else ""
        lines = [f"## {place.title}", f"![{place.title}](images/gallery/{place.name}.webp)"]
        lines += [verdict.seen] if verdict.seen else []
        lines += [f"**Fails:** {verdict.fails}"] if verdict.fails else []
        lines += [f"From {source.credit}.{made}"]
        parts.append("\n\n".join(lines) + "\n")
    return "\n\n".join(wrapped(block) for block in "\n".join(parts).strip().split("\n\n")) + "\n"


def wilson(hits: int, count: int) -> tuple[float, float]:
    """Wilson's 95 % interval for a share.

    >>> [round(end, 3) for end in wilson(5, 10)]
    [0.237, 0.763]
    """
    z2 = 1.959964**2
    middle, reach = hits + z2 / 2, (z2 * (hits * (count - hits) / count + z2 / 4)) ** 0.5
    return (middle - reach) / (count + z2), (middle + reach) / (count + z2)


def wrapped(block: str) -> str:
    """A paragraph in lines of 100 columns; headings, pictures and lists as they are."""
    if block.startswith(("#", "!", "- ")):
        return block
    return textwrap.fill(block, 100, break_long_words=False, break_on_hyphens=False)


def anchor(title: str) -> str:
    """The address that Markdown gives a heading.

    >>> anchor("Text: a sign")
    'text-a-sign'
    """
    kept = "".join(c for c in title.lower() if c.isalnum() or c in " -")
    return kept.replace(" ", "-")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("clips", type=Path, help="folder with the clips")
    parser.add_argument("--work", type=Path, default=HERE.parent / "out" / "gallery")
    parser.add_argument("--model", nargs="+", default=[], help="more models, by path")
    parser.add_argument("--only", nargs="+", metavar="PLACE", help="a page of these alone")
    args = parser.parse_args()
    wanted = [place for place in PLACES if place.name in (args.only or [p.name for p in PLACES])]
    try:
        everybody = columns(args.model)
        places = gallery(args.clips, wanted, everybody, Kept(args.work))
    except OasisError as error:
        sys.exit(f"error: {error}")
    if not places:
        sys.exit(f"error: {args.clips} holds none of the clips")
    PAGE.write_text(page(places, everybody), encoding="utf-8")
    for path in PICTURES.glob("*.webp"):
        if path.stem not in [place.name for place in places]:
            path.unlink()  # no page shows it
    total = sum(path.stat().st_size for path in PICTURES.glob("*.webp"))
    print(f"{len(places)} places of {len(PLACES)}, {total / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
