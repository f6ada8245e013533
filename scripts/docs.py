"""Build the docs site from the notebooks: python scripts/docs.py [--out FOLDER]

Each notebook goes through nbdev's processors: what is hidden is dropped, an exported cell becomes the signatures and
parameter tables of what it defines. Quarto renders the site where it is on PATH, otherwise smalldocs does.
"""

import argparse
import ast
import dataclasses
import html
import importlib
import inspect
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import readme
import yaml
from fastcore.docments import docments
from nbdev import processors as nbdev
from nbdev.process import Processor

import lightning_pod

ROOT = readme.ROOT
NBS = ROOT / "nbs"
SECTIONS = {
    "core": "Core",
    "store": "Store",
    "train": "Train",
    "deploy": "Deploy",
    "app": "App",
    "panels": "Panels",
    "tutorials": "Tutorials",
    "bench": "Benchmarks",
}
LEFT_OUT = {"dashboards"}  # pages of the workbench, which show nothing without a kernel


class DocsError(Exception):
    "The site can't be built; the text says why."


def notebooks() -> list[Path]:
    "The pages in reading order: index, then by number; what has no number comes last."

    def place(path: Path) -> tuple:
        number = re.match(r"\d+", path.name)
        folder = path.parent.name if path.parent != NBS else ""
        late = [*SECTIONS].index(folder) if folder in SECTIONS else 0
        return path.name != "index.ipynb", number is None, int(number[0]) if number else late, path.name

    found = [(p, p.relative_to(NBS).parts) for p in NBS.rglob("*.ipynb")]
    shown = [p for p, parts in found if parts[0] not in LEFT_OUT and not any(x.startswith((".", "_")) for x in parts)]
    return sorted(shown, key=place)


def sidebar(pages: list[Path]) -> dict:
    "The sidebar: a section for each folder, in the order in which its first notebook is read."
    entries, sections = [], {}
    for path in pages:
        rel = path.relative_to(NBS)
        if len(rel.parts) == 1:
            entries.append(rel.as_posix())
            continue
        if rel.parts[0] not in sections:
            name = SECTIONS.get(rel.parts[0], rel.parts[0].capitalize())
            sections[rel.parts[0]] = {"section": name, "contents": []}
            entries.append(sections[rel.parts[0]])
        sections[rel.parts[0]]["contents"].append(rel.as_posix())
    return {"website": {"sidebar": {"style": "docked", "contents": entries}}}


# ---- one notebook


class Front(Processor):
    "The heading and the line below it become the page's title and description; the prose after them stays."

    def begin(self):
        first = next((c for c in self.nb.cells if c.cell_type == "markdown"), None)
        found = first and re.match(r"# (.+)\n+(?:> (.+)\n*)?", first.source + "\n")
        if not found:
            raise DocsError("its first text must begin with '# Title'")
        first.source = first.source[found.end() :].strip() or None
        front = {"title": found[1].strip()} | ({"description": found[2].strip()} if found[2] else {})
        cell = nbdev.mk_cell(f"---\n{yaml.safe_dump(front, allow_unicode=True, width=1000)}---", "raw")
        cell.directives_ = {}
        self.nb.cells.insert(0, cell)


class Signatures(Processor):
    "After each exported cell: the signature, docstring and parameter table of what it defines."

    def begin(self):
        module = next((c.directives_["default_exp"][0] for c in self.nb.cells if "default_exp" in c.directives_), None)
        self.nb.metadata["names"] = []
        if module is None:
            return
        self.module = importlib.import_module(f"lightning_pod.{module}")
        cells = []
        for cell in self.nb.cells:
            cells.append(cell)
            if {"export", "exports"} & cell.directives_.keys() and "hide" not in cell.directives_:
                cells += [self.shown(name) for name in _defined(cell.source)]
        self.nb.cells = cells

    def shown(self, name: str):
        "The cell that documents `name`, which may be a method."
        thing = self.module
        for part in name.split("."):
            thing = getattr(thing, part)
        table = _parameters(thing)
        call = ("class " if inspect.isclass(thing) else "") + _call(name, thing, typed=not table, width=80)
        parts = [f"### {name} {{#{name}}}", f"```python\n{call}\n```", inspect.getdoc(thing), table, _methods(thing)]
        self.nb.metadata["names"].append(name)
        cell = nbdev.mk_cell("\n\n".join(part for part in parts if part), "markdown")
        cell.directives_ = {}
        return cell


def _defined(code: str) -> list[str]:
    "The public names that a cell defines; a function that is then hung on a class by that class's name."
    tree, hung = ast.parse(code), {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Attribute):
            target, value = node.targets[0], node.value
            inner = value.args[0] if isinstance(value, ast.Call) and value.args else value  # classmethod(function)
            if isinstance(inner, ast.Name) and isinstance(target.value, ast.Name):
                hung[inner.id] = f"{target.value.id}.{target.attr}"
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return [hung.get(n.name, n.name) for n in tree.body if isinstance(n, kinds) and not n.name.startswith("_")]


