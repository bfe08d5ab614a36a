"""The pages themselves: one self-contained HTML file each, which asks no host for anything.

Whatever comes from a study is escaped: in HTML by Jinja2, in JSON within a script by `_json`. The
page's policy (CSP) allows the scripts and styles that are written here, by their digests, and
pictures within the page; nothing else, no connection at all.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import xarray as xr
import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from sgm.answers import Finding, findings
from sgm.leaderboard import COMBINATION
from sgm.reading import divergences_of
from sgm.report.charts import Dots, Scatter, dots, scatter
from sgm.report.figures import pictures, thumbnail
from sgm.report.question import (
    Horizon,
    Standing,
    Verdict,
    calibrations,
    contests,
    horizons,
    listed,
    question,
    setup,
    standings,
    verdicts,
)
from sgm.report.source import Source
from sgm.report.table import table_of_cells
from sgm.rounding import interval
from sgm.store import DONE, FAILED, NOT_RUN
from sgm.store.cells import written_whole

__all__ = ["index_page", "report_page", "summary_of", "write_index", "write_report"]

VENDOR = Path(__file__).with_name("vendor") / "tabulator"
CITATION = Path(__file__).parents[2] / "CITATION.cff"
#: Paths of the marks of a scatter, about their centres.
SHAPES = {
    "circle": "M-4 0A4 4 0 1 0 4 0A4 4 0 1 0-4 0Z",
    "square": "M-3.5-3.5H3.5V3.5H-3.5Z",
    "diamond": "M0-5L5 0L0 5L-5 0Z",
    "triangle": "M0-5L5 4H-5Z",
    "cross": "M-4-4L4 4M-4 4L4-4",
    "star": "M0-5V5M-4.5-2.5L4.5 2.5M-4.5 2.5L4.5-2.5",
    "bar": "M-5 0H5",
}
MOST_FAILURES = 50


@dataclass(frozen=True)
class Card:
    """A finding, with its drawings and the words of its sentence."""

    found: Finding
    interval: str
    runs: int
    ties: str
    dots: Dots
    scatter: Scatter | None


def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("sgm.report"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip


@cache
def _read(path: Path) -> str:
    """A script or a style, without the map that a browser's inspector would ask for."""
    text = re.sub(
        r"(/\*|//)# sourceMappingURL=\S+\s*(\*/)?\s*$", "", path.read_text("utf-8")
    ).strip()
    if re.search(r"</(script|style)", text, re.IGNORECASE):
        raise ValueError(f"{path}: must not end its own element")
    return text


