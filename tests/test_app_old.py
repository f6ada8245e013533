"""Yesterday's programs, without an edit: every import name they were written for, and packages that look for Lightning."""

import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from lightning_pod.app.compat import old_names

PRELUDE = "from lightning_pod.app.compat import install; install()\n"
OLD_APP = """
{imports}

class Train({L}.LightningWork):
    def __init__(self, **kwargs):
        super().__init__(parallel=False, cloud_compute={L}.CloudCompute("gpu", disk_size=10, idle_timeout=60), cloud_build_config={L}.BuildConfig(requirements=["torch"]), **kwargs)
        self.checkpoint, self.drive = None, Drive("lit://models", allow_duplicates=True)

    def run(self, lr, table):
        with open("best.ckpt", "w") as f:
            f.write(str(lr))
        self.drive.put("best.ckpt")
        self.checkpoint = Path("best.ckpt")
        assert table.value == {{"rows": 3}}

class Load({L}.LightningWork):
    def __init__(self):
        super().__init__()
        self.table = None

    def run(self):
        self.table = Payload({{"rows": 3}})

class Script(TracerPythonScript):
    def configure_tracer(self):
        tracer = super().configure_tracer()
        assert isinstance(tracer, Tracer)
        return tracer

class Root({L}.LightningFlow):
    def __init__(self):
        super().__init__()
        self.load, self.trains = Load(), List(Train(), Train(host="0.0.0.0"))
        self.named = Dict(**{{"script": Script("script.py", ["--x", "1"], outputs=["y"])}})
        self.rounds = 0

    def run(self):
        self.load.run()
        for i, work in enumerate(self.trains):
            work.run(i / 10, self.load.table)
        self.named["script"].run()
        if self.schedule("hourly"):
            self.rounds += 1
        if all(w.has_succeeded for w in self.works()):
            print("OLD", self.trains[1].checkpoint.name, self.named["script"].status.stage, self.rounds, self.trains[1].host)
            self._exit("the end")

    def configure_layout(self):
        return [{{"name": "docs", "content": "https://example.org"}}]

app = {L}.LightningApp(Root())
"""
PARTS = """
from {0}.components.python import TracerPythonScript
from {0}.storage.drive import Drive
from {0}.storage import Path, Payload
from {0}.structures import Dict, List
from {0}.utilities.tracer import Tracer
"""
STYLES = {
    "lightning.app as L": (
        "import lightning.app as L\nfrom lightning.app import CloudCompute, LightningApp, LightningFlow, LightningWork"
        + PARTS.format("lightning.app"),
        "L",
    ),
    "lightning_app as L": ("import lightning_app as L" + PARTS.format("lightning_app"), "L"),
    "lightning as L": ("import lightning as L" + PARTS.format("lightning.app"), "L"),
}


def python(code: str, *options, **env) -> str:
    p = subprocess.run(
        [sys.executable, *options, "-c", code], capture_output=True, text=True, env={**os.environ, **env}, timeout=120
    )
    assert p.returncode == 0, p.stdout + p.stderr
    return p.stdout


@pytest.fixture(scope="session")
def without_lightning(tmp_path_factory) -> dict:
    """How to start a Python that has everything that is installed but `lightning`: options and environment."""
    folder = tmp_path_factory.mktemp("site")
    for entry in Path(sysconfig.get_paths()["purelib"]).iterdir():
        if not re.fullmatch(r"lightning(_app)?(-.*)?", entry.name) and entry.suffix != ".pth":
            (folder / entry.name).symlink_to(entry)
    root = str(Path(__file__).parent.parent)
    return {
        "options": ["-S"],
        "env": {
            "PYTHONPATH": os.pathsep.join([root, str(folder), *os.environ.get("PYTHONPATH", "").split(os.pathsep)])
        },
    }


@pytest.fixture(scope="session")
def with_lightning(tmp_path_factory) -> dict:
    """The same with a `lightning` of 2.4 or later: it has a Trainer and no app."""
    folder = tmp_path_factory.mktemp("real")
    package = folder / "lightning"
    (package / "pytorch").mkdir(parents=True)
    (package / "__init__.py").write_text(
        "from lightning.pytorch import Trainer\n__version__ = '2.6.0'\n__all__ = ['Trainer']\n"
    )
    (package / "pytorch" / "__init__.py").write_text("class Trainer: real = True\n")
    root = str(Path(__file__).parent.parent)
    return {
        "options": [],
        "env": {"PYTHONPATH": os.pathsep.join([str(folder), root, os.environ.get("PYTHONPATH", "")])},
    }


