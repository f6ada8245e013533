"""Run notebooks again in place, in reading order, and clean them.

    python scripts/notebooks.py                  # all but those of bench/ and dashboards/
    python scripts/notebooks.py nbs/bench        # those of a folder, or a single one

Cells with a flag that the tests skip (slow, gpu, net, ray) keep the output they have.
"""

import re
import subprocess
import sys
import time
from configparser import ConfigParser
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

ROOT = Path(__file__).resolve().parent.parent
LEFT_OUT = ("bench", "dashboards")


def skipped_flags() -> set[str]:
    config = ConfigParser(delimiters=["="], interpolation=None)
    config.read(ROOT / "settings.ini", encoding="utf-8")
    return set(config["DEFAULT"]["tst_flags"].split())


class Client(NotebookClient):
    "Runs the cells that the tests run."

    flags = skipped_flags()

    async def async_execute_cell(self, cell, cell_index, *args, **kwargs):
        directives = re.findall(r"^#\| *(\w+):? *(\w*)", cell.source, re.M)
        if any(name in self.flags or (name, value) == ("eval", "false") for name, value in directives):
            return cell
        return await super().async_execute_cell(cell, cell_index, *args, **kwargs)


def in_reading_order(paths: list[Path]) -> list[Path]:
    "Notebooks by the number in their names, then those without one."
    number = {p: re.match(r"\d+", p.name) for p in paths}
    return sorted(paths, key=lambda p: (number[p] is None, int(number[p][0]) if number[p] else 0, p))


def notebooks(wanted: list[str]) -> list[Path]:
    "The notebooks of the folders and files in `wanted`; without any, all that are not left out."
    found = [p for w in wanted or ["nbs"] for p in ([Path(w)] if w.endswith(".ipynb") else Path(w).rglob("*.ipynb"))]
    found = [p for p in found if not any(part.startswith((".", "_")) for part in p.parts)]
    return in_reading_order([p for p in found if wanted or p.parts[1] not in LEFT_OUT])


def run(path: Path):
    nb = nbformat.read(path, as_version=4)
    Client(nb, timeout=None, kernel_name="python3", resources={"metadata": {"path": str(path.parent)}}).execute()
    nbformat.write(nb, path)
    subprocess.run([Path(sys.executable).with_name("nbdev_clean"), "--fname", path], check=True)


def main(wanted: list[str]):
    for path in notebooks(wanted):
        began = time.monotonic()
        print(path, end=" ", flush=True)
        try:
            run(path)
        except CellExecutionError as e:
            sys.exit(f"failed, left as it was\n{e}")
        print(f"{time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main(sys.argv[1:])
