"""The page of a recipe: tried and chosen values, reasons, cost, uncertainties. Does not import torch."""

import base64
from pathlib import Path
from typing import Any

import pandas as pd

from repro.records.files import write_whole
from repro.search import drawing
from repro.search.found import Found, in_words
from repro.search.runs import Base


def write(found: Found, base: Base, folder: Path) -> Path:
    """Write the drawings and tables of all parts, and ``recipe.html`` with embedded drawings. Raises OSError."""
    from jinja2 import Environment, FileSystemLoader
    from markupsafe import Markup

    sections = []
    for part in [found, *found.parts]:
        target = folder / part.method
        if part is not found:
            write_whole(Path(f"{target}.csv"), part.tried.to_csv(index=False))
            found.files.append(Path(f"{target}.csv"))
        if len(part.curves):
            drawing.save(part, target)
        sections.append(
            {
                "title": drawing.TITLES.get(part.method, part.method),
                "why": part.why,
                "image": _image(Path(f"{target}.svg")) if len(part.curves) else None,
                "table": part.tried,
                "cost": part.cost,
                "notes": part.notes if part is not found else [],
            }
        )
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True)
    environment.globals["table"] = lambda rows: Markup(_table(rows))
    chosen = pd.DataFrame([{"setting": name, "value": in_words(value)} for name, value in found.chosen.items()])
    page = environment.get_template("report.html.jinja").render(
        name=base.name, found=found, chosen=chosen, sections=sections
    )
    path = folder / "recipe.html"
    write_whole(path, page)
    return path


def _table(rows: pd.DataFrame) -> str:
    if rows.empty:
        return ""
    html: Any = rows.to_html(index=False, border=0, float_format="{:.4g}".format, na_rep="", escape=True)
    return f'<div class="wide">{html}</div>'


def _image(path: Path) -> str:
    return f"data:image/svg+xml;base64,{base64.b64encode(path.read_bytes()).decode()}"
