"""Verb: score a folder of clips as papers do: one row for each clip, and the mean of the rows.

A clip is a folder of pictures or a video. Test sets are laid out in one of two ways, and both are
read: kind above clip (REDS4, Vid4, YouHQ40: GT/000/..., MINE/000/...) and clip above kind (SPMCS,
UDM10: car05/truth/..., car05/MINE/...). Results and references may also lie in two folders of their
own. Then clips belong together whose names are equal, or the result's goes on after the
reference's: calendar and calendar_x4.mp4.
"""

import csv
import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from oasis_cli.errors import UsageError
from oasis_cli.evaluation.measure import RULES, Rules, Scores, check_sizes, measure
from oasis_cli.media.input.stills import PICTURES, natural_key
from oasis_cli.pipeline.clips import Clip, open_clip

REFERENCES = {"gt", "hr", "hq", "truth", "target", "original", "sharp", "train_sharp", "val_sharp"}
"""What sets call the folder of references, without what KIND_END leaves out."""
INPUTS = {
    "lq", "lr", "input", "inputs", "blur", "bi", "bd", "bicubic", "sharp_bicubic",
    "train_sharp_bicubic", "lr_bicubic",
}  # fmt: skip
"""Names of folders that hold inputs, not results."""
KIND_END = re.compile(r"[-_]?(video|x?\d+)$")
"""GT-Video, BIx4, input4: endings that say nothing about the kind."""
VIDEOS = {".mp4", ".mkv", ".mov", ".avi", ".webm", ".m4v", ".ts", ".y4m"}


@dataclass(frozen=True, slots=True)
class Pair:
    """A clip of a set."""

    name: str
    result: Path
    reference: Path


@dataclass(frozen=True, slots=True)
class SetScores:
    """The scores of every clip."""

    rows: dict[str, Scores]
    """By the clip's name."""
    notes: tuple[str, ...] = ()
    """What is to be said about the set as a whole."""

    @property
    def columns(self) -> list[str]:
        """Scores that every clip has: others have no mean that could be compared."""
        first, *rest = self.rows.values()
        return [name for name in first.columns if all(name in row.columns for row in rest)]

    def means(self) -> dict[str, float]:
        """The mean over the clips of each clip's mean over its frames: long clips count as one."""
        every = [row.means() for row in self.rows.values()]
        return {name: sum(row[name] for row in every) / len(every) for name in self.columns}

    def table(self) -> dict[str, dict[str, float]]:
        """Clip, or "mean" at the end, -> score -> value."""
        rows = {name: row.means() for name, row in self.rows.items()}
        out = {name: {c: row[c] for c in self.columns} for name, row in rows.items()}
        return out | ({"mean": self.means()} if len(rows) > 1 else {})

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        clips = {name: row.to_dict() for name, row in self.rows.items()}
        return {"clips": clips, "mean": self.means(), "notes": list(self.notes)}


def score_set(
    pairs: Sequence[Pair],
    rules: Rules = RULES,
    *,
    perceptual: Path | None = None,
    extra: Sequence[str] = (),
    notes: Sequence[str] = (),
    progress: Callable[[int], None] = lambda frames: None,
) -> SetScores:
    """Score every pair. Sizes are checked before anything is measured. Errors: as `measure`."""
    opened: list[tuple[Pair, Clip, Clip]] = []
    for pair in pairs:
        clips = open_clip(pair.result, pair.name), open_clip(pair.reference, "its reference")
        check_sizes(*clips, rules.border)
        opened.append((pair, *clips))
    rows: dict[str, Scores] = {}
    before = 0
    for pair, result, reference in opened:
        rows[pair.name] = measure(
            result,
            reference,
            rules,
            perceptual=perceptual,
            extra=extra,
            progress=lambda frames, before=before: progress(before + frames),  # type: ignore[misc]
        )
        before += rows[pair.name].frames
    return SetScores(rows, tuple(notes))


def about_lonely(results: Path, pairs: Sequence[Pair]) -> list[str]:
    """What to say about results that have no reference, where `find_pairs` left them alone."""
    used = {pair.result for pair in pairs}
    names = sorted(
        (n for n, path in clips_in(results).items() if path not in used), key=natural_key
    )
    return [f"left out, since they have no reference: {', '.join(names)}"] if names else []


def find_pairs(results: Path, references: Path | None = None) -> list[Pair]:
    """The clips of a set, in the order of their names.

    results: a folder of results; without `references`, the folder of a whole set, of which the
    results are the one folder that is neither references nor inputs. Raises UsageError when no
    pairs or several results are found, or a reference has no result.
    """
    for folder in filter(None, (results, references)):
        if not folder.is_dir():
            raise UsageError(f"there is no folder {folder}", hint="a set is a folder of clips")
    if references is not None:
        return match(clips_in(results), clips_in(references))
    kinds = {path.name: path for path in _folders(results)}
    named = _reference(kinds)
    if named is not None:
        chosen = _results(kinds, named, results)
        made, wanted = clips_in(kinds[chosen]), clips_in(kinds[named])
        _refuse_lonely(sorted(made.keys() - wanted.keys()))
        return match(made, wanted)
    pairs, lonely = [], []
    for clip in kinds.values():
        inside = {path.name: path for path in (*_folders(clip), *_videos(clip))}
        named = _reference(inside)
        if named is not None:
            chosen = _results(inside, named, clip)
            pairs.append(Pair(clip.name, inside[chosen], inside[named]))
        elif inside:
            lonely.append(clip.name)
    if pairs:
        _refuse_lonely(lonely)
    if not pairs:
        raise UsageError(
            f"{results} has no folder of references such as GT, HR or truth",
            hint="name both: --set RESULTS --ref REFERENCES",
        )
    return pairs


