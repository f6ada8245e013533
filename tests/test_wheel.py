"""The wheel in environments of its own: everything is in it, and it works where nothing else of the project is."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest
from conftest import ROOT, Pod, last_json

from lightning_pod import __version__

INSTALL_S = 1200  # a whole installation, PyTorch's CUDA parts too


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The project's wheel, built from a copy of its files."""
    from in_step import copy_project

    source, out = copy_project(tmp_path_factory.mktemp("source")), tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, source]
    p = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert p.returncode == 0, p.stdout[-2000:] + p.stderr[-2000:]
    [file] = out.glob("*.whl")
    return file


class Installed(Pod):
    """`pod` as it is installed in an environment, called in an empty folder."""

    def __init__(self, environment: Path, workspace: Path):
        super().__init__(workspace)
        self.command = environment / "bin" / "pod"
        self.changes = {"PYTHONPATH": None, "VIRTUAL_ENV": None}

    def python(self, code: str) -> str:
        command = [self.command.with_name("python"), "-c", code]
        p = subprocess.run(command, cwd=self.workspace, env=self.env, capture_output=True, text=True, timeout=120)
        assert p.returncode == 0, p.stderr
        return p.stdout.strip()


def pip(environment: Path, *args):
    command = [environment / "bin" / "python", "-m", "pip", "--disable-pip-version-check", "install", "--quiet", *args]
    p = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_S)
    assert p.returncode == 0, p.stdout[-2000:] + p.stderr[-2000:]


def test_everything_is_in_the_wheel(wheel):
    with zipfile.ZipFile(wheel) as z:
        inside = {i.filename: z.read(i) for i in z.infolist()}
    package = ROOT / "lightning_pod"
    wanted = [p for p in package.rglob("*") if p.is_file() and (p.suffix == ".py" or package / "assets" in p.parents)]
    wanted = [p for p in wanted if not {"__pycache__", ".ipynb_checkpoints"} & set(p.parts)]
    missing = [p for p in wanted if inside.get(str(p.relative_to(ROOT))) != p.read_bytes()]
    assert missing == []
    assert "lightning_pod/assets/dashboards/workbench.ipynb" in inside
    strays = {name.partition("/")[0] for name in inside} - {"lightning_pod", f"lightning_pod-{__version__}.dist-info"}
    assert strays == set()


def test_the_wheel_works_in_an_environment_of_its_own(wheel, workspace, tmp_path):
    """The environment finds the project's requirements where they are installed already, but not the project."""
    venv.create(tmp_path / "venv", with_pip=True)
    pip(tmp_path / "venv", "--no-deps", wheel)
    [site] = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    (site / "requirements.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pod = Installed(tmp_path / "venv", workspace)
    assert str(tmp_path) in pod.python("import lightning_pod; print(lightning_pod.__file__)")
    assert pod("--version").stdout == f"lightning_pod {__version__}\n"
    out = pod.json("fit", "digits", "--epochs", 1)
    assert out["status"] == "done" and out["metrics"]["test_acc"] > 0.3
    assert pod.json("runs")[0]["id"] == out["id"] and pod.json("ps") == []
    asked = "from lightning_pod.core.config import asset; print(asset('dashboards', 'workbench.ipynb'))"
    assert str(tmp_path) in pod.python(asked)


def python_3_13() -> str | None:
    """A Python 3.13 that starts: on PATH, of uv, of pyenv."""
    found = [shutil.which("python3.13")]
    if uv := shutil.which("uv"):
        found.append(subprocess.run([uv, "python", "find", "3.13"], capture_output=True, text=True).stdout.strip())
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    found += sorted(pyenv.glob("versions/3.13*/bin/python"))
    for p in filter(None, found):
        asked = subprocess.run([p, "-c", "import sys; print(sys.version_info[:2])"], capture_output=True, text=True)
        if asked.stdout.strip() == "(3, 13)":
            return str(p)
    return None


@pytest.mark.may_skip
def test_the_wheel_installs_and_works_where_aim_does_not(wheel, workspace, tmp_path):
    if (python := python_3_13()) is None:
        pytest.skip("no Python 3.13 is at hand (PATH, uv, pyenv)")
    environment = tmp_path / "venv313"
    subprocess.run([python, "-m", "venv", environment], check=True, timeout=120)
    try:
        pip(environment, wheel)
        pod = Installed(environment, workspace)
        p = pod("fit", "digits", "--epochs", 2, "--json")
        assert last_json(p.stdout)["metrics"]["test_acc"] > 0.8
        assert "not tracked in aim: Aim has no wheel for Python 3.13" in p.stderr
        assert not (workspace / ".aim").exists()
    finally:
        shutil.rmtree(environment, ignore_errors=True)  # some 6 GB
