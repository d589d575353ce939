"""A head table to look at: in the terminal, as a PNG (matplotlib), as one HTML page.

Everything is drawn from the table document (see model/table_file.py), so old tables can be drawn
too. Three pictures: which head is in which group, the two KLs against each other with the rule's
borders, and how much of its attention a head would keep.
"""

import html
import io
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from oasis_cli.errors import OasisError

if TYPE_CHECKING:
    from rich.table import Table

Document = dict[str, Any]

NAMES = {"g": "global", "i": "intra-frame", "w": "window"}
COLORS = {"g": "#d1495b", "i": "#edae49", "w": "#2e86ab"}
TERMINAL = {"g": "white on red", "i": "black on yellow", "w": "white on blue"}

HISTOGRAM_BINS = 20


def heads(document: Document) -> Iterator[dict[str, Any]]:
    """Every head with its numbers: layer, head, group, same, intra and window KL and mass."""
    for layer, row in enumerate(document["layers"]):
        for head, group in enumerate(row["group"]):
            yield {
                "layer": layer,
                "head": head,
                "group": group,
                "same": row["p_same"][head],
                **{
                    f"{what}_{local}": row[f"{what}_{local}"][head]
                    for what in ("kl", "mass")
                    for local in ("intra", "window")
                },
            }


def summary(document: Document) -> list[str]:
    """The table in a few sentences."""
    groups = [head["group"] for head in heads(document)]
    rule = document["rule"]
    detail = ", ".join(f"{key} {value}" for key, value in rule.items() if key != "name")
    counts = ", ".join(f"{groups.count(letter)} {name}" for letter, name in NAMES.items())
    return [
        f"{document['model']['name']}: {len(groups)} heads: {counts}",
        f"rule {rule['name']} ({detail}); attention costs "
        f"{document['cost']['share_of_all_global']:.0%} of all-global",
        f"{document['stable_heads']:.0%} of the heads keep their group in 95% of "
        f"{document['resamples']} bootstrap resamples of {len(document['clips'])} clips",
    ]


def group_grid(layers: list[str]) -> "Table":
    """Groups alone, as coloured letters, for a checkpoint that knows no more."""
    return _grid([[(letter, letter) for letter in groups] for groups in layers])


def kl_grid(document: Document) -> "Table":
    """For each head its group and KL intra/window; ? marks an unstable one."""
    rows = []
    for row in document["layers"]:
        cells = zip(row["group"], row["kl_intra"], row["kl_window"], row["p_same"], strict=True)
        rows.append(
            [
                (group, f"{group} {intra:.1f}/{window:.1f}{' ' if same >= 0.95 else '?'}")
                for group, intra, window, same in cells
            ]
        )
    return _grid(rows)


def _grid(rows: list[list[tuple[str, str]]]) -> "Table":
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 1, 0, 0))
    table.add_column("layer", justify="right")
    for head in range(len(rows[0])):
        table.add_column(f"head {head}", no_wrap=True)
    for layer, cells in enumerate(rows):
        table.add_row(str(layer), *(Text(text, style=TERMINAL[group]) for group, text in cells))
    return table


def decision(document: Document) -> Callable[[float, float], str] | None:
    """The group the rule gives to a pair of KLs (intra, window); None where ranks decide."""
    rule = document["rule"]
    if rule["name"] == "budget":
        cost = document["cost"]["gflop_of_a_head"]
        price = {letter: rule["lambda"] * cost[letter] / cost["g"] for letter in "giw"}

        def cheapest(intra: float, window: float) -> str:
            loss = {"g": 0.0, "i": intra, "w": window}
            return min("giw", key=lambda letter: loss[letter] + price[letter])

        return cheapest
    if rule["name"] == "proportion":
        return None
    tau_intra, tau_window = rule["tau_intra"], rule["tau_window"]
    if rule["name"] == "threshold":
        return lambda i, w: "w" if w <= tau_window else "i" if i <= tau_intra else "g"
    return lambda i, w: "i" if i <= min(w, tau_intra) else "w" if w < i and w <= tau_window else "g"


def regions(document: Document, steps: int = 60) -> tuple[float, float, list[str]]:
    """The right and upper end of the scatter, and the rule's groups on a steps x steps raster.

    Rows of letters, smallest window KL first; no rows where ranks decide.
    """
    baseline = document["uniform_baseline"]
    right = 1.05 * max([baseline["intra"], *(head["kl_intra"] for head in heads(document))])
    top = 1.05 * max([baseline["window"], *(head["kl_window"] for head in heads(document))])
    decide = decision(document)
    if decide is None:
        return right, top, []
    middles = [(n + 0.5) / steps for n in range(steps)]
    return right, top, ["".join(decide(x * right, y * top) for x in middles) for y in middles]