def _refuse_lonely(names: list[str]) -> None:
    """A mean that silently leaves clips out is no mean of the set."""
    if names:
        raise UsageError(
            f"no reference for {', '.join(names)}",
            hint="for a part of a set name both: --set RESULTS --ref REFERENCES",
        )


def clips_in(folder: Path) -> dict[str, Path]:
    """Every clip of a folder: name -> a folder of pictures or a video.

    Raises UsageError when there is none, or two have one name.
    """
    found: dict[str, Path] = {}
    for path in (*_folders(folder), *_videos(folder)):
        name = path.name if path.is_dir() else path.stem
        if path.is_dir() and not any(p.suffix.lower() in PICTURES for p in path.iterdir()):
            continue
        if name in found:
            raise UsageError(
                f"{found[name]} and {path} have one name", hint="remove one of them from the set"
            )
        found[name] = path
    if not found:
        raise UsageError(
            f"{folder} holds neither folders of pictures nor videos",
            hint="a set has a folder of pictures, or a video, for each clip",
        )
    return found


def match(results: Mapping[str, Path], references: Mapping[str, Path]) -> list[Pair]:
    """Which result belongs to which reference, by their names.

    Results beyond the references are left alone. Raises UsageError when a reference has none: a
    mean over other clips than everybody's is not comparable.
    """
    pairs, missing = [], []
    for name in sorted(references, key=natural_key):
        found = _named_for(name, list(results), list(references))
        if found is None:
            missing.append(name)
        else:
            pairs.append(Pair(name, results[found], references[name]))
    if missing:
        raise UsageError(
            f"no result for {', '.join(missing)}",
            hint="for a part of a set, put its references into a folder and name it with --ref",
        )
    return pairs


def _named_for(reference: str, results: Sequence[str], references: Sequence[str]) -> str | None:
    """The result of that name, or the one that goes on after it and after no longer reference.

    >>> _named_for("000", ["000_x4", "0001"], ["000", "0001"])
    '000_x4'
    """
    low = reference.lower()
    for name in results:
        if name.lower() == low:
            return name
    longer = [r.lower() for r in references if r.lower().startswith(low) and r.lower() != low]
    found = [
        name
        for name in results
        if re.match(re.escape(low) + r"[^a-z0-9]", name.lower())
        and not any(name.lower().startswith(other) for other in longer)
    ]
    if len(found) > 1:
        raise UsageError(
            f"{' and '.join(sorted(found))} are both named after {reference}",
            hint="keep one result for each reference",
        )
    return found[0] if found else None


def _kind(name: str) -> str:
    """The kind that a folder's name stands for.

    >>> [_kind(n) for n in ("GT-Video", "BIx4", "input4", "truth", "SR")]
    ['gt', 'bi', 'input', 'truth', 'sr']
    """
    return KIND_END.sub("", Path(name).stem.lower())


def _reference(kinds: Mapping[str, Path]) -> str | None:
    """Which of these is the folder of references."""
    found = sorted(name for name in kinds if _kind(name) in REFERENCES)
    if len(found) > 1:  # GT beside GT-Video: the same clips twice
        found = [name for name in found if name.lower() in REFERENCES] or found
    return found[0] if found else None


def _results(kinds: Mapping[str, Path], reference: str, where: Path) -> str:
    """Which of these is the folder of results. Raises UsageError unless there is just one."""
    left = [n for n in kinds if n != reference and _kind(n) not in INPUTS | REFERENCES]
    if len(left) != 1:
        what = f"several results: {', '.join(sorted(left))}" if left else "no results"
        raise UsageError(
            f"{where} has {what}, beside {reference}",
            hint="name both: --set RESULTS --ref REFERENCES",
        )
    return left[0]


def _folders(folder: Path) -> list[Path]:
    found = [p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")]
    return sorted(found, key=lambda p: natural_key(p.name))


def _videos(folder: Path) -> list[Path]:
    found = [p for p in folder.iterdir() if p.suffix.lower() in VIDEOS and p.is_file()]
    return sorted(
        (p for p in found if not p.name.startswith(".")), key=lambda p: natural_key(p.name)
    )


def written(name: str, value: float) -> str:
    """A score as papers write it: decibels with two decimals, others with four.

    >>> written("psnr_y", 27.1249), written("ssim", 0.81234)
    ('27.12', '0.8123')
    """
    return f"{value:.2f}" if name.startswith("psnr") else f"{value:.4f}"


def as_markdown(table: Mapping[str, Mapping[str, float]]) -> str:
    """A row for each clip."""
    columns = list(next(iter(table.values())))
    lines = [f"| clip | {' | '.join(columns)} |", "| --- " * (1 + len(columns)) + "|"]
    for name, row in table.items():
        cells = " | ".join(written(score, value) for score, value in row.items())
        lines.append(f"| {name.replace('|', chr(92) + '|')} | {cells} |")
    return "\n".join(lines)


def as_latex(table: Mapping[str, Mapping[str, float]]) -> str:
    """A row for each clip, for a tabular; the columns' names stand in a comment."""
    lines = ["% clip & " + " & ".join(next(iter(table.values()))) + r" \\"]
    for name, row in table.items():
        plain = re.sub(r"([_&%#$])", r"\\\1", name)
        lines.append(f"{plain} & {' & '.join(written(n, v) for n, v in row.items())}" + r" \\")
    return "\n".join(lines)


def as_csv(table: Mapping[str, Mapping[str, float]]) -> str:
    """A header and a line for each clip."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["clip", *next(iter(table.values()))])
    for name, row in table.items():
        writer.writerow([name, *(f"{value:.6g}" for value in row.values())])
    return text.getvalue()
