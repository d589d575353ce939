"""What an NVIDIA card does here: decoding (`--hwaccel cuda`) and encoding, against software.

    python benchmarks/nvidia.py [--frames 120] [--size 1280x720] [--json FILE]

Under a minute, unattended, no network. Decoders: each clip is decoded by the card and in software;
the planes must be equal, bit for bit. Encoders: each is opened; one that opens encodes the clip,
and the frames of the file are counted; one that does not says why, and which software is used
instead. Data-centre cards (A100, H100, H200) decode and do not encode. Exit code 1 when a card
decodes something else than software does, or an encoder that opens loses frames.
"""

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from oasis_cli.errors import OasisError
from oasis_cli.media.input.probe import probe
from oasis_cli.media.input.reader import Reader, ReadOptions
from oasis_cli.media.output.encoders import KINDS, SOFTWARE, opens
from oasis_cli.media.output.plan import EncodeOptions
from oasis_cli.media.testclip import write_test_clip
from oasis_cli.pipeline.run import Options, upscale

CLIPS = {
    "h264.mp4": EncodeOptions(codec="libx264", preset="veryfast"),
    "hevc10.mkv": EncodeOptions(codec="libx265", preset="ultrafast", pix_fmt="yuv420p10le"),
    "av1.mkv": EncodeOptions(codec="libsvtav1", preset="12"),
    "vp9.webm": EncodeOptions(codec="libvpx-vp9"),
}


def identity(low: Tensor, size: tuple[int, int], tile: int | None = None) -> Tensor:
    """Stands for the model."""
    return F.interpolate(low[0], size)[None]


def card() -> str:
    """The card's name and driver, as the driver says."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(query, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "none"


def decode(path: Path, mode: str) -> tuple[str, float, list[str]]:
    """Hash of all planes, frames a second, what the reader had to say."""
    digest, began = hashlib.sha256(), time.perf_counter()
    with Reader(probe(path), ReadOptions(hwaccel="cuda" if mode == "cuda" else "none")) as reader:
        count = 0
        for frame in reader:
            count += 1
            for plane in frame.planes:
                digest.update(plane.tobytes())
    seconds = time.perf_counter() - began
    return digest.hexdigest(), count / seconds, reader.report.warnings


def decoders(clips: list[Path]) -> list[dict[str, Any]]:
    """One row for each clip."""
    rows = []
    for path in clips:
        plain, slow, _ = decode(path, "none")
        found, fast, warnings = decode(path, "cuda")
        rows.append(
            {
                "clip": path.name,
                "on card": not any("in software" in text for text in warnings),
                "equal": plain == found,
                "software frames/s": round(slow, 1),
                "card frames/s": round(fast, 1),
                "said": warnings,
            }
        )
        print(f"decode {rows[-1]}", flush=True)
    return rows


def encoders(source: Path, frames: int) -> list[dict[str, Any]]:
    """One row for each NVENC encoder."""
    rows = []
    for codec in SOFTWARE:
        reason = opens(codec, KINDS[codec].formats[0], (512, 512))
        row: dict[str, Any] = {"codec": codec, "opens": reason is None, "reason": reason}
        target = source.with_name(f"{codec}.mp4")
        options = Options(scale=1, device="cpu", encode=EncodeOptions(codec=codec))
        began = time.perf_counter()
        try:
            upscale(source, target, options, model=identity)
            with Reader(probe(target)) as reader:
                row["frames"] = sum(1 for _ in reader)
            row["frames/s"] = round(frames / (time.perf_counter() - began), 1)
            row["written by"] = probe(target).video.codec
        except OasisError as error:
            row["error"] = str(error)
        row["ok"] = row.get("frames") == frames
        rows.append(row)
        print(f"encode {row}", flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--frames", type=int, default=120)
    parser.add_argument("--size", default="1280x720")
    parser.add_argument("--json", type=Path, help="write the numbers here")
    given = parser.parse_args()
    width, height = map(int, given.size.split("x"))
    print(f"card: {card()}; torch sees {torch.cuda.device_count()}", flush=True)
    with tempfile.TemporaryDirectory(prefix="oasis-nvidia-") as name:
        folder = Path(name)
        master = write_test_clip(folder / "in.mp4", (width, height), given.frames)
        clips = []
        for clip, encode in CLIPS.items():
            options = Options(scale=1, device="cpu", encode=encode)
            upscale(master, folder / clip, options, model=identity)
            clips.append(folder / clip)
        decoded, encoded = decoders(clips), encoders(master, given.frames)
    result = {"card": card(), "decoders": decoded, "encoders": encoded}
    if given.json:
        given.json.write_text(json.dumps(result, indent=2) + "\n")
    fine = all(row["equal"] for row in decoded)
    sys.exit(not (fine and all(row["ok"] for row in encoded)))


if __name__ == "__main__":
    main()