def check_matplotlib() -> None:
    """Raise OasisError where matplotlib, the [plot] extra, is missing."""
    if find_spec("matplotlib") is None:
        raise OasisError(
            "pictures need matplotlib, which is not installed",
            hint="pip install 'oasis-cli[plot]', or use --html, which needs nothing",
        )


def to_png(document: Document) -> bytes:
    """The three pictures side by side. Needs matplotlib."""
    check_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    layers, count = len(document["layers"]), len(document["layers"][0]["group"])
    figure = Figure(figsize=(max(13, 4 + 1.4 * count), max(4.5, 0.42 * layers + 1.5)), dpi=110)
    FigureCanvasAgg(figure)
    map_axes, scatter, histogram = figure.subplots(
        1, 3, width_ratios=(max(1.2, count / 6), 1, 1), squeeze=True
    )
    _draw_map(map_axes, document)
    _draw_scatter(scatter, document)
    _draw_histogram(histogram, document)
    figure.suptitle(" · ".join(summary(document)[:1]), fontsize=11)
    figure.tight_layout()
    # Without the version and date in it, the same table gives the same picture.
    file = io.BytesIO()
    figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()


def _draw_map(axes: Any, document: Document) -> None:
    for head in heads(document):
        place = (head["head"] - 0.5, head["layer"] - 0.5)
        alpha = 1.0 if head["same"] >= 0.95 else 0.45
        axes.add_patch(_rectangle(place, 1, 1, COLORS[head["group"]], alpha))
        text = f"{head['kl_intra']:.2f} / {head['kl_window']:.2f}"
        axes.text(head["head"], head["layer"], text, ha="center", va="center", fontsize=7)
    layers, count = len(document["layers"]), len(document["layers"][0]["group"])
    axes.set(xlim=(-0.5, count - 0.5), ylim=(layers - 0.5, -0.5), xlabel="head", ylabel="layer")
    axes.set(xticks=range(count), yticks=range(layers))
    axes.set_title("group of each head, KL intra / window\n(pale: unstable)", fontsize=9)
    for letter, name in NAMES.items():
        axes.plot([], [], "s", color=COLORS[letter], label=name)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=3, fontsize=8, frameon=False)


def _rectangle(
    place: tuple[float, float], width: float, height: float, color: str, a: float
) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle(place, width, height, facecolor=color, edgecolor="white", alpha=a, linewidth=1)


def _draw_scatter(axes: Any, document: Document) -> None:
    right, top, rows = regions(document, 240)
    if rows:
        from matplotlib.colors import ListedColormap

        raster = [["giw".index(letter) for letter in row] for row in rows]
        colors = ListedColormap([COLORS[letter] for letter in "giw"])
        box = (0, right, 0, top)
        axes.imshow(
            raster,
            cmap=colors,
            vmin=0,
            vmax=2,
            alpha=0.18,
            extent=box,
            origin="lower",
            aspect="auto",
        )
    for head in heads(document):
        axes.plot(head["kl_intra"], head["kl_window"], "o", ms=5, color=COLORS[head["group"]])
    baseline = document["uniform_baseline"]
    axes.plot(baseline["intra"], baseline["window"], "k+", ms=10, label="uniform attention")
    axes.set(xlim=(0, right), ylim=(0, top), xlabel="KL intra [nats]", ylabel="KL window [nats]")
    axes.set_title(f"the heads and the borders of rule {document['rule']['name']}", fontsize=9)
    axes.legend(fontsize=8, frameon=False, loc="lower right")


def _draw_histogram(axes: Any, document: Document) -> None:
    for local, letter in (("intra", "i"), ("window", "w")):
        masses = [head[f"mass_{local}"] for head in heads(document)]
        axes.hist(masses, bins=HISTOGRAM_BINS, range=(0, 1), alpha=0.6, color=COLORS[letter],
                  label=NAMES[letter])  # fmt: skip
    axes.set(xlabel="share of the attention kept", ylabel="heads", xlim=(0, 1))
    axes.set_title("what a head keeps when restricted", fontsize=9)
    axes.legend(fontsize=8, frameon=False)


