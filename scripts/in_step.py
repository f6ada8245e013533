"""Whether the package is in step with its notebooks: `nbdev_export` and `nbdev_clean` must change nothing.

They run in a copy, so that looking changes nothing either.
"""

import filecmp
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def project_files(root: Path = ROOT) -> list[str]:
    "What a commit of everything would hold."
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=root, capture_output=True, check=True).stdout.decode().split("\0")
    return sorted({n for n in names if n and (root / n).is_file()})


def copy_project(to: Path) -> Path:
    "The project's files, below `to`."
    for name in project_files():
        (to / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, to / name, follow_symlinks=False)
    subprocess.run(["git", "init", "-q", to], check=True)
    return to


def out_of_step() -> list[str]:
    "The files that an export and a clean would change, add or remove."
    with tempfile.TemporaryDirectory() as folder:
        copy = copy_project(Path(folder).resolve())
        env = {k: v for k, v in os.environ.items() if k != "IN_TEST"}
        for tool in ("nbdev_export", "nbdev_clean"):
            subprocess.run([Path(sys.executable).with_name(tool)], cwd=copy, env=env, check=True)
        names = {*project_files(), *project_files(copy)}
        return sorted(n for n in names if not ((ROOT / n).is_file() and (copy / n).is_file()
                                               and filecmp.cmp(ROOT / n, copy / n, shallow=False)))


if __name__ == "__main__":
    if changed := out_of_step():
        sys.exit("out of step with the notebooks; run nbdev_export and nbdev_clean:\n  " + "\n  ".join(changed))
