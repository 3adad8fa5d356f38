"""A report as Markdown and as one HTML page that needs no other file: the same sections, tables and figures."""

import base64
import html
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple


class Table(NamedTuple):
    """A table; a line break in a cell separates what is said small below."""

    title: str
    note: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


class Figure(NamedTuple):
    """A picture, and what it shows."""

    file: Path
    title: str
    note: str


class Section(NamedTuple):
    """A heading, a line of text, and what stands below it."""

    title: str
    text: str = ""
    tables: tuple[Table, ...] = ()
    figures: tuple[Figure, ...] = ()
    lines: tuple[str, ...] = ()


def markdown(title: str, sections: Sequence[Section], command: str, folder: Path) -> str:
    """The report in Markdown; pictures are linked relative to `folder`."""
    lines = [f"# {title}", "", f"Made by `{command}`.", ""]
    for section in sections:
        lines += [f"## {section.title}", "", *([section.text, ""] if section.text else [])]
        lines += [f"- {line}" for line in section.lines] + ([""] if section.lines else [])
        for table in section.tables:
            lines += [f"### {table.title}", "", table.note, ""] if table.title != section.title else [table.note, ""]
            lines += [_row(table.head), _row(["---"] * len(table.head)), *map(_row, table.rows)]
            lines += ["", f"Made by `{command}`.", ""]
        for figure in section.figures:
            source = figure.file.relative_to(folder).as_posix()
            lines += [f"![{figure.title}]({source})", "", f"{figure.title}: {figure.note} Made by `{command}`.", ""]
    return "\n".join(lines).rstrip() + "\n"


def page(title: str, sections: Sequence[Section], command: str) -> str:
    """The report as one HTML page: pictures inside, no scripts, nothing fetched; light or dark as the reader's system.

    Wide tables scroll by themselves under a first column that stays; figures stand beside each other where there is
    room.
    """
    body = [f"<h1>{_text(title)}</h1>", _made(command)]
    body += [f"<nav>{''.join(_link(section.title) for section in sections)}</nav>"]
    for section in sections:
        body += [f'<section id="{_anchor(section.title)}"><h2>{_text(section.title)}</h2>']
        body += [f"<p>{_text(section.text)}</p>"] if section.text else []
        body += [f"<ul>{''.join(f'<li>{_text(line)}</li>' for line in section.lines)}</ul>"] if section.lines else []
        body += [_table(table, command, heading=table.title != section.title) for table in section.tables]
        if section.figures:
            body += ['<div class="figures">', *(_figure(figure, command) for figure in section.figures), "</div>"]
        body += ["</section>"]
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">{_STYLE}'
    head = f'<!doctype html>\n<html lang="en"><head><title>{_text(title)}</title>{head}</head>'
    return "\n".join([head, "<body>", *body, "</body></html>", ""])


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("\n", " ").replace("|", "\\|") for cell in cells) + " |"


def _text(text: str) -> str:
    return html.escape(text)


def _anchor(title: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in title.lower())


def _link(title: str) -> str:
    return f'<a href="#{_anchor(title)}">{_text(title)}</a>'


def _made(command: str) -> str:
    return f'<p class="made">Made by <code>{_text(command)}</code></p>'


def _table(table: Table, command: str, *, heading: bool) -> str:
    head = "".join(f'<th scope="col">{_text(cell)}</th>' for cell in table.head)
    rows = "".join(
        f'<tr><th scope="row">{_name(row[0])}</th>{"".join(_cell(cell) for cell in row[1:])}</tr>' for row in table.rows
    )
    title = f"<h3>{_text(table.title)}</h3>" if heading else ""
    grid = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    return f'{title}<p>{_text(table.note)}</p><div class="table" tabindex="0">{grid}</div>{_made(command)}'


def _name(name: str) -> str:
    """A system's name, which may break where its parts meet."""
    return re.sub(r"([_:,])", r"\1<wbr>", _text(name))


def _cell(cell: str) -> str:
    first, *rest = cell.split("\n")
    return f"<td>{_text(first)}{''.join(f'<small>{_text(line)}</small>' for line in rest)}</td>"


def _figure(figure: Figure, command: str) -> str:
    data = base64.b64encode(figure.file.read_bytes()).decode()
    picture = f'<img alt="{_text(figure.title)}" src="data:image/png;base64,{data}">'
    told = f"<b>{_text(figure.title)}.</b> {_text(figure.note)}"
    return f"<figure>{picture}<figcaption>{told}{_made(command)}</figcaption></figure>"


_STYLE = """<style>
:root { color-scheme: light dark; --paper: #fbfaf7; --ink: #22252b; --faint: #646974; --line: #dddad2;
  --card: #f2f0ea; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #17191d; --ink: #e8e6e1; --faint: #a0a4ad; --line: #363a42; --card: #20232a; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.2rem clamp(0.9rem, 4vw, 2.5rem) 4rem; max-width: 1240px; background: var(--paper);
  color: var(--ink); font: 16px/1.5 system-ui, "DejaVu Sans", sans-serif; }
h1 { font-size: 1.7rem; margin: 0.6rem 0; } h2 { font-size: 1.25rem; margin: 2.4rem 0 0.5rem; }
h3 { margin: 1.6rem 0 0.3rem; }
p, li { max-width: 75ch; overflow-wrap: anywhere; } p { margin: 0.5rem 0; }
nav { display: flex; flex-wrap: wrap; gap: 0.3rem 1.2rem; margin: 1rem 0; }
a { color: inherit; text-decoration-color: var(--faint); text-underline-offset: 0.2em; }
.made { color: var(--faint); font-size: 0.8rem; }
code { font: 0.95em/1.4 ui-monospace, "DejaVu Sans Mono", monospace; }
.table { overflow-x: auto; border: 1px solid var(--line); border-radius: 8px; margin: 0.8rem 0 0.3rem; }
table { border-collapse: separate; border-spacing: 0; width: 100%; font-size: 0.92rem;
  font-variant-numeric: tabular-nums; }
th, td { padding: 0.45rem 0.8rem; text-align: right; vertical-align: top; white-space: nowrap; }
td { border-top: 1px solid var(--line); } tbody th { border-top: 1px solid var(--line); font-weight: 600; }
thead th { background: var(--card); color: var(--faint); font-weight: 600; font-size: 0.85rem; white-space: normal; }
th:first-child { text-align: left; position: sticky; left: 0; background: var(--card); max-width: 45vw;
  white-space: normal; overflow-wrap: break-word; }
@media (max-width: 600px) { th, td { padding: 0.4rem 0.5rem; } table { font-size: 0.85rem; } }
small { display: block; color: var(--faint); font-size: 0.8rem; }
.figures { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 340px), 1fr)); gap: 1.2rem; }
figure { margin: 0; }
img { width: 100%; height: auto; display: block; border-radius: 8px; border: 1px solid var(--line); }
figcaption { font-size: 0.88rem; margin-top: 0.4rem; }
</style>"""
