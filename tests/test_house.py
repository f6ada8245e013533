"""The rules of the house: what stands where, what may import what, and that notebooks and package are one."""

import ast
import json
import re
import subprocess
import sys
from collections import Counter
from dataclasses import asdict
from importlib import import_module
from pathlib import Path

import measure_notebooks
import pytest
from conftest import ROOT

import lightning_pod

NBS = ROOT / "nbs"
PACKAGE = ROOT / "lightning_pod"
FREE = ("bench", "tutorials", "dashboards")  # folders whose notebooks make no module, so they need no number


def module_name(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


NOTEBOOKS = sorted(p for p in NBS.rglob("*.ipynb") if not any(part.startswith(".") for part in p.parts))
MODULES = {module_name(p): p for p in sorted(PACKAGE.rglob("*.py")) if "assets" not in p.parts}


def cells(notebook: Path) -> list[dict]:
    return json.loads(notebook.read_text(encoding="utf-8"))["cells"]


def numbers() -> dict[str, int]:
    """The number of each module: that of the notebook which it is exported from."""
    found = {}
    for notebook in NOTEBOOKS:
        for cell in cells(notebook):
            if m := re.search(r"^#\| *default_exp +([\w.]+)", "".join(cell["source"]), re.M):
                number = re.match(r"\d+", notebook.name)
                assert number, f"{notebook.name} exports {m[1]} and has no number"
                found[f"lightning_pod.{m[1]}"] = int(number[0])
    return found


def imports(name: str) -> set[str]:
    """The absolute names that a module imports, anywhere in it."""
    file, found = MODULES[name], set()
    package = name.split(".") if file.name == "__init__.py" else name.split(".")[:-1]
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *filter(None, [node.module])])
            found |= {f"{base}.{a.name}" for a in node.names}
    return found


def imported_modules(name: str) -> set[str]:
    """The modules of the package that a module imports, the lazy names of the package resolved."""
    lazy = {f"lightning_pod.{k}": f"lightning_pod.{v}" for k, v in lightning_pod._PUBLIC.items()}
    wanted = {lazy.get(n, n) for n in imports(name)}
    return {m for n in wanted for m in (n, n.rpartition(".")[0]) if m in MODULES and m != "lightning_pod"}


# ---- notebooks and package


def test_an_export_and_a_clean_change_nothing():
    from in_step import out_of_step

    assert out_of_step() == []


def test_numbers_are_unique_and_every_module_has_one():
    housed = [p.name for p in NOTEBOOKS if p.relative_to(NBS).parts[0] not in FREE]
    counted = Counter(m[0] for name in housed if (m := re.match(r"\d+", name)))
    assert [n for n, count in counted.items() if count > 1] == []
    by_hand = {m for m, file in MODULES.items() if file.name in ("__init__.py", "_modidx.py")}
    assert set(MODULES) - by_hand == set(numbers())


def test_a_module_imports_lower_numbers_only():
    number = numbers()
    wrong = [f"{m} ({number[m]}) imports {other} ({number[other]})" for m in number for other in imported_modules(m)
             if other in number and other != m and number[other] >= number[m]]
    assert wrong == []
    assert any(imported_modules(m) for m in number)  # the parser sees them at all


def test_the_package_needs_neither_nbdev_nor_fastcore():
    tops = {m: {n.partition(".")[0] for n in imports(m)} for m in MODULES}
    assert {m: t for m, t in tops.items() if t & {"nbdev", "fastcore", "execnb", "ghapi", "fastgit"}} == {}


OF_A_MACHINE = re.compile(r"(?<![\w.:/-])/(root|home|work|tmp|Users|var/folders)/[^\s\"']+")


def output_text(output: dict) -> str:
    """What an output says, its pictures left out."""
    said = output.get("text") or {k: v for k, v in output.get("data", {}).items() if "image" not in k}
    return re.sub(r"data:[\w/+;-]+base64,[\w+/=]+", "", json.dumps(said, ensure_ascii=False))


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda p: str(p.relative_to(NBS)))
def test_a_notebook_is_fit_to_be_read(notebook):
    assert notebook.stat().st_size <= 400_000
    for cell in cells(notebook):
        outputs = cell.get("outputs", [])
        assert not [o for o in outputs if o["output_type"] == "error"], "".join(cell["source"])
        for text in ("".join(cell["source"]), *map(output_text, outputs)):
            assert not (m := OF_A_MACHINE.search(text)), f"a path of one machine: {m[0]}"


# ---- how literate they are

FIGURES = measure_notebooks.rooms()
LIMITS = json.loads(measure_notebooks.CEILINGS.read_text())


