"""Scores of a model against bicubic on pairs of clips: NAME.lr.mkv beside NAME.hr.mkv.

    python benchmarks/quality.py FOLDER [--model NAME|PATH] [--perceptual FILE] [--vgg FILE]

Every clip runs as one window of frames at the size of its reference. PSNR and SSIM of the luma
leave 8 pixels out on each side and look at frames 0, 4 and 8, as do LPIPS and the VGG distance
(whole frames); the temporal error is that of all frames over bicubic's: 1 is as steady as that.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from judges.cases import eight_bits, read
from torch import Tensor

from oasis_cli.checkpoints.format import load_model
from oasis_cli.checkpoints.registry import DEFAULT
from oasis_cli.evaluation.metrics import flow, pixels
from oasis_cli.evaluation.metrics.perceptual import SqueezeLpips
from oasis_cli.evaluation.metrics.vgg import VggFeatures
from oasis_cli.model.latent import bicubic_upsample
from oasis_cli.model.oasis import Oasis
from oasis_cli.pipeline.fidelity import COLOR_FIXES, ColorFix, faithful

BORDER, FRAMES = 8, (0, 4, 8)


def scores(
    out: Tensor,
    high: Tensor,
    base: Tensor,
    lpips: SqueezeLpips | None,
    vgg: VggFeatures | None = None,
) -> dict[str, float]:
    """Mean scores of one clip. out, high, base: (T, 3, H, W) in [-1, 1]."""
    some = [n for n in FRAMES if n < len(out)]
    a, b = (pixels.crop(x[some], BORDER) for x in (out, high))
    error, basis = pixels.temporal_error(out, high).mean(), pixels.temporal_error(base, high).mean()
    result = {
        "psnr": pixels.psnr_luma(a, b).mean().item(),
        "ssim": pixels.ssim(a, b).mean().item(),
        "temporal": (error / basis).item(),
        "warp": flow.warping_error(out).nanmean().item(),
    }
    if lpips is not None:
        result["lpips"] = lpips(out[some], high[some]).mean().item()
    if vgg is not None:
        result["vgg"] = vgg(out[some], high[some]).mean().item()
    return result


def outputs(
    network: Oasis, low: Tensor, base: Tensor, strength: float, fixes: Sequence[ColorFix]
) -> Iterator[Tensor]:
    """The network's clip with each colour correction. low: (T, 3, h, w); base: (T, 3, H, W)."""
    high = network(low[None], (base.shape[-2], base.shape[-1]))[0].float().cpu()
    for fix in fixes:
        yield eight_bits(faithful(high, base, strength, fix))


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default=DEFAULT)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--strength", type=float, default=1.0)
    parser.add_argument("--fixes", action="store_true", help="score the colour corrections too")
    parser.add_argument("--perceptual", type=Path, help="SqueezeNet features with LPIPS heads")
    parser.add_argument("--vgg", type=Path, help="VGG-16 features")
    parser.add_argument("--json", type=Path, help="write the numbers here")
    args = parser.parse_args()
    pairs = sorted(args.folder.glob("*.hr.mkv"))
    if not pairs:
        sys.exit(f"error: there is no *.hr.mkv in {args.folder}")
    lpips = SqueezeLpips(args.perceptual) if args.perceptual else None
    vgg = VggFeatures(args.vgg) if args.vgg else None
    network = load_model(args.model, device=args.device)
    fixes = COLOR_FIXES if args.fixes else COLOR_FIXES[:1]
    names = [args.model if fix == "none" else f"{args.model}, {fix}" for fix in fixes]
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in ("bicubic", *names)}
    for path in pairs:
        high = read(path)
        low = read(path.with_name(path.name.replace(".hr.", ".lr.")))
        base = bicubic_upsample(low, (high.shape[-2], high.shape[-1]))
        plain = eight_bits(base)
        rows["bicubic"].append(scores(plain, high, plain, lpips, vgg))
        found = outputs(network, low.to(args.device), base, args.strength, fixes)
        for name, out in zip(names, found, strict=True):
            rows[name].append(scores(out, high, plain, lpips, vgg))
    means = {
        name: {key: sum(row[key] for row in found) / len(found) for key in found[0]}
        for name, found in rows.items()
    }
    print("| | " + " | ".join(next(iter(means.values()))) + " |")
    print("| --- " * (1 + len(next(iter(means.values())))) + "|")
    for name, mean in means.items():
        print(f"| {name} | " + " | ".join(f"{v:.4f}" for v in mean.values()) + " |")
    if args.json:
        args.json.write_text(json.dumps({"mean": means, "clips": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
