"""Judges a network, or pictures that another tool has made, beside bicubic: one table.

    python benchmarks/judge.py --data DATA                      # bicubic and the default network
    python benchmarks/judge.py oasis-small mine.safetensors --data DATA --json scores.json
    python benchmarks/judge.py --data DATA --write inputs       # for another tool to enlarge
    python benchmarks/judge.py --data DATA --made tool=FOLDER   # what it made of them

DATA holds eval/ (pairs NAME.lr.mkv, NAME.hr.mkv), lq/ (real clips), perceptual/ (features). What is
missing there leaves its judge out, and the table says so. docs/judges.md says what each score
means. Everything is x4; seeds are fixed, so two runs see the same pictures.
"""

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from judges.cases import Case, Judge, Made, Maker, Missing, Network, Scores, bicubic, write
from judges.flicker import Flicker
from judges.gain import Gain
from judges.hatching import Hatching, real_clips
from judges.identity import Identity
from judges.legible import Legibility
from judges.pairs import Pairs
from judges.straight import Straightness
from torch import Tensor

from oasis_cli.checkpoints.format import load_model
from oasis_cli.checkpoints.registry import DEFAULT
from oasis_cli.evaluation.metrics.perceptual import SqueezeLpips
from oasis_cli.evaluation.metrics.vgg import VggFeatures

JUDGES = (
    "pairs",
    "hatching",
    "flicker",
    "straightness",
    "legibility",
    "identity",
    "gain",
)

Table = dict[str, dict[str, Scores]]
"""By who made the pictures and by judge."""
Question = tuple[Judge, Sequence[Case]]
"""A judge with the clips that it looks at."""


def questions(args: argparse.Namespace) -> tuple[list[Question], dict[str, str]]:
    """The judges that can work, and why the others cannot."""
    found: list[Question] = []
    left_out: dict[str, str] = {}
    for name in args.only or JUDGES:
        try:
            judge = called(name, args)
            found.append((judge, judge.cases()))
        except (Missing, ValueError) as error:
            left_out[name] = str(error)
    return found, left_out


def called(name: str, args: argparse.Namespace) -> Judge:
    """One judge by name. Raises Missing or ValueError when what it needs is not there."""
    if name == "pairs":
        folder = args.data / "perceptual"
        lpips = SqueezeLpips(folder / "squeezenet_lpips.safetensors")
        return Pairs(
            args.pairs or args.data / "eval",
            lpips,
            VggFeatures(folder / "vgg16_features.safetensors"),
        )
    if name in ("hatching", "flicker"):
        clips = real_clips(args.clips or args.data / "lq", args.frames, args.first, args.most)
        return Hatching(clips) if name == "hatching" else Flicker(clips)
    if name == "legibility":
        return Legibility(args.pages)
    if name == "identity":
        return Identity(args.portraits)
    return Gain() if name == "gain" else Straightness()


def run(asked: Sequence[Question], makers: Mapping[str, Maker]) -> tuple[Table, dict[str, Table]]:
    """Let every maker enlarge every case. Returns the table, and the scores of single cases."""
    table: Table = {name: {} for name in makers}
    single: dict[str, Table] = {name: {} for name in makers}
    for name, maker in makers.items():
        made: dict[str, Tensor] = {}
        for number, (judge, cases) in enumerate(asked):
            began, rows = time.perf_counter(), dict[str, Scores]()
            try:
                for case in cases:
                    made[case.name] = made[case.name] if case.name in made else maker(case)
                    rows[case.name] = judge.score(case, made[case.name])
                table[name][judge.name] = judge.sum_up(rows)
            except Missing as error:
                print(f"{judge.name} of {name} left out: {error}", file=sys.stderr)
            single[name][judge.name] = rows
            later = {case.name for _, cases in asked[number + 1 :] for case in cases}
            made = {key: clip for key, clip in made.items() if key in later}
            print(f"{judge.name} of {name}: {time.perf_counter() - began:.0f} s", file=sys.stderr)
    return table, single


def saving(maker: Maker, folder: Path) -> Maker:
    """The same maker, which also writes what it made into a folder."""
    folder.mkdir(parents=True, exist_ok=True)

    def make(case: Case) -> Tensor:
        out = maker(case)
        write(folder / f"{case.name}.mkv", out)
        return out

    return make


def as_markdown(table: Table) -> str:
    """One line for each maker, one column for each score of each judge."""
    columns = {
        (judge, score): None
        for line in table.values()
        for judge, scores in line.items()
        for score in scores
    }
    titles = [judge if judge == score else f"{judge}: {score}" for judge, score in columns]
    lines = ["| | " + " | ".join(titles) + " |", "| --- " * (1 + len(titles)) + "|"]
    for name, line in table.items():
        found = [line.get(judge, {}).get(score) for judge, score in columns]
        cells = ["-" if value is None else f"{value:.3f}" for value in found]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def named(text: str) -> tuple[str, Path]:
    """NAME=FOLDER, or a folder whose name is its name."""
    name, _, folder = text.rpartition("=")
    path = Path(folder)
    if not path.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {folder}")
    return name or path.name, path


def side(text: str) -> tuple[int, int]:
    """WIDTHxHEIGHT."""
    width, _, height = text.partition("x")
    return int(width), int(height)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("models", nargs="*", default=[], help=f"names or checkpoints ({DEFAULT} if none is made)")
    add("--decoder", default="auto", help="decoder of the models")
    add("--made", type=named, action="append", default=[], help="NAME=FOLDER of enlarged clips")
    add("--write", type=Path, help="write what is to be enlarged into this folder, and end")
    add("--save", type=Path, help="write what bicubic and the models made into this folder")
    add("--only", nargs="+", choices=JUDGES, metavar="JUDGE", help=", ".join(JUDGES))
    add("--data", type=Path, default=Path("data"), help="holds eval, lq and perceptual")
    add("--pairs", type=Path, help="instead of DATA/eval")
    add("--clips", type=Path, help="real clips, instead of DATA/lq")
    add("--pages", type=int, default=12, help="clips of pages; 40 or more tell small steps apart")
    add("--portraits", type=Path, help="a folder of more portraits that were not trained on")
    add("--frames", type=int, default=4, help="frames of each real clip")
    add("--first", type=int, default=8, help="the first of them")
    add("--most", type=side, default=(160, 120), help="largest part of a real clip, WxH")
    add("--device", default="cpu")
    add("--json", type=Path, help="write the numbers here")
    return parser.parse_args()


@torch.inference_mode()
def main() -> None:
    args = arguments()
    asked, left_out = questions(args)
    if args.write:
        args.write.mkdir(parents=True, exist_ok=True)
        for case in {case.name: case for _, cases in asked for case in cases}.values():
            write(args.write / f"{case.name}.mkv", case.low)
        print(f"enlarge every clip in {args.write} four times, keep its name, lose nothing")
    else:
        makers: dict[str, Maker] = {"bicubic": bicubic}
        for name in args.models or ([] if args.made else [DEFAULT]):
            network = load_model(name, device=args.device, decoder=args.decoder)
            makers[Path(name).stem] = Network(network, torch.device(args.device))
        if args.save:
            makers = {name: saving(maker, args.save / name) for name, maker in makers.items()}
        makers |= {name: Made(folder) for name, folder in args.made}
        table, single = run(asked, makers)
        print(as_markdown(table))
        if args.json:
            data = {"scores": table, "cases": single, "left_out": left_out}
            args.json.write_text(json.dumps(data, indent=2) + "\n")
    for name, reason in left_out.items():
        print(f"{name} left out: {reason}", file=sys.stderr if args.write else sys.stdout)


if __name__ == "__main__":
    main()