def _call(name: str, thing, typed: bool = False, width: int = 1000) -> str:
    "How `thing` is called; with `typed` also what goes in and what comes back."
    if inspect.isclass(thing) and not _maker(thing):
        return name  # its arguments are those of somebody else's class
    parts, starred, back = [], False, ""
    for p in _arguments(thing):
        if p.kind is p.KEYWORD_ONLY and not starred:
            parts.append("*")
        starred = starred or p.kind in (p.VAR_POSITIONAL, p.KEYWORD_ONLY)
        kind = _type(p.annotation) if typed else ""
        parts.append(str(p.replace(annotation=Plain(kind) if kind else p.empty)))
    if typed and not inspect.isclass(thing) and (kind := _type(inspect.signature(thing).return_annotation)):
        back = f" -> {kind}"
    lines = [f"{name}("]
    for n, part in enumerate(parts):
        part += ", " if n < len(parts) - 1 else f"){back}"
        if len(lines[-1] + part.rstrip()) > width:
            lines.append("    ")
        lines[-1] += part
    return "\n".join(line.rstrip() for line in lines) if parts else f"{name}(){back}"


class Plain(str):
    "Text that shows as it is where an object would show its repr."

    __repr__ = str.__str__


def _maker(cls: type):
    "The class whose `__init__` makes a `cls`, where it is ours."
    maker = next(c for c in cls.__mro__ if "__init__" in vars(c))
    return maker if maker.__module__.startswith("lightning_pod") else None


def _arguments(thing) -> list[inspect.Parameter]:
    "The parameters of a function, or of what makes an object of a class."
    if inspect.isclass(thing) and not _maker(thing):
        return []
    made = {f.name: f.default_factory for f in dataclasses.fields(thing)} if dataclasses.is_dataclass(thing) else {}
    found = [p for p in inspect.signature(thing).parameters.values() if p.name not in ("self", "cls")]
    return [p.replace(default=made[p.name]()) if callable(made.get(p.name)) else p for p in found]


def _parameters(thing) -> str:
    "The table of parameters, where there is anything to say of them; what comes back is its last row."
    notes, rows = docments(thing, full=True, args_kwargs=True), []
    for p in _arguments(thing):
        note = (notes.get(p.name) or {}).get("docment")
        default = "" if p.default is p.empty else f"`{p.default!r}`"
        rows.append([f"`{p.name}`", _code(_type(p.annotation)), default, note or ""])
    back = {} if inspect.isclass(thing) else notes.get("return") or {}
    if back.get("docment"):
        rows.append(["*returns*", _code(_type(inspect.signature(thing).return_annotation)), "", back["docment"]])
    return _table(["", "type", "default", ""], rows) if any(row[3] for row in rows) else ""


def _code(text: str) -> str:
    return f"`{text}`" if text else ""


def _type(annotation) -> str:
    "An annotation without the modules that its names come from."
    if annotation is inspect.Parameter.empty:
        return ""
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    return re.sub(r"(?:\w+\.)+(?=[A-Za-z_])", "", text)


def _methods(thing) -> str:
    "The table of a class's public methods and properties that say what they do."
    rows = []
    for key, value in vars(thing).items() if inspect.isclass(thing) else ():
        inner = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
        if key.startswith("_") or not inspect.isfunction(inner) or not inner.__doc__:
            continue
        call = f".{key}" if isinstance(value, property) else _call(f".{key}", inner)
        rows.append([f"`{call}`", inner.__doc__.strip().splitlines()[0]])
    return _table(["", ""], rows)


def _table(head: list[str], rows: list[list[str]]) -> str:
    keep = [i for i in range(len(head)) if any(row[i] for row in rows)]
    rows = [[row[i].replace("|", r"\|") for i in keep] for row in rows]
    lines = [[head[i] for i in keep], ["---"] * len(keep), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) if rows else ""


def no_widgets(cell):
    "A widget needs a kernel: in a page it would only leave the name of its class."
    if cell.cell_type == "code":
        view = "application/vnd.jupyter.widget-view+json"
        cell.outputs = [o for o in cell.get("outputs", []) if view not in o.get("data", {}) or "text/html" in o["data"]]


PROCESSORS = [Front, *readme.FIRST, Signatures, no_widgets, *readme.LAST, nbdev.add_fold, nbdev.mv_exports]


# what holds no links: code blocks, headings, links, the first column of a table
KEPT = re.compile(r"(^```.*?^```|^#.*?$|\[[^\]]*\]\([^)]*\)|^ {4,}.*?$|^\| `[^`]*` \|)", re.M | re.S)


def link_names(nb: nbformat.NotebookNode, here: str, where: dict[str, str]):
    "Turn names in backticks into links to where they are documented, this page first."
    pages = {**where, **{name: here for name in nb.metadata.get("names", [])}}

    def link(m: re.Match) -> str:
        name = m[1].removesuffix("()")
        if re.fullmatch("[a-z]+", m[1]) and m[1] not in lightning_pod.__all__:
            return m[0]  # a parameter or a field as likely as a function
        known = next((n for n in (name, name.rpartition(".")[0]) if n in pages), None)
        if known is None:
            return m[0]
        up = "../" * here.count("/")
        return f"[{m[0]}]({'' if pages[known] == here else up + pages[known]}#{known})"

    for cell in nb.cells:
        if cell.cell_type == "markdown":
            parts = KEPT.split(cell.source)
            parts[::2] = [re.sub(r"(?<!`)`([A-Za-z_][\w.]*(?:\(\))?)`(?!`)", link, part) for part in parts[::2]]
            cell.source = "".join(parts)