def to_html(document: Document) -> str:
    """One page that needs nothing else: no script, no fonts, no network."""
    sentences = "".join(f"<p>{html.escape(line)}</p>" for line in summary(document))
    title = f"Heads of {html.escape(str(document['model']['name']))}"
    legend = " ".join(
        f'<span style="background:{COLORS[letter]}">{name}</span>' for letter, name in NAMES.items()
    )
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
:root {{ color-scheme: light dark }}
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto }}
body {{ padding: 0 1rem }}
.wide {{ overflow-x: auto }}
table {{ border-collapse: collapse; font-size: 12px }}
td, th {{ padding: .3rem .5rem; border: 2px solid Canvas; text-align: center; font-weight: normal }}
td, .legend span {{ color: #000; white-space: nowrap }}
td.unstable {{ background-image: linear-gradient(#fff9, #fff9) }}
.legend span {{ padding: .1rem .6rem }}
svg {{ max-width: 100%; height: auto; margin: 0 1rem 1rem 0; vertical-align: top }}
svg {{ fill: currentColor }}
</style>
<h1>{title}</h1>{sentences}
<p class="legend">{legend} pale: unstable. Hover a head for its numbers.</p>
{_html_map(document)}
<h2>Borders and kept attention</h2>
{_svg_scatter(document)}{_svg_histogram(document)}
</html>
"""


def _html_map(document: Document) -> str:
    count = len(document["layers"][0]["group"])
    lines = ['<div class="wide"><table><tr><th>layer</th>']
    lines += [f"<th>head {head}</th>" for head in range(count)]
    for head in heads(document):
        if head["head"] == 0:
            lines.append(f"</tr><tr><th>{head['layer']}</th>")
        words = (
            f"layer {head['layer']}, head {head['head']}: {NAMES[head['group']]}; KL intra "
            f"{head['kl_intra']:.3f}, window {head['kl_window']:.3f}; keeps "
            f"{head['mass_intra']:.0%} / {head['mass_window']:.0%}; same group in "
            f"{head['same']:.0%} of resamples"
        )
        shape = "" if head["same"] >= 0.95 else ' class="unstable"'
        lines.append(
            f'<td{shape} title="{words}" style="background-color:{COLORS[head["group"]]}">'
            f"{head['kl_intra']:.2f} / {head['kl_window']:.2f}</td>"
        )
    return "".join(lines) + "</tr></table></div>"


def _svg_scatter(document: Document) -> str:
    right, top, rows = regions(document)
    side, edge = 400, 40
    parts = [_svg_frame(side, edge, "KL intra [nats]", "KL window [nats]", right, top)]
    for number, row in enumerate(rows):
        start, step = 0, side / len(row)
        for end in range(1, len(row) + 1):
            if end == len(row) or row[end] != row[start]:
                y = edge + side - (number + 1) * step
                parts.append(
                    f'<rect x="{edge + start * step:.1f}" y="{y:.1f}" '
                    f'width="{(end - start) * step:.1f}" height="{step:.1f}" '
                    f'fill="{COLORS[row[start]]}" opacity=".18" shape-rendering="crispEdges"/>'
                )
                start = end
    for head in heads(document):
        x = edge + side * head["kl_intra"] / right
        y = edge + side - side * head["kl_window"] / top
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{COLORS[head["group"]]}"/>')
    baseline = document["uniform_baseline"]
    x = edge + side * baseline["intra"] / right
    y = edge + side - side * baseline["window"] / top
    parts.append(f'<text x="{x:.1f}" y="{y + 5:.1f}" text-anchor="middle" font-size="18">+</text>')
    note = "+ uniform attention"
    parts.append(f'<text x="{edge + side}" y="{edge - 8}" text-anchor="end">{note}</text>')
    return _svg(parts, side + 2 * edge)


def _svg_histogram(document: Document) -> str:
    side, edge = 400, 40
    bins: dict[str, list[int]] = {}
    for local, letter in (("intra", "i"), ("window", "w")):
        bins[letter] = [0] * HISTOGRAM_BINS
        for head in heads(document):
            at = min(HISTOGRAM_BINS - 1, int(head[f"mass_{local}"] * HISTOGRAM_BINS))
            bins[letter][at] += 1
    most = max(max(counts) for counts in bins.values())
    parts = [_svg_frame(side, edge, "share of the attention kept", "heads", 1, most)]
    width = side / HISTOGRAM_BINS
    for letter, counts in bins.items():
        for number, count in enumerate(counts):
            height = side * count / most
            parts.append(
                f'<rect x="{edge + number * width:.1f}" y="{edge + side - height:.1f}" '
                f'width="{width:.1f}" height="{height:.1f}" fill="{COLORS[letter]}" opacity=".6"/>'
            )
    return _svg(parts, side + 2 * edge)


def _svg_frame(side: int, edge: int, x: str, y: str, right: float, top: float) -> str:
    end = edge + side
    return (
        f'<rect x="{edge}" y="{edge}" width="{side}" height="{side}" fill="none" stroke="#888"/>'
        f'<text x="{edge + side / 2}" y="{end + 30}" text-anchor="middle">{x}</text>'
        f'<text x="{edge}" y="{end + 16}">0</text>'
        f'<text x="{end}" y="{end + 16}" text-anchor="end">{right:.3g}</text>'
        f'<text x="{edge}" y="{edge - 8}">{y}, up to {top:.3g}</text>'
    )


def _svg(parts: list[str], side: int) -> str:
    body = "".join(parts)
    return f'<svg viewBox="0 0 {side} {side}" width="{side}" font-size="12">{body}</svg>'
