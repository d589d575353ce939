"""Draw docs/images/real.webp, real clips before and after: python docs/make_real.py FOLDER [MODEL]

FOLDER holds tree.avi and box.mp4 as OpenCV's documentation has them (on Debian: the package
opencv-doc, box.mp4 unpacked), and drone_320x240.mp4 and raw_hevc.h265, of which gallery_places.py
says where they are found. Left the frame enlarged four times by bicubic interpolation, right by the
model, which saw 17 frames.

OpenCV's vtest.avi is not among them: nobody says who filmed it, or under which licence.
"""

import sys
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from oasis_cli.checkpoints.format import load_model
from oasis_cli.checkpoints.registry import DEFAULT
from oasis_cli.media.pictures import encode_picture
from oasis_cli.model.latent import bicubic_upsample
from oasis_cli.pipeline.clips import open_clip

TARGET = Path(__file__).parent / "images" / "real.webp"
PLACES = (
    ("tree.avi", 0, 130, 70),
    ("tree.avi", 52, 150, 40),
    ("box.mp4", 192, 250, 105),
    ("drone_320x240.mp4", 67, 184, 24),
    ("raw_hevc.h265", 4, 125, 140),
)
"""(file, first frame, left, top) of what is shown."""
WIDTH, HEIGHT, MARGIN = 120, 80, 16
SCALE, WINDOW = 4, 17


def clip_at(path: Path, first: int, left: int, top: int) -> Tensor:
    """(WINDOW, 3, h, w) in [-1, 1]: the place and a margin around it."""
    rows, cols = (
        slice(start - MARGIN, start + size + MARGIN)
        for start, size in ((top, HEIGHT), (left, WIDTH))
    )
    frames = islice(open_clip(path).frames(), first, first + WINDOW)
    return torch.stack([frame[:, rows, cols] for frame in frames])


@torch.inference_mode()
def main() -> None:
    model = load_model(sys.argv[2] if len(sys.argv) > 2 else DEFAULT, device="cpu")
    rows = []
    for name, *place in PLACES:
        low = clip_at(Path(sys.argv[1]) / name, *place)
        size = (low.shape[-2] * SCALE, low.shape[-1] * SCALE)
        both = [bicubic_upsample(low, size)[WINDOW // 2], model(low[None], size)[0, WINDOW // 2]]
        edge = MARGIN * SCALE
        rows.append(torch.cat([frame[:, edge:-edge, edge:-edge] for frame in both], dim=2))
    sheet = torch.cat(rows, dim=1).clamp(-1, 1).add(1).mul(127.5).round().to(torch.uint8)
    TARGET.write_bytes(encode_picture(sheet.permute(1, 2, 0).numpy(), "webp", quality=80))


if __name__ == "__main__":
    main()