# ---- the site


def prepare(work: Path) -> None:
    "A project that Quarto and smalldocs can render: processed notebooks, pictures, settings, sidebar."
    shutil.rmtree(work, ignore_errors=True)
    pages, where, done = notebooks(), {}, {}
    for path in pages:
        rel = path.relative_to(NBS).as_posix()
        try:
            done[rel] = readme.process(path, PROCESSORS)
        except Exception as e:
            raise DocsError(f"nbs/{rel}: {type(e).__name__}: {e}") from e
        # the verbs of the command line have the names of what they call
        for name in done[rel].metadata.get("names", []) if "/" in rel else []:
            where.setdefault(name, rel)  # of two things with one name the one that is read first is meant
    for rel, nb in done.items():
        link_names(nb, rel, where)
        (work / rel).parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(nb, work / rel)
    for path in [p for p in NBS.rglob("*") if p.suffix in (".svg", ".png", ".jpg", ".gif", ".css") and p.is_file()]:
        target = work / path.relative_to(NBS)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    shutil.copy(ROOT / "_quarto.yml", work)
    (work / "sidebar.yml").write_text(yaml.safe_dump(sidebar(pages), sort_keys=False), encoding="utf-8")


def render(work: Path) -> Path:
    "The rendered site, still within the project."
    if quarto := shutil.which("quarto"):
        code = subprocess.run([quarto, "render", str(work), "--no-execute", "-M", "html-math-method:mathml"]).returncode
        if code:
            raise DocsError(f"quarto render ended with code {code}")
        return work / "_docs"
    from smalldocs.site import build

    site = build(work, quiet=True)
    if site.warnings:
        raise DocsError("\n".join(["smalldocs warns:", *site.warnings]))
    stand_alone(site.out)
    return site.out


SEARCH = """// A page that was opened as a file may fetch nothing: then the index comes as a script.
const searchIndex = (offset) => new Promise((ok, no) => {
  if (location.protocol !== "file:") return fetch(offset + "search.json").then(ok, no);
  const s = Object.assign(document.createElement("script"), {src: offset + "search.js", onerror: no});
  s.onload = () => ok({json: () => window.searchEntries});
  document.head.append(s);
});
"""
MATHS = re.compile(r'<span class="math (inline|display)">\\[(\[](.*?)\\[)\]]</span>', re.S)


def stand_alone(site: Path) -> None:
    """Make a smalldocs site whole without a server or a network.

    Fonts of other hosts are left out, KaTeX gives way to MathML, and the search works in a page opened as a file.
    """
    from latex2mathml.converter import convert

    def maths(latex: str, kind: str) -> str:
        made = convert(html.unescape(latex), display="block" if kind == "display" else "inline")
        thin = '<mspace width="0.17em"/>'
        return re.sub(r"<mi>[a-z]{2,}</mi>", rf"{thin}\g<0>{thin}", made)  # the names of functions stand apart

    script = site / "site_libs" / "smalldocs.js"
    text = script.read_text(encoding="utf-8").replace('fetch(offset + "search.json")', "searchIndex(offset)")
    script.write_text(SEARCH + text, encoding="utf-8")
    entries = (site / "search.json").read_text(encoding="utf-8")
    (site / "search.js").write_text(f"window.searchEntries = {entries};\n", encoding="utf-8")
    for css in site.rglob("*.css"):
        text = css.read_text(encoding="utf-8")
        if (mine := re.sub(r"@import url\([\"']?https?:[^)]*\);?", "", text)) != text:
            css.write_text(mine, encoding="utf-8")
    for file in site.rglob("*.html"):
        text = file.read_text(encoding="utf-8")
        text = MATHS.sub(lambda m: maths(m[2], m[1]), text)
        text = re.sub(r'<(link|script)\b[^>]*\bkatex\b[^>]*>(</script>)?\s*', "", text)
        file.write_text(text, encoding="utf-8")
        fetched = re.findall(r'<(?:link|script|img|iframe)\b[^>]*\b(?:src|href)="(https?://[^"]+)"', text)
        if fetched:
            raise DocsError(f"{file.relative_to(site)} fetches {', '.join(sorted(set(fetched)))}")


def main(argv: list[str] | None = None) -> int:
    "Build the site and say where it is."
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "_docs", help="the site's folder; what is there is replaced")
    out = parser.parse_args(argv).out.resolve()
    work = out.parent / "_proc"
    try:
        if out == ROOT / "_docs":
            readme.main()
        prepare(work)
        built = render(work)
    except DocsError as e:
        print(f"docs: {e}", file=sys.stderr)
        return 1
    shutil.rmtree(out, ignore_errors=True)
    shutil.move(built, out)
    print(f"{len([*out.rglob('*.html')])} pages: {out / 'index.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
