"""Draw the pictures of docs/how-it-works.md: python docs/make_figures.py [MODEL]

attention.svg: what each kind of head sees. heads.svg: the groups of a model's heads by layer.
"""

import sys
from pathlib import Path

from oasis_cli.checkpoints.format import describe
from oasis_cli.checkpoints.registry import DEFAULT

FOLDER = Path(__file__).parent / "images"
COLORS = {"g": "#c8553d", "i": "#e0a030", "w": "#3d7ea6"}
NAMES = {"g": "global", "i": "intra-frame", "w": "window 3 x 5 x 5"}
SIDE, CELL, FRAMES = 9, 9, 5
STYLE = "font-family:sans-serif;font-size:12px"


def square(x: float, y: float, size: float, color: str, opacity: float = 1) -> str:
    """One token or head."""
    return (
        f'<rect x="{x:g}" y="{y:g}" width="{size:g}" height="{size:g}" fill="{color}" '
        f'fill-opacity="{opacity}" rx="1"/>'
    )


def text(x: float, y: float, words: str, anchor: str = "start") -> str:
    """A label that reads on light and dark pages."""
    return f'<text x="{x:g}" y="{y:g}" fill="#808080" text-anchor="{anchor}">{words}</text>'


def svg(width: float, height: float, parts: list[str]) -> str:
    """A whole picture."""
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" '
    return (
        head
        + f'width="{width:g}" height="{height:g}" style="{STYLE}">\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def sees(group: str, t: int, row: int, column: int) -> bool:
    """Whether the middle token sees this one."""
    here = t == FRAMES // 2
    near = abs(row - SIDE // 2) <= 2 and abs(column - SIDE // 2) <= 2
    if group == "w":
        return abs(t - FRAMES // 2) <= 1 and near
    return group == "g" or here


def attention() -> str:
    """Three rows of five frames of 9x9 tokens."""
    frame, parts = SIDE * CELL + 14, []
    for number, group in enumerate("giw"):
        top = 24 + number * (frame + 16)
        parts.append(text(0, top - 6, NAMES[group]))
        found: dict[tuple[str, float], list[str]] = {}
        for t in range(FRAMES):
            for row in range(SIDE):
                for column in range(SIDE):
                    seen = sees(group, t, row, column)
                    own = (t, row, column) == (FRAMES // 2, SIDE // 2, SIDE // 2)
                    color = "#303030" if own else COLORS[group] if seen else "#909090"
                    place = f"M{t * frame + column * CELL} {top + row * CELL}h8v8h-8z"
                    found.setdefault((color, 1 if own or seen else 0.18), []).append(place)
        for (color, opacity), places in found.items():
            data = "".join(places)
            parts.append(f'<path fill="{color}" fill-opacity="{opacity}" d="{data}"/>')
    for t in range(FRAMES):
        shift = t - FRAMES // 2
        label = "t" if not shift else f"t {'-' if shift < 0 else '+'} {abs(shift)}"
        parts.append(text(t * frame + SIDE * CELL / 2, 24 + 3 * (frame + 16) - 14, label, "middle"))
    return svg(FRAMES * frame, 24 + 3 * (frame + 16), parts)


def heads(layers: list[str]) -> str:
    """A square for each head."""
    cell, left = 22, 64
    parts = []
    for row, groups in enumerate(layers):
        parts.append(text(0, row * cell + 15, f"layer {row}"))
        for column, group in enumerate(groups):
            parts.append(square(left + column * cell, row * cell, cell - 2, COLORS[group]))
    right = left + len(layers[0]) * cell + 20
    for row, (group, name) in enumerate(NAMES.items()):
        count = sum(groups.count(group) for groups in layers)
        parts.append(square(right, row * cell, cell - 2, COLORS[group]))
        parts.append(text(right + cell + 6, row * cell + 15, f"{name}: {count} heads"))
    return svg(right + 190, len(layers) * cell, parts)


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / "attention.svg").write_text(attention())
    model = sys.argv[1] if len(sys.argv) > 1 else DEFAULT
    (FOLDER / "heads.svg").write_text(heads(describe(model)["heads"]["layers"]))
