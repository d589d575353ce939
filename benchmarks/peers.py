"""oasis beside the tools that people use, on the same clips and the same frames: one table.

    pip install '.[peers]'
    python benchmarks/peers.py --data DATA --frames 9 --json peers.json
    python benchmarks/peers.py --data DATA --only lanczos span oasis:mine.safetensors

DATA holds eval/ (pairs NAME.lr.mkv, NAME.hr.mkv) and perceptual/ (features). Each peer enlarges
all clips in a process of its own (`peer.py`), on the CPU. A peer that is not installed is named and
left out. Y-PSNR, SSIM, LPIPS and the VGG distance are those of `quality.py`, flicker is that of
`judge.py`. CPU seconds are those of all threads together: other work on the machine hardly changes
them, while it changes seconds. Weights keep their makers' licences: they are compared, not shipped.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from judges.cases import eight_bits, read
from peer import NETS, NOT_HERE, OASIS, SCALERS, threads
from quality import BORDER, FRAMES
from torch import Tensor

from oasis_cli.checkpoints.registry import DEFAULT
from oasis_cli.evaluation.align import find_shift
from oasis_cli.evaluation.metrics import pixels
from oasis_cli.evaluation.metrics.flicker import flicker
from oasis_cli.evaluation.metrics.perceptual import SqueezeLpips
from oasis_cli.evaluation.metrics.vgg import VggFeatures
from oasis_cli.model.latent import bicubic_upsample
from oasis_cli.pipeline.clips import Clip

CHILD = Path(__file__).with_name("peer.py")
COLUMNS = {
    "psnr": ("Y-PSNR", "{:.2f}"),
    "ssim": ("Y-SSIM", "{:.3f}"),
    "lpips": ("LPIPS", "{:.3f}"),
    "vgg": ("VGG distance", "{:.3f}"),
    "flicker": ("flicker", "{:.2f}"),
    "seconds": ("s a frame", "{:.3g}"),
    "cpu_seconds": ("CPU s a frame", "{:.3g}"),
    "peak_bytes": ("peak memory, MB", "{:.0f}"),
}
"""Name in the JSON -> title and format in the table."""

Row = dict[str, Any]


def made(name: str, clips: list[Path], frames: int, folder: Path) -> Row:
    """Let a peer enlarge all clips into a folder. Returns what it measured, or {"missing": why}."""
    command = [sys.executable, CHILD, name, folder, frames, *(_low(path) for path in clips)]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    last = (done.stdout.strip().splitlines() or [""])[-1]
    if done.returncode == NOT_HERE:
        return {"missing": last}
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        return {"missing": reason}
    found: Row = json.loads(last)
    return found


def _low(path: Path) -> Path:
    return path.with_name(path.name.replace(".hr.", ".lr."))


def scored(
    out: Tensor,
    high: Tensor,
    base: Tensor,
    lpips: SqueezeLpips | None,
    vgg: VggFeatures | None,
) -> dict[str, float]:
    """One clip's scores. out, high, base: (T, 3, H, W) in [-1, 1]."""
    some = [n for n in FRAMES if n < len(out)]
    a, b = (pixels.crop(x[some], BORDER) for x in (out, high))
    row = {
        "psnr": pixels.psnr_luma(a, b).mean().item(),
        "ssim": pixels.ssim(a, b).mean().item(),
    }
    if lpips is not None:
        row["lpips"] = lpips(out[some], high[some]).mean().item()
    if vgg is not None:
        row["vgg"] = vgg(out[some], high[some]).mean().item()
    if len(out) > 1:
        row["flicker"] = flicker(out, base).nanmean().item()
    return row


def off(out: Tensor, base: Tensor) -> str:
    """Where a peer's pictures lie against the bicubic ones, if that is elsewhere."""
    found = find_shift(Clip.of("out", out), Clip.of("base", base))
    return str(found) if found else ""


