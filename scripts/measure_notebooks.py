"""How literate the notebooks are: `python scripts/measure_notebooks.py` prints a table, the worst first. With `--lower`
the ceilings in tests/ceilings.json come down to what is found; they never go up."""

import ast
import json
import re
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
CEILINGS = ROOT / "tests" / "ceilings.json"
LARGE = 30  # exported lines from which a cell is a large one
WIDE = 120  # columns


@dataclass
class Figures:
    """What is measured of one notebook; smaller is better."""

    large: int  # % of the exported lines that stand in large cells
    stretch: int  # exported lines that follow each other without an example or an assertion that runs
    wide: int  # exported lines that are too wide
    dense: float  # syntax nodes for each exported line
    lines: int  # exported
    attached: int  # methods that are attached to a class by assignment


GOAL = Figures(large=15, stretch=60, wide=0, dense=11.0, lines=250, attached=0)


def directives(source: str) -> set[str]:
    return set(re.findall(r"^#\|\s*(\w+)", "\n".join(source.split("\n")[:3]), re.M))


def imports_only(lines: list[str]) -> bool:
    return all(re.match(r"import\s|from\s|\s|\)", line) for line in lines)


def is_example(source: str) -> bool:
    if directives(source) & {"hide", "default_exp", "eval", "slow", "gpu", "net", "ray"}:
        return False
    no_code = r"\s*#|import\s|from\s|show_doc\("
    return any(line.strip() and not re.match(no_code, line) for line in source.split("\n"))


def attached(tree: ast.Module) -> int:
    """Methods that are given to a class from outside: `Run.show = show`, or a loop of `setattr`."""
    found = 0
    for node in tree.body:
        if isinstance(node, ast.For) and "setattr" in ast.dump(node):
            found += len(node.iter.elts) if isinstance(node.iter, ast.Tuple | ast.List) else 1
        elif isinstance(node, ast.Assign) and isinstance(target := node.targets[0], ast.Attribute):
            found += isinstance(target.value, ast.Name) and target.value.id[:1].isupper()
    return found


def measure(notebook: Path) -> Figures | None:
    """The figures of a notebook; None where it exports nothing."""
    lines = large = stretch = longest = wide = nodes = given = 0
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] != "code":
            continue
        source = "".join(cell["source"])
        if not directives(source) & {"export", "exporti"}:
            stretch = 0 if is_example(source) else stretch
            continue
        body = [line for line in source.split("\n") if line.strip() and not line.strip().startswith("#")]
        if body and imports_only(body):
            continue
        lines, stretch = lines + len(body), stretch + len(body)
        longest, large = max(longest, stretch), large + len(body) * (len(body) > LARGE)
        wide += sum(len(line) > WIDE for line in body)
        tree = ast.parse(source)
        nodes, given = nodes + sum(1 for _ in ast.walk(tree)), given + attached(tree)
    return Figures(100 * large // lines, longest, wide, round(nodes / lines, 1), lines, given) if lines else None


def rooms() -> dict[str, Figures]:
    """The figures of every notebook that exports something, by its path under nbs/ without its number."""
    found = {}
    for file in sorted((ROOT / "nbs").rglob("*.ipynb")):
        parts = file.relative_to(ROOT / "nbs").with_suffix("").parts
        if any(part.startswith((".", "_")) for part in parts) or (figures := measure(file)) is None:
            continue
        found["/".join((*parts[:-1], re.sub(r"^\d+_", "", parts[-1])))] = figures
    return found


def limit_of(room: str, ceilings: dict[str, dict]) -> Figures:
    """What a room may not exceed: the goal, or what it was found at while it isn't rewritten yet."""
    return Figures(**{k: max(goal, ceilings.get(room, {}).get(k, 0)) for k, goal in asdict(GOAL).items()})


def lower(found: dict[str, Figures], ceilings: dict[str, dict] | None) -> dict[str, dict]:
    """The ceilings of what is still above the goal: what was found where that is less. None: the first time."""
    new = {}
    for room, figures in found.items():
        above = {k: v for k, v in asdict(figures).items() if v > getattr(GOAL, k)}
        if ceilings is not None:
            above = {k: min(v, ceilings[room][k]) for k, v in above.items() if k in ceilings.get(room, {})}
        if above:
            new[room] = above
    return new


def main():
    found = rooms()
    if "--lower" in sys.argv:
        known = json.loads(CEILINGS.read_text()) if CEILINGS.exists() else None
        lines = (f"  {json.dumps(room)}: {json.dumps(above)}" for room, above in lower(found, known).items())
        CEILINGS.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    print(f"{'':28}{''.join(f'{k:>10}' for k in asdict(GOAL))}")
    for room, f in [("the goal", GOAL), *sorted(found.items(), key=lambda r: -r[1].stretch)]:
        print(f"{room:28}{''.join(f'{v:>10}' for v in asdict(f).values())}")


if __name__ == "__main__":
    main()