# ---- programs


@pytest.mark.parametrize("style", STYLES)
def test_an_old_program_runs_without_an_edit(workspace, pod, with_lightning, style):
    imports, name = STYLES[style]
    pod.changes.update(with_lightning["env"])
    (workspace / "app.py").write_text(OLD_APP.format(imports=imports, L=name))
    (workspace / "script.py").write_text(
        "import argparse\np = argparse.ArgumentParser(); p.add_argument('--x', type=int)\ny = p.parse_args().x\n"
    )
    out = pod("run", "app.py", timeout=180).stdout
    assert "OLD best.ckpt succeeded 1 0.0.0.0" in out and "the end" in out


def test_the_names_hold_in_works_and_their_children(workspace, pod, with_lightning):
    pod.changes.update(with_lightning["env"])
    (workspace / "child.py").write_text(
        "import lightning_app\nfrom lightning.app.storage import Drive\nprint('CHILD', lightning_app.LightningWork.__module__, Drive.__module__)\n"
    )
    (workspace / "app.py").write_text("""
import subprocess, sys
import lightning_app as la
from lightning_app.components import PopenPythonScript
class W(la.LightningWork):
    def run(self):
        from lightning_app.utilities.network import find_free_network_port
        print("PORT", find_free_network_port())
        print(subprocess.run([sys.executable, "child.py"], capture_output=True, text=True).stdout)
class R(la.LightningFlow):
    def __init__(self):
        super().__init__()
        self.w, self.p = W(), PopenPythonScript("child.py")
    def run(self):
        self.w.run(); self.p.run(); self.stop()
app = la.LightningApp(R())
""")
    out = pod("run", "app.py", timeout=60).stdout
    assert out.count("CHILD lightning_pod.app.work lightning_pod.app.drive") == 2 and re.search(r"PORT \d+", out)


def test_the_lightning_that_is_installed_is_whole_in_an_app_and_its_works(workspace, pod):
    (workspace / "app.py").write_text("""
import lightning as L
class W(L.LightningWork):
    def run(self): print("IN THE WORK", L.Trainer.__module__.endswith("pytorch.trainer.trainer"), L.LightningWork.__module__)
print("IN THE APP", L.Trainer.__module__.endswith("pytorch.trainer.trainer"), L.LightningFlow.__module__, "app" in dir(L))
app = L.LightningApp(W())
""")
    out = pod("run", "app.py", timeout=120).stdout
    assert "IN THE WORK True lightning_pod.app.work" in out and "IN THE APP True lightning_pod.app.flow" in out


def test_a_training_script_of_old_leaves_its_best_checkpoint(workspace, pod):
    script = Path(__file__).parent / "scripts" / "lightning_cli.py"
    args = "fit --model.lr=0.5 --data.n=8 --trainer.max_epochs=1 --trainer.accelerator=cpu --trainer.enable_progress_bar=false"
    (workspace / "app.py").write_text(f"""
from lightning_app import LightningApp, LightningFlow
from lightning_app.components.training import LightningTrainerScript
class Root(LightningFlow):
    def __init__(self):
        super().__init__()
        self.train = LightningTrainerScript({str(script)!r}, {args!r}, num_nodes=1)
    def run(self):
        self.train.run()
        if all(w.has_finished for w in self.train.ws) and self.train.ws[0].has_stopped:
            print("BEST", self.train.best_model_paths[0].suffix, self.train.best_model_paths[0].exists(), self.train.best_model_paths[0].origin_name)
            self.stop()
app = LightningApp(Root())
""")
    assert "BEST .ckpt True root.train.ws.0" in pod("run", "app.py", timeout=120).stdout


def test_no_compat_leaves_the_names_alone(workspace, pod, without_lightning):
    (workspace / "app.py").write_text("import lightning_app\n")
    p = pod("run", "app.py", "--no-compat", code=1)
    assert "No module named 'lightning_app'" in p.stdout + p.stderr


# ---- names


@pytest.mark.parametrize("top", ["lightning_app", "lightning.app"])
def test_every_name_of_lightning_app_can_be_imported(with_lightning, top):
    lines = []
    for module, names in old_names().items():
        found = sorted({n for of_kind in names.values() for n in of_kind if not n.startswith("__")})
        path = f"{top}.{module}".rstrip(".")
        lines.append(f"from {path} import {', '.join(found)}" if found else f"import {path}")
    assert len(lines) > 150 and sum(line.count(",") for line in lines) > 1000
    assert python(PRELUDE + "\n".join(lines) + "\nprint('all')", **with_lightning["env"]) == "all\n"