def _json(value: Any) -> Markup:
    """JSON that can stand in an element `script`: no text in it ends that."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def _policy(scripts: Sequence[str], styles: Sequence[str]) -> str:
    def digests(texts: Sequence[str]) -> str:
        made = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in texts)
        return " ".join(f"'sha256-{digest}'" for digest in made) or "'none'"

    return (
        f"default-src 'none'; img-src data:; script-src {digests(scripts)}; "
        f"style-src {digests(styles)}; base-uri 'none'; form-action 'none'"
    )


def _render(name: str, with_table: bool, **values: Any) -> str:
    here = Path(__file__).with_name("templates")
    styles, scripts = [_read(here / "page.css")], []
    if with_table:
        styles.insert(0, _read(VENDOR / "tabulator_simple.min.css"))
        scripts += [_read(VENDOR / "tabulator.min.js"), _read(here / "page.js")]
    page = _environment().get_template(name).render(
        styles=[Markup(text) for text in styles], scripts=[Markup(text) for text in scripts],
        policy=Markup(_policy(scripts, styles)), **values,
    )  # fmt: skip
    return page.replace("SIZE_OF_THE_PAGE", f"{len(page.encode()) / 1e6:.1f} MB", 1)


def report_page(source: Source) -> str:
    """The page of a study.

    Returns
    -------
    str
        HTML; the same study gives the same text.
    """
    grid = source.grid
    found = findings(grid, source.table("ranking"))
    won, best = contests(source), horizons(source)
    # of a study of many samplers, one setting without a bound answers nothing
    shown = [f for f in found if f.bounded or not won]
    cards = [_card(source, f) for f in shown]
    states = grid["status"].values
    judged = verdicts(grid, shown)
    lead, places = _lead(grid, shown), standings(source) if won else []
    return _render(
        "report.html", True,
        source=source, question=question(grid), lead=lead, verdicts=judged, cards=cards,
        contests=won, standings=places,
        calibrations=calibrations(grid) if not (cards or won or best) else [],
        ties=any(c.ties for c in won),
        axes=[a.replace("_", " ") for a in COMBINATION if grid.sizes[a] > 1],
        several_scores=len({c.score for c in won}) > 1, horizons=best, setup=setup(grid),
        table=(table := table_of_cells(grid)), data=_json(table.data),
        kinds=pictures(source, found), shapes=SHAPES,
        failures=_failures(source), done=int((states == DONE).sum()),
        failed=int((states == FAILED).sum()), missing=int((states == NOT_RUN).sum()),
        load=_load(source, found), config=_yaml(source.config), provenance=_provenance(source),
        citation=citation(source), tabulator=_tabulator_version(),
        summary=_json(_summary(source, _short(lead, judged, places, best), found)),
    )  # fmt: skip


def _card(source: Source, found: Finding) -> Card:
    most = 6
    ties = ", ".join(found.ties[:most]) + f" and {len(found.ties) - most} more" * (
        len(found.ties) > most
    )
    return Card(
        found, interval(found.low, found.high), source.grid.sizes["seed"], ties,
        dots(source.grid, found), scatter(source.grid, found),
    )  # fmt: skip


def _lead(grid: xr.Dataset, found: Sequence[Finding]) -> str:
    """The best schedule of each target in one sentence, and in which setting."""
    groups: dict[str, list[str]] = {}
    for own in found:
        groups.setdefault(own.best, []).append(own.target)
    parts = [f"{best} on {listed(targets)}" for best, targets in groups.items()]
    names = {"horizon": "T = {:g}", "n_steps": "N = {:g}", "score": "score {}", "sampler": "{}",
             "time_grid": "time grid {}"}  # fmt: skip
    where = []
    for axis, words in names.items():
        labels = {own.setting[axis] for own in found}
        if grid.sizes[axis] > 1 and len(labels) == 1:
            where.append(words.format(labels.pop()))
    at = f" ({', '.join(where)})" if where else ""
    return f"Least error{at}: {'; '.join(parts)}." if parts else ""


def _short(
    lead: str, judged: Sequence[Verdict], places: Sequence[Standing], best: Sequence[Horizon]
) -> str:
    """The answer in a sentence or two."""
    said = [lead] if lead else []
    if judged:
        cost = (
            f"costs a factor of {judged[0].worst} at most" if judged[0].worst else "costs nothing"
        )
        said.append(f"Following {judged[0].bound} {cost}.")
    if places:
        said.append(f"First over all targets: {', '.join(places[0].combination)}.")
    if best:
        said.append(f"Best T: {'; '.join(f'{h.best} (score {h.score})' for h in best[:3])}.")
    return " ".join(said)


def _failures(source: Source) -> list[dict[str, Any]]:
    """Failed runs by their message: how many, and where the first are."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for failure in source.failures:
        groups.setdefault(str(failure.get("message", "")), []).append(failure)
    rows = []
    for message, own in sorted(groups.items(), key=lambda item: -len(item[1]))[:MOST_FAILURES]:
        places = [
            ", ".join(f"{axis} {value}" for axis, value in failure.items() if axis != "message")
            for failure in own
        ]
        rest = f"; and {len(places) - 3} more" * (len(places) > 3)
        rows.append({"count": len(own), "message": message, "where": "; ".join(places[:3]) + rest})
    return rows


def _load(source: Source, found: Sequence[Finding]) -> str:
    names = [own.divergence.name for own in found] or [d.name for d in divergences_of(source.grid)]
    return f"import sgm\n\ngrid = {source.opens}\ngrid.{names[0] if names else 'status'}"


def _yaml(config: Mapping[str, Any]) -> str:
    return yaml.safe_dump(
        dict(config), sort_keys=False, allow_unicode=True, default_flow_style=None
    )