@pytest.mark.parametrize("room", FIGURES)
def test_a_room_meets_the_goals_or_is_no_worse_than_it_was(room):
    limit = asdict(measure_notebooks.limit_of(room, LIMITS))
    above = {k: f"{v}, at most {limit[k]}" for k, v in asdict(FIGURES[room]).items() if v > limit[k]}
    assert above == {}, f"see the head of scripts/measure_notebooks.py for what the words mean: {above}"


def test_ceilings_are_of_rooms_that_are_there_and_above_the_goals():
    assert set(LIMITS) <= set(FIGURES)
    goal = asdict(measure_notebooks.GOAL)
    assert [(room, k) for room, above in LIMITS.items() for k, v in above.items() if v <= goal[k]] == []


def test_what_is_measured_of_a_notebook(tmp_path):
    def figures(*sources):
        made = [{"cell_type": "code", "source": s} for s in sources]
        (tmp_path / "a.ipynb").write_text(json.dumps({"cells": made}))
        return measure_notebooks.measure(tmp_path / "a.ipynb")

    export = "#| export\n"
    ten, long = (export + "\n".join(f"x{i} = {i}" for i in range(n)) for n in (10, 31))
    assert figures("x = 1") is None and figures(export + "import os") is None
    assert figures(ten, ten, "print(x1)", ten).stretch == 20
    assert figures(ten, "#| hide\nprint(x1)", ten, "import os", ten, "# a remark", ten).stretch == 40
    assert (figures(ten, ten, ten, ten).large, figures(ten, long).large) == (0, 75)
    wide = figures(export + f"name = '{'x' * 111}'", export + f"name = '{'x' * 112}'")
    assert (wide.wide, wide.lines) == (1, 2)
    given = "class A: pass\nA.f = len\na = A()\na.f = len\nfor f in (len, min): setattr(A, f.__name__, f)"
    assert figures(export + given).attached == 3
    assert figures(export + "f(g(h(1)))").dense > figures(export + "f(1)").dense


# ---- what an import brings


@pytest.mark.parametrize("module", ["", ".core.job", ".train.runs", ".cli"])
def test_a_light_import_brings_no_torch(module):
    heavy = ("torch", "pytorch_lightning", "aim", "ipywidgets")
    code = f"import sys, lightning_pod{module}; print([m for m in {heavy} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_public_names_are_there():
    for name in lightning_pod.__all__:
        value = getattr(lightning_pod, name)
        assert value.__doc__ and value.__name__ == name
        assert name in dir(lightning_pod)
    with pytest.raises(AttributeError, match="nothing_like_it"):
        lightning_pod.nothing_like_it  # noqa: B018


def test_exported_names_are_there():
    for name in set(MODULES) - {"lightning_pod", "lightning_pod._modidx"}:
        module = import_module(name)
        assert [n for n in getattr(module, "__all__", []) if not hasattr(module, n)] == []


def test_no_public_function_shares_its_name_with_a_module_beside_it():
    beside = {p.stem for p in PACKAGE.iterdir() if p.suffix == ".py" or p.is_dir()}
    assert set(lightning_pod.__all__) & beside == set()
    for name, file in MODULES.items():
        if file.name != "__init__.py":
            beside = {p.stem for p in file.parent.iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()}
            assert set(getattr(import_module(name), "__all__", [])) & (beside - {file.stem}) == set(), name


def test_help_imports_nothing_but_the_standard_library():
    code = "import sys; from lightning_pod.cli import main; main(['--help'])"
    p = subprocess.run([sys.executable, "-X", "importtime", "-c", code], capture_output=True, text=True)
    assert p.returncode == 0 and "usage: pod VERB" in p.stdout
    ours = [line.rpartition("|")[2].strip() for line in p.stderr.splitlines() if line.startswith("import time:")]
    began = ours.index("lightning_pod")  # before it: what the environment's .pth files import
    other = {n.partition(".")[0] for n in ours[began:]} - set(sys.stdlib_module_names) - {"lightning_pod"}
    assert other == set()


# ---- what is in the repository


def test_every_recipe_of_the_makefile_is_listed():
    out = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for target in ("install", "app", "lab", "test", "docs", "bench", "notebooks", "lint", "clean"):
        assert re.search(rf"\b{target}\b", out), out


def test_ruff_has_nothing_to_say():
    p = subprocess.run([Path(sys.executable).with_name("ruff"), "check"], cwd=ROOT, capture_output=True, text=True)
    assert p.returncode == 0, p.stdout[-3000:]