USES = {
    "from lightning_app.components import AutoScaler; AutoScaler(object)": "PythonServer serves a model",
    "from lightning.app.components.database import Database, DatabaseClient; Database(models=[])": "SQLAlchemy",
    "from lightning.app.utilities.state import AppState, headers_for; headers_for({})": "headers_for isn't built",
    "from lightning.app.utilities.state import AppState; AppState().counter": "AppState isn't built",
    "from lightning_app.frontend import JustPyFrontend; JustPyFrontend(render_fn=print)": "VoilaFrontend",
    "from lightning_app.testing import LightningTestApp\nclass App(LightningTestApp): pass\nApp(None)": "LightningTestApp",
    "from lightning_app.core.queues import MultiProcessQueue; MultiProcessQueue.put": "attributes, Payload and Drive",
    "from lightning_app.cli.lightning_cli import main; main()": "`pod run APP.py`",
}


def test_what_is_not_built_says_so_when_it_is_used():
    code = f"""
for use in {list(USES)!r}:
    try: exec(use, {{"__name__": "program"}})
    except Exception as e: print(type(e).__name__, e)
    else: print("nothing was said by", use)
"""
    said = python(PRELUDE + code).splitlines()
    assert [line.startswith("NotBuilt lightning_app.") for line in said] == [True] * len(USES), said
    assert [text in line for text, line in zip(USES.values(), said, strict=True)] == [True] * len(USES), said


def test_a_module_that_is_not_there_is_not_found(with_lightning):
    assert "No module named" in python(
        PRELUDE
        + "import importlib.util\nprint(importlib.util.find_spec('lightning_app.nothing'))\ntry: import lightning.app.nothing_of_the_kind\nexcept ModuleNotFoundError as e: print(e)",
        **with_lightning["env"],
    )


FORMS = {  # a program's first lines -> whether they need the real Lightning
    "import lightning_app, lightning_app.components.python; lightning_app.LightningApp": False,
    "import lightning.app as L; L.LightningFlow": False,
    "from lightning.app.components import TracerPythonScript, PopenPythonScript, MultiNode": False,
    "from lightning.app.storage import Drive, Path, Payload; from lightning.app.structures import Dict": False,
    "import lightning as L; L.LightningFlow, L.LightningWork, L.CloudCompute, L.app, L.app.storage.Drive": False,
    "from lightning import LightningApp, LightningFlow, LightningWork": False,
    "import importlib.util; importlib.util.find_spec('lightning').origin; import lightning; lightning.__file__": False,
    "import lightning as L; L.Trainer": True,
    "import lightning; lightning.__version__": True,
    "from lightning import LightningFlow, Trainer": True,
    "from lightning import *; Trainer": True,
    "import lightning.app; from lightning.pytorch import Trainer": True,
    "import lightning.pytorch": True,
}


@pytest.mark.parametrize("there", ["with_lightning", "without_lightning"])
def test_the_real_lightning_is_executed_when_a_name_of_its_own_is_asked_for(request, there):
    how = request.getfixturevalue(there)
    code = f"""
import os, sys
real = {"lightning" if there == "with_lightning" else "torch"!r}
def executed(): return "__all__" in vars(sys.modules.get("lightning", object)) if real == "lightning" else "torch" in sys.modules
for form, needs in {FORMS!r}.items():
    if real == "torch" and ("__version__" in form or "*" in form or "__file__" in form): continue
    if not (pid := os.fork()):
        exec(form, {{}})
        os._exit(0 if executed() == needs else 1)
    if os.waitpid(pid, 0)[1]: print("executed or not, which is wrong:", form)
"""
    assert python(PRELUDE + code, *how["options"], **how["env"]) == ""


def test_a_lightning_that_fails_to_import_says_why_each_time(tmp_path):
    (tmp_path / "lightning").mkdir()
    (tmp_path / "lightning" / "__init__.py").write_text("raise ImportError('its torch is missing')\n")
    code = """
import lightning as L
L.LightningFlow
for _ in range(2):
    try: L.Trainer
    except ImportError as e: print(e)
"""
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    assert python(PRELUDE + code, PYTHONPATH=path) == "its torch is missing\n" * 2