def compare(
    names: list[str], clips: list[Path], frames: int, perceptual: Path
) -> tuple[dict[str, Row], dict[str, str]]:
    """The table's rows, and why other peers are left out."""
    lpips = _features(perceptual / "squeezenet_lpips.safetensors", SqueezeLpips)
    vgg = _features(perceptual / "vgg16_features.safetensors", VggFeatures)
    rows: dict[str, Row] = {}
    left_out: dict[str, str] = {}
    with TemporaryDirectory() as work:
        for name in names:
            folder = Path(work) / name.replace("/", "_")
            found = made(name, clips, frames, folder)
            if "missing" in found:
                left_out[name] = found["missing"]
                continue
            rows[name] = found | {"clips": {}, "off": {}}
            print(f"{name}: {found['seconds']:.3g} s a frame", file=sys.stderr)
        for path in clips:
            high = read(path, frames)
            size = (high.shape[-2], high.shape[-1])
            base = eight_bits(bicubic_upsample(read(_low(path), frames), size))
            clip = path.name.split(".")[0]
            for name, row in rows.items():
                out = read(Path(work) / name.replace("/", "_") / f"{clip}.mkv")
                row["clips"][clip] = scored(out, high, base, lpips, vgg)
                if elsewhere := off(out, base):
                    row["off"][clip] = elsewhere
            print(f"{path.name} scored", file=sys.stderr)
    for row in rows.values():
        every = list(row["clips"].values())
        row |= {key: sum(one[key] for one in every) / len(every) for key in every[0]}
    return rows, left_out


def _features(path: Path, kind: Any) -> Any:
    return kind(path) if path.is_file() else None


def as_markdown(rows: dict[str, Row]) -> str:
    """One line for each peer."""
    shown = [key for key in COLUMNS if all(key in row for row in rows.values())]
    lines = ["| | " + " | ".join(COLUMNS[key][0] for key in shown) + " |"]
    lines.append("| --- " * (1 + len(shown)) + "|")
    for name, row in rows.items():
        values = {**row, "peak_bytes": row["peak_bytes"] / 1e6}
        cells = [COLUMNS[key][1].format(values[key]) for key in shown]
        lines.append(f"| {name.removeprefix(OASIS)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def machine() -> str:
    """Processor, threads and system."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        found = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        name = found[0].split(":", 1)[1].strip() if found else name
    return f"{name}, {threads()} threads of {os.cpu_count()}, {platform.system()}"


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    everybody = [*SCALERS, *NETS, OASIS + DEFAULT]
    parser.add_argument("--data", type=Path, default=Path("data"), help="holds eval, perceptual")
    parser.add_argument("--pairs", type=Path, help="instead of DATA/eval")
    parser.add_argument("--only", nargs="+", metavar="PEER", help=", ".join(everybody))
    parser.add_argument("--frames", type=int, default=9, help="frames of each clip")
    parser.add_argument("--json", type=Path, help="write the numbers here")
    args = parser.parse_args()
    folder = args.pairs or args.data / "eval"
    clips = sorted(folder.glob("*.hr.mkv"))
    if not clips:
        sys.exit(f"error: there is no *.hr.mkv in {folder}")
    names = args.only or everybody
    if unknown := [n for n in names if n not in everybody and not n.startswith(OASIS)]:
        sys.exit(f"error: there is no peer {unknown[0]}; known: {', '.join(everybody)}")
    rows, left_out = compare(names, clips, args.frames, args.data / "perceptual")
    where = {"date": str(date.today()), "machine": machine(), "frames": args.frames}
    if rows:
        print(as_markdown(rows))
    print(f"\n{len(clips)} clips of {args.frames} frames, {where['date']}, {where['machine']}")
    for name, row in rows.items():
        print(f"{name.removeprefix(OASIS)}: {row['version']}")
        for clip, elsewhere in row["off"].items():
            print(f"  {clip} lies off the input: {elsewhere}")
    for name, reason in left_out.items():
        print(f"{name} left out: {reason}")
    if args.json:
        data = where | {"peers": rows, "left_out": left_out}
        args.json.write_text(json.dumps(data, indent=2) + "\n")


if __name__ == "__main__":
    main()