def _provenance(source: Source) -> list[tuple[str, str]]:
    attrs = source.grid.attrs
    told = [
        ("grid gathered", str(attrs.get("created", ""))),
        ("commit", str(attrs.get("commit", ""))),
        ("processor", source.processor),
    ]
    for key, value in attrs.items():
        if str(key).endswith("_version"):
            told.append((str(key).removesuffix("_version"), str(value)))
    told.append(("versions of the cells", str(attrs.get("cell_versions_note", ""))))
    told.append(("SHA-256 of the numbers", str(attrs.get("content_sha256", ""))))
    return [(title, words) for title, words in told if words]


def citation(source: Source) -> str:
    """What to cite, from CITATION.cff: the software in its version, and what it builds on."""
    attrs = source.grid.attrs
    told = yaml.safe_load(CITATION.read_text("utf-8")) if CITATION.exists() else {}
    version = str(attrs.get("sgm_version", told.get("version", "")))
    commit = str(attrs.get("commit", ""))
    own = ". ".join(filter(None, (_people(told), str(told.get("title", "sgm")))))
    lines = [f"{own}, version {version}{', commit ' + commit if commit else ''}."]
    for work in told.get("references", []):
        lines.append(
            f"{_people(work)}. {work['title']}. {work.get('year', '')}. {work.get('url', '')}"
        )
    return "\n".join(lines)


def _people(work: Mapping[str, Any]) -> str:
    return ", ".join(
        str(
            person.get("name")
            or f"{person.get('given-names', '')} {person['family-names']}".strip()
        )
        for person in work.get("authors", [])
    )


def _tabulator_version() -> str:
    found = re.search(r"Tabulator v([\d.]+)", _read(VENDOR / "tabulator.min.js")[:200])
    return found[1] if found else ""


def _summary(source: Source, lead: str, found: Sequence[Finding]) -> dict[str, str]:
    """What an index page says of the study."""
    grid, files = source.grid, dict(source.figures)
    states = grid["status"].values
    first = [f"{f.divergence.figure}/{f.target}" for f in found]
    stem = next((s for s in ("agreement", *first, *files) if s in files), None)
    facts = [f"{int((states == DONE).sum()):,} runs"]
    facts += [f"{int((states == FAILED).sum()):,} failed"] * bool((states == FAILED).any())
    cpu = sum(h.cpu for h in source.hours)
    facts += [f"{cpu:.2g} CPU hours"] * (cpu > 0)
    facts += [str(grid.attrs.get("created", ""))[:10]]
    return {
        "study": source.study,
        "question": question(grid),
        "lead": lead,
        "facts": " · ".join(filter(None, facts)),
        "thumbnail": thumbnail(files[stem]) if stem else "",
    }


def write_report(source: Source, path: Path) -> Path:
    """Write the page of a study.

    Parameters
    ----------
    source : Source
    path : Path
        Its folder is made.
    """
    with written_whole(path) as aside:
        aside.write_text(report_page(source), encoding="utf-8")
    return path


def summary_of(path: Path) -> dict[str, str]:
    """What a report says of itself for an index.

    Raises
    ------
    ValueError
        If the file is no report.
    """
    found = re.search(
        r'<script type="application/json" id="summary">(.*?)</script>',
        path.read_text("utf-8"),
        re.S,
    )
    if not found:
        raise ValueError(
            f"{path}: is not a report: delete it, or write it again with `make report`"
        )
    summary: dict[str, str] = json.loads(found[1])
    return summary


def index_page(groups: Mapping[str, Sequence[tuple[str, Mapping[str, str]]]]) -> str:
    """The page over several studies: by title, links and summaries."""
    every = [summary for group in groups.values() for _, summary in group]
    return _render("index.html", False, groups=list(groups.items()), summaries=every)


def write_index(reports: Mapping[str, Sequence[Path]], path: Path) -> Path:
    """Write the page over several reports.

    Parameters
    ----------
    reports : mapping of str to sequence of Path
        Reports below the folder of the index, by the title above them.
    path : Path
    """
    groups = {
        title: [(own.relative_to(path.parent).as_posix(), summary_of(own)) for own in group]
        for title, group in reports.items()
    }
    with written_whole(path) as aside:
        aside.write_text(index_page(groups), encoding="utf-8")
    return path
