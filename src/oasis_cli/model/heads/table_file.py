"""A head table as a file: JSON of schema asr-table/1, readable, reviewed like code.

It holds the groups, what they were decided from, and which checkpoint and window they are for.
Heads are numbered as in the checkpoint. Two runs on the same input give the same bytes: there is
no date inside, numbers are rounded, and keys have one order.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from oasis_cli.errors import UsageError, WeightsError
from oasis_cli.model.heads.assignment import Assignment, Rule
from oasis_cli.model.heads.calibration import HeadStatistics, uniform_kl
from oasis_cli.model.heads.routing import HeadTable
from oasis_cli.model.oasis import OasisConfig

SCHEMA = "asr-table/1"
SEAL = "sha256_of_payload"

METHOD = 1
"""Raised when the same clips would give other numbers."""

DIGITS = 5

AGAIN = "make a new one with `oasis calibrate-heads`"

Document = dict[str, Any]


def to_document(
    statistics: HeadStatistics,
    decision: Assignment,
    rule: Rule,
    *,
    model: dict[str, str],
    config: OasisConfig,
    clips: list[dict[str, Any]],
    settings: dict[str, Any],
) -> Document:
    """Everything there is to say about a table, sealed.

    model: its "name" and "sha256". clips: "id" and "sha256" of each. settings: how it was run, such
    as "seed" and "dtype".
    """
    document = {
        "schema": SCHEMA,
        "method": METHOD,
        "model": model | {"layout": "oasis-checkpoint/1"},
        "sigma": config.sigma,
        "t": _short(1000 * config.sigma),
        "context": f"empty prompt, {config.dit.context_rows} rows"
        if config.dit.context_rows
        else "none",
        "window": list(statistics.window),
        "border": "truncate",
        "grid": list(statistics.grid),
        "clips": clips,
        "queries_per_clip": statistics.kl.shape[2],
        **settings,
        "rule": _rule(rule, decision),
        "cost": {
            "grid": list(decision.grid),
            "gflop_of_a_head": dict(
                zip("giw", (_short(c / 1e9) for c in decision.cost), strict=True)
            ),
            "share_of_all_global": _short(decision.spent),
        },
        "stable_heads": _short(decision.stable),
        "uniform_baseline": dict(
            zip(
                ("intra", "window"),
                map(_short, uniform_kl(statistics.grid, statistics.window)),
                strict=True,
            )
        ),
        "layers": _layers(statistics, decision),
    }
    return document | {SEAL: seal(document)}


def _rule(rule: Rule, decision: Assignment) -> Document:
    about: Document = {"name": rule.name, "min_global_per_layer": rule.min_global}
    if rule.name == "budget":
        about |= {"budget": rule.budget, "lambda": _short(decision.multiplier or 0.0)}
    elif rule.name == "proportion":
        about |= {"proportion": list(rule.proportion) if rule.proportion else "equal"}
    else:
        about |= {"tau_intra": _short(rule.tau_intra), "tau_window": _short(rule.tau_window)}
    return about


def _layers(statistics: HeadStatistics, decision: Assignment) -> list[Document]:
    measured = {
        "kl": statistics.mean_kl,
        "mass": statistics.mass,
        "ci": decision.interval.movedim(1, -1),
        "out_err": statistics.output_error,
    }
    rows = []
    for layer, groups in enumerate(decision.table.layers):
        row: Document = {
            "group": list(groups),
            "group_before_fallback": decision.first.layers[layer],
        }
        row["p_same"] = _short(decision.same[layer].tolist())
        for name, values in measured.items():
            for local, label in enumerate(("intra", "window")):
                row[f"{name}_{label}"] = _short(values[local, layer].tolist())
        rows.append(row)
    return rows


def _short(value: Any) -> Any:
    """Rounded numbers: what is beyond depends on the machine."""
    if isinstance(value, list):
        return [_short(item) for item in value]
    return round(float(value), DIGITS)


def seal(document: Document) -> str:
    """SHA-256 of a document without its seal."""
    plain = {key: value for key, value in document.items() if key != SEAL}
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def dump(document: Document) -> str:
    """The file's text: an entry on each line, a list of heads on one line."""
    lines = []
    for key, value in document.items():
        if key in ("layers", "clips"):
            rows = ",\n".join(f"  {_row(row)}" for row in value)
            lines.append(f"{json.dumps(key)}: [\n{rows}\n ]")
        else:
            lines.append(f"{json.dumps(key)}: {json.dumps(value)}")
    return "{\n " + ",\n ".join(lines) + "\n}\n"


def _row(row: Document) -> str:
    items = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in row.items()]
    return "{" + ",\n   ".join(items) + "}"


def read_document(path: Path) -> Document:
    """A table file, whole and unchanged. Raises UsageError if there is none, else WeightsError."""
    if not path.is_file():
        raise UsageError(f"there is no head table {path}", hint=AGAIN)
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise WeightsError(f"{path} is not a head table: {error}", hint=AGAIN) from error
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        found = document.get("schema") if isinstance(document, dict) else None
        raise WeightsError(
            f"{path} is JSON of schema {found!r}, not {SCHEMA!r}: it is not a head table",
            hint=AGAIN,
        )
    if SEAL in document and document[SEAL] != seal(document):
        raise WeightsError(
            f"{path} was changed after it was written",
            hint=f"take its line {SEAL!r} out to use an edited table on purpose",
        )
    return document


def load_table(path: Path, about: dict[str, Any], sha256: str) -> HeadTable:
    """The groups in a table file, checked against the checkpoint they are to be used with.

    about: `weights.describe` of that checkpoint; sha256: of its file. A table also fits the
    checkpoints that descend from the one it was measured on: by the hash in their provenance, or
    because the table names them.
    """
    document = read_document(path)
    try:
        measured, window = document["model"], tuple(document["window"])
        table = HeadTable(tuple("".join(row["group"]) for row in document["layers"]))
        name, found = str(measured["name"]), str(measured["sha256"])
        others = {str(other["sha256"]) for other in document.get("also_for", [])}
    except (KeyError, TypeError) as error:
        raise WeightsError(f"{path} is a damaged head table: no {error}", hint=AGAIN) from error
    dit = about["config"]["dit"]
    shape = (dit["layers"], dit["heads"])
    if (len(table.layers), len(table.layers[0]) if table.layers else 0) != shape:
        raise WeightsError(
            f"{path} is for {len(table.layers)} layers of "
            f"{len(table.layers[0]) if table.layers else 0} heads; {about['name']} has "
            f"{shape[0]} layers of {shape[1]}",
            hint=AGAIN,
        )
    if window != tuple(dit["window"]):
        raise WeightsError(
            f"{path} was measured with windows of {_by(window)} tokens; {about['name']} "
            f"has windows of {_by(dit['window'])}",
            hint=AGAIN,
        )
    descends = found in json.dumps(about.get("provenance", {})) or sha256 in others
    if found != sha256 and not descends:
        raise WeightsError(
            f"{path} was measured on {name} ({found[:12]}); the model in use is "
            f"{about['name']} ({sha256[:12]}) and does not descend from it",
            hint=f"{AGAIN}, with --also-for if one was trained from the other",
        )
    return table


def _by(sizes: Any) -> str:
    return "x".join(str(size) for size in sizes)
