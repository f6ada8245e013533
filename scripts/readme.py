"""Render README.md from nbs/index.ipynb: python scripts/readme.py [--check]

The notebook goes through nbdev's processors, which drop what is hidden, and then through nbconvert.
"""

import json
import re
import sys
from pathlib import Path

import nbformat
from execnb.nbio import nb2dict, read_nb
from nbconvert import MarkdownExporter
from nbdev import processors as nbdev
from nbdev.process import NBProcessor

ROOT = Path(__file__).resolve().parent.parent
FIRST = [nbdev.populate_language, nbdev.strip_ansi, nbdev.hide_line, nbdev.filter_stream_, nbdev.rm_header_dash]
LAST = [nbdev.rm_export, nbdev.clean_magics, nbdev.hide_, nbdev.strip_hidden_metadata]
LINK = re.compile(r"(\]\()(?!#|[a-z]+:)([^)\s]+\))")


def process(path: Path, procs: list) -> nbformat.NotebookNode:
    "The notebook as a reader sees it: nbdev's processors are through with it."
    nb = read_nb(path)
    NBProcessor(nb=nb, procs=procs).process()
    for cell in nb.cells:
        for key in [k for k in cell if k.endswith("_")]:
            del cell[key]
    done = nbformat.reads(json.dumps(nb2dict(nb)), 4)
    for cell in done.cells:
        if cell.cell_type == "code":
            cell.outputs = merged(cell.outputs)
    return done


def merged(outputs: list) -> list:
    "Pieces of text that a program printed one after the other as one."
    found = []
    for out in outputs:
        if out.output_type == "stream" and found and found[-1].get("name") == out.name:
            found[-1].text += out.text
        else:
            found.append(out)
    return [o for o in found if o.output_type != "stream" or o.text.strip()]


def render(index: Path = ROOT / "nbs" / "index.ipynb") -> str:
    "The text of the README."
    nb = process(index, FIRST + LAST)
    for cell in nb.cells:
        # the README stands one folder above what the notebook links to
        if cell.cell_type == "markdown":
            cell.source = LINK.sub(r"\1nbs/\2", cell.source)
            continue
        for data in [out.data for out in cell.outputs if "text/markdown" in out.get("data", {})]:
            data["text/markdown"] = LINK.sub(r"\1nbs/\2", data["text/markdown"])
        cell.metadata["magics_language"] = cell.metadata.pop("language", "python")
        if "echo: false" in cell.source:
            cell.metadata["transient"] = {"remove_source": True}
    text, _ = MarkdownExporter().from_notebook_node(nb)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def main(check: bool = False) -> int:
    "Write README.md, or with `check` only say whether it is in step."
    readme = ROOT / "README.md"
    text = render()
    if readme.exists() and readme.read_text(encoding="utf-8") == text:
        return 0
    if check:
        print("README.md is not what nbs/index.ipynb renders to: run scripts/readme.py", file=sys.stderr)
        return 1
    readme.write_text(text, encoding="utf-8")
    print("README.md is rendered from nbs/index.ipynb")
    return 0


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv[1:]))