def test_an_app_of_old_names_brings_no_torch_into_its_processes(workspace, pod):
    (workspace / "app.py").write_text("""
import sys
import lightning.app as L
from lightning.app.utilities.app_helpers import _collect_child_process_pids
class W(L.LightningWork):
    def run(self): print("IN THE WORK", "torch" in sys.modules)
class R(L.LightningFlow):
    def __init__(self):
        super().__init__()
        self.w = W()
    def run(self):
        self.w.run()
        print("IN THE APP", "torch" in sys.modules)
        self.stop()
app = L.LightningApp(R())
""")
    out = pod("run", "app.py", timeout=120).stdout
    assert "IN THE WORK False" in out and "IN THE APP False" in out


# ---- Lightning itself


def test_without_lightning_its_parts_are_those_of_pytorch_lightning(without_lightning):
    code = (
        PRELUDE
        + """
import importlib.util, sys
assert importlib.util.find_spec("lightning") and "torch" not in sys.modules
assert importlib.util.find_spec("lightning.nothing") is None
import lightning as L
L.LightningFlow, L.LightningWork, L.CloudCompute
assert "torch" not in sys.modules  # an app that trains nothing waits for nothing
assert importlib.util.find_spec("lightning.pytorch.callbacks") and not importlib.util.find_spec("lightning.pytorch.nothing")
import lightning.pytorch as pl, pytorch_lightning
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.fabric.utilities.seed import seed_everything
from lightning.pytorch.loggers import CSVLogger
assert pl is pytorch_lightning and L.pytorch is pl and L.Trainer is pytorch_lightning.Trainer and L.LightningModule is pl.LightningModule
assert sys.modules["pytorch_lightning"].__spec__.name == "pytorch_lightning"
assert ModelCheckpoint is pytorch_lightning.callbacks.ModelCheckpoint and L.Fabric is not None and L.seed_everything is not None
import lightning_fabric; assert L.fabric is lightning_fabric
try: L.no_such_name
except AttributeError as e: print(e)
"""
    )
    assert python(code, *without_lightning["options"], **without_lightning["env"]).endswith(
        "module 'lightning' has no attribute 'no_such_name'\n"
    )


def test_with_lightning_it_is_whole_and_has_the_app_s_names(with_lightning):
    code = (
        PRELUDE
        + """
import lightning as L, lightning.pytorch, lightning.app
assert L.Trainer.real and L.__version__ == "2.6.0" and lightning.pytorch.Trainer is L.Trainer and "/lightning/__init__.py" in L.__file__
assert L.LightningFlow is L.app.LightningFlow and L.app.__spec__.loader.__class__.__name__ == "OldNames"
print("whole")
"""
    )
    assert python(code, **with_lightning["env"]) == "whole\n"


@pytest.mark.parametrize("where", ["without_lightning", "with_what_is_installed"])
def test_packages_that_look_for_lightning_are_whole(request, where):
    import importlib.util

    packages = ["torchmetrics", "timm", "aim.pytorch_lightning"]
    packages = [p for p in packages if importlib.util.find_spec(p.partition(".")[0])]
    how = request.getfixturevalue(where) if where == "without_lightning" else {"options": [], "env": {}}
    code = f"""
import os, torch  # which all of them need: each package is then tried in a fork of its own
import lightning_app
for package in {packages!r}:
    if not (pid := os.fork()):
        __import__(package)
        import pytorch_lightning
        print(package, "is whole", flush=True)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0, package
"""
    out = python(PRELUDE + code, *how["options"], **how["env"])
    assert packages and [line for line in out.splitlines() if line.endswith("is whole")] == [f"{p} is whole" for p in packages]


def test_trainers_of_both_names_are_recognised(tmp_path, without_lightning):
    (tmp_path / "train.py").write_text(
        (Path(__file__).parent / "scripts" / "lightning_cli.py")
        .read_text()
        .partition("if __name__")[0]
        .replace("from pytorch_lightning import", "from lightning.pytorch import")
        .replace("from pytorch_lightning.cli import LightningCLI\n", "from lightning.pytorch import Trainer\n")
        + "Trainer(max_epochs=1, accelerator='cpu', logger=False, enable_checkpointing=False, enable_progress_bar=False).fit(Model(), Data())\n"
    )
    code = (
        PRELUDE
        + f"""
import os; os.chdir({str(tmp_path)!r})
from lightning_pod.app.script import run_script, watch_trainers
told = []
end = watch_trainers(lambda report, over: told.append(report))
run_script("train.py")
end()
print("TOLD", told[-1]["done"], told[-1]["total"], sorted(told[-1]["metrics"]))
"""
    )
    for how in ({"options": [], "env": {}}, without_lightning):
        assert "TOLD 4 4 ['train_loss', 'valid_loss']" in python(code, *how["options"], **how["env"])
