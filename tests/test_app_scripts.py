"""Scripts of many shapes, unchanged: each in a Work's own process and as a subprocess, all in one app."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import TESTS, Pod, alive, wait_for

from lightning_pod.core.job import Job

SCRIPTS = TESTS / "scripts"
CLI = [
    "fit",
    "--model.lr=0.5",
    "--data.n=16",
    "--trainer.max_epochs=2",
    "--trainer.accelerator=cpu",
    "--trainer.enable_progress_bar=false",
]

# script -> (arguments, what it prints behind RESULT, exit code)
SHAPES = {
    "argparse_args.py": (["--lr", "0.25", "--name", "a b"], r"0\.5 a b", 0),
    "click_args.py": (["--count", "2", "hello"], "hello hello", 0),
    "dotted.py": (["model.lr=0.5", "model.layers=3"], re.escape("{'lr': 0.5, 'layers': 3}"), 0),
    "lightning_cli.py": (CLI, r"0\.5 4", 0),
    "guard.py": ([], "__main__ True", 0),
    "no_guard.py": ([], "45", 0),
    "exit_0.py": ([], "leaving", 0),
    "exit_3.py": ([], "leaving", 3),
    "raises.py": ([], "before", 1),
    "relative_path.py": ([], "from a file", 0),
    "chdir.py": ([], re.escape("['here.txt']"), 0),
    "reads_stdin.py": ([], "''", 0),
    "no_newline.py": ([], "no newline", 0),
    "loader_workers.py": ([], "120", 0),
    "torch_spawn.py": ([], re.escape("[1, 2]"), 0),
    "ddp.py": ([], "2 4", 0),
    "at_exit.py": ([], "at exit", 0),
    "signals.py": ([], "handled SIGTERM", 0),
    "leaves_child.py": ([], r"child \d+", 0),
    "imports_beside.py": ([], "42", 0),
    "shell.sh": (["arg"], "arg 42 yes", 0),
    "notebook.ipynb": (["22"], "42", 0),
    "threads.py": ([], re.escape("[0, 1, 2]"), 0),
    "asyncio_main.py": ([], "awaited", 0),
    "environment.py": ([], "yes True", 0),
    "pickles.py": ([], re.escape("Point(x=3)"), 0),
}
APP = """
import os
from lightning_pod.app import App, Flow, PopenPythonScript, TracerPythonScript

SHAPES = {shapes!r}

class Here(TracerPythonScript):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.before, self.after = None, None
    def run(self):
        look = lambda: [os.getcwd(), "LEFT_BEHIND" in os.environ, "GIVEN" in os.environ]
        self.before = look()
        try: super().run()
        finally: self.after = look()

class Root(Flow):
    def __init__(self):
        super().__init__()
        for i, (script, (args, _, _)) in enumerate(SHAPES.items()):
            for mode, cls in (("here", Here), ("apart", PopenPythonScript)):
                # LightningCLI numbers its logs: two that start at once may take the same number
                more = ["--trainer.default_root_dir=" + mode] if script == "lightning_cli.py" else []
                work = cls({folder!r} + "/" + script, args + more, env={{"GIVEN": "yes"}}, parallel=True, raise_exception=False, start_with_flow=False)
                setattr(self, f"{{mode}}_{{script.replace('.', '_')}}", work)
    def run(self):
        works = self.works()
        for w in works:
            if (w.has_succeeded or w.has_failed) and w._pod_process.state == "up": w.stop()
        for w in works:
            if not w.has_started and sum(x._pod_process.state != "none" for x in works) < 3: w.run()
        if all(w.has_stopped and w._pod_process.state == "none" for w in works): self.stop()

app = App(Root())
"""


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """All shapes, run once: the folder of the app."""
    folder = tmp_path_factory.mktemp("scripts")
    here = shutil.copytree(SCRIPTS, folder / "scripts")
    (folder / "app.py").write_text(APP.format(shapes=SHAPES, folder=str(here)))
    pod = Pod(folder)
    p = subprocess.run(
        [pod.command, "run", str(folder / "app.py")],
        cwd=here,
        env=pod.env,
        capture_output=True,
        text=True,
        timeout=400,
        stdin=subprocess.DEVNULL,
    )
    assert p.returncode == 0, p.stdout[-3000:] + p.stderr[-3000:]
    found = {}
    for path in (folder / ".pod" / "jobs").iterdir():
        if (job := Job(path)).info["kind"] == "work":
            found[job.config["name"]] = job
    app = next(Job(p) for p in (folder / ".pod" / "jobs").iterdir() if Job(p).info["kind"] == "app")
    from lightning_pod.app.flow import Journal

    return found, Journal(app.path / "state.jsonl").state


@pytest.mark.parametrize("mode", ["here", "apart"])
@pytest.mark.parametrize("script", SHAPES)
def test_a_script_runs_unchanged(ran, script, mode):
    works, state = ran
    _, result, code = SHAPES[script]
    name = f"root.{mode}_{script.replace('.', '_')}"
    log = works[name].log()
    statuses = next(c for k, c in state["calls"][name].items() if k.startswith("run:"))["statuses"]
    assert re.search(f"RESULT {result}$", log, re.M), log[-3000:]
    assert [s["stage"] for s in statuses if s["stage"] in ("succeeded", "failed")] == [
        "failed" if code else "succeeded"
    ], log[-3000:]
    vars = state["vars"][name]
    assert vars["exit_code"] == code or mode == "here" and script == "raises.py"
    if script == "raises.py":
        assert "KeyError: 'the reason'" in log
    if mode == "here":  # nothing that the script changed is left
        assert vars["before"] == vars["after"] == [str(works[name].path.parent.parent.parent / "scripts"), False, False]
    if script == "leaves_child.py":
        assert not alive(int(re.search(r"RESULT child (\d+)", log)[1]))


@pytest.mark.parametrize("mode", ["here", "apart"])
def test_a_trainer_in_a_script_reports(ran, mode):
    works, state = ran
    name = f"root.{mode}_lightning_cli_py"
    training = state["vars"][name]["_pod_training"]
    assert (training["done"], training["total"], training["step"]) == (4, 4, 4)
    assert set(training["metrics"]) >= {"train_loss", "valid_loss"}
    assert training["best_model_path"].endswith(".ckpt") and os.path.exists(training["best_model_path"])
    assert [e["epoch"] for e in works[name].events() if e["kind"] == "metrics"] == [1, 2]
    told = [(e["epoch"], e["epochs"]) for e in works[name].events() if e["kind"] == "progress"]
    assert set(told) == {(1, 2), (2, 2)} and told == sorted(told)
    assert any(e["kind"] == "progress" and e["total"] == 4 for e in works[name].events())


@pytest.mark.parametrize("mode", ["TracerPythonScript", "PopenPythonScript"])
def test_a_trainer_in_a_script_obeys_a_stop(workspace, pod, mode):
    args = [*CLI[:-3], "--trainer.max_epochs=100000", *CLI[-2:]]
    (workspace / "app.py").write_text(f"""
from lightning_pod.app import App, Flow, {mode}
class Root(Flow):
    def __init__(self):
        super().__init__()
        self.t, self.asked = {mode}({str(SCRIPTS / "lightning_cli.py")!r}, {args!r}, parallel=True, start_with_flow=False), False
    def run(self):
        if not self.asked: self.t.run()
        if self.t.training.get("step", 0) > 20 and not self.asked: self.asked = True; self.t.stop()
        if self.asked and self.t._pod_process.state == "none": print("STEPS", self.t.training["step"]); self.stop()
app = App(Root())
""")
    out = pod("run", "app.py", timeout=120).stdout
    assert re.search(r"STEPS \d+", out)
    work = next(Job(p) for p in (workspace / ".pod" / "jobs").iterdir() if Job(p).info["kind"] == "work")
    assert work.status == "stopped"
    if mode == "TracerPythonScript":
        assert re.search(
            r"RESULT 0\.5 \d+", work.log()
        )  # the training ended at the edge of a batch, and the script went on to its end


def test_scripts_leave_no_process_behind(ran):
    import psutil

    works, _ = ran
    mine = {str(w.path.parent.parent.parent) for w in works.values()}

    def left():
        found = []
        for p in psutil.process_iter():
            try:
                if p.pid != os.getpid() and p.environ().get("POD_WORKSPACE") in mine:
                    found.append(p.cmdline())
            except psutil.Error:
                continue
        return found

    wait_for(lambda: not left(), 10, "the end of all processes")


def test_outputs_arguments_and_globals_of_a_traced_script(workspace, pod):
    (workspace / "script.py").write_text("import sys\nmodel = {'args': sys.argv[1:], 'given': given}\n")
    (workspace / "app.py").write_text("""
from lightning_pod.app import App, Flow, Payload, TracerPythonScript, Work
class Make(Work):
    def __init__(self):
        super().__init__()
        self.p = None
    def run(self): self.p = Payload([1, 2])
class Show(Work):
    def run(self, model): print("MODEL", model.value)
class Traced(TracerPythonScript):
    def on_before_run(self): print("BEFORE")
    def on_after_run(self, res): print("AFTER", sorted(res["model"])); super().on_after_run(res)
class Root(Flow):
    def __init__(self):
        super().__init__()
        self.make, self.t, self.show = Make(), Traced("script.py", "--a 1", outputs=["model"]), Show()
    def run(self):
        self.make.run()
        self.t.run(params={"b": 2}, given=self.make.p)
        self.show.run(self.t.model)
        self.stop()
app = App(Root())
""")
    out = pod("run", "app.py", timeout=60).stdout
    assert "BEFORE" in out and "AFTER ['args', 'given']" in out
    assert "MODEL {'args': ['--a', '1', 'b=2'], 'given': [1, 2]}" in out


def test_an_edited_helper_beside_the_script_is_read_again(tmp_path):
    from lightning_pod.app.script import run_script

    script, helper = tmp_path / "s.py", tmp_path / "its_helper.py"
    script.write_text("from its_helper import x\n")
    helper.write_text("x = 1\n")
    assert run_script(script)["x"] == 1
    helper.write_text("x = 22\n")
    assert run_script(script)["x"] == 22


def test_handlers_and_path_are_put_back_after_an_error(tmp_path):
    from lightning_pod.app.script import run_script

    script = tmp_path / "s.py"
    script.write_text(
        "import os, signal, sys\nsignal.signal(signal.SIGUSR1, lambda *a: None)\nsys.path.append('x')\nos.environ['E'] = 'e'\nsys.stdout = None\nraise ValueError('x')\n"
    )
    before = signal.getsignal(signal.SIGUSR1), sys.path[:], dict(os.environ), sys.argv, sys.stdout
    with pytest.raises(ValueError, match="x"):
        run_script(script, ["a"])
    assert (signal.getsignal(signal.SIGUSR1), sys.path, dict(os.environ), sys.argv, sys.stdout) == before


def test_pid_and_exit_code_of_a_command(tmp_path):
    from lightning_pod.app import BashWork, PopenPythonScript

    work = BashWork("exit 5")
    with pytest.raises(RuntimeError, match="'exit 5' ended|exit 5 ended with exit code 5"):
        work.run()
    assert work.exit_code == 5 and work.pid
    with pytest.raises(RuntimeError, match="killed by SIGKILL"):
        work.run("kill -9 $$")
    with pytest.raises(FileNotFoundError):
        PopenPythonScript(str(tmp_path / "none.py"))


def test_there_are_at_least_twenty_shapes():
    assert len(SHAPES) >= 20 and {p.name for p in Path(SCRIPTS).iterdir()} - {
        "beside.py",
        "data.txt",
        "__pycache__",
        "lightning_logs",
    } == set(SHAPES)
    json.dumps(SHAPES)


# ---- which epoch a Trainer reports

FITS = {  # what a script does -> the rows (epoch, step) that are told, and the last progress (done, total, epochs)
    "fit(trainer(max_epochs=2))": ([(1, 4), (2, 8)], (8, 8, 2)),
    "fit(trainer(max_epochs=2), valid=False)": ([(1, 4), (2, 8)], (8, 8, 2)),
    "t = fit(trainer(max_epochs=2)); t.validate(model, data); t.test(model, data)": (
        [(1, 4), (2, 8), (2, 8), (2, 8)],
        (8, 8, 2),
    ),
    "trainer().test(model, data)": ([(0, 0)], (0, None, None)),
    "t = fit(trainer(max_epochs=1)); t.fit_loop.max_epochs = 2; fit(t)": ([(1, 4), (2, 8)], (8, 8, 2)),
    "fit(trainer(max_epochs=1)); fit(trainer(max_epochs=2))": ([(1, 4), (1, 4), (2, 8)], (8, 8, 2)),
    "fit(trainer(max_epochs=1)).save_checkpoint('c.ckpt'); fit(trainer(max_epochs=2), ckpt_path='c.ckpt')": (
        [(1, 4), (2, 8)],
        (8, 8, 2),
    ),
    "fit(trainer(max_steps=6))": ([(1, 4), (2, 6)], (6, 6, None)),
    "fit(trainer(max_steps=6, max_epochs=5))": ([(1, 4), (2, 6)], (6, 6, 5)),
    "fit(trainer(max_steps=3, accumulate_grad_batches=2))": ([(1, 2), (2, 3)], (3, 3, None)),
    "fit(trainer(max_epochs=2, accumulate_grad_batches=2))": ([(1, 2), (2, 4)], (8, 8, 2)),
    "fit(trainer(max_epochs=2, val_check_interval=0.5))": ([(1, 2), (1, 4), (2, 6), (2, 8)], (8, 8, 2)),
    "fit(trainer(max_epochs=2, check_val_every_n_epoch=2))": ([(1, 4), (2, 8)], (8, 8, 2)),
}
FIT = """
import logging, warnings
warnings.simplefilter("ignore"); logging.getLogger("{lightning}").setLevel(logging.ERROR)
import torch
from {lightning} import LightningModule, Trainer
from torch.utils.data import DataLoader, TensorDataset
class Model(LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)
    def training_step(self, batch, i):
        loss = self.layer(batch[0]).mean()
        self.log("train_loss", loss, on_step=False, on_epoch=True)
        return loss
    def validation_step(self, batch, i): self.log("valid_loss", self.layer(batch[0]).mean())
    def test_step(self, batch, i): self.log("test_loss", self.layer(batch[0]).mean())
    def on_train_epoch_end(self): self.log("late", float(self.current_epoch))
    def configure_optimizers(self): return torch.optim.SGD(self.parameters(), 0.1)
model, data = Model(), DataLoader(TensorDataset(torch.ones(8, 2)), batch_size=2)
def trainer(**how): return Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, **how)
def fit(t, valid=True, **how):
    t.fit(model, data, data if valid else None, **how)
    return t
"""


@pytest.mark.parametrize("lightning", ["pytorch_lightning", "lightning.pytorch"])
def test_the_epochs_that_a_trainer_reports_are_those_of_its_training(tmp_path, monkeypatch, lightning):
    from lightning_pod.app.script import run_script, watch_trainers

    monkeypatch.chdir(tmp_path)
    for does, (rows, last) in FITS.items() if lightning == "pytorch_lightning" else [*FITS.items()][:3]:
        (tmp_path / "train.py").write_text(FIT.format(lightning=lightning) + does)
        told = []
        end = watch_trainers(lambda report, row, told=told: told.append((report, row)))
        try:
            run_script("train.py")
        finally:
            end()
        assert [(r["epoch"], r["step"]) for r, row in told if row] == rows, does
        report = told[-1][0]
        assert (report["done"], report["total"], report["epochs"]) == last, does
        if does in [*FITS][:2]:  # a row of an epoch has all that was logged in it
            rows = [r["metrics"] for r, row in told if row]
            assert [m["late"] for m in rows] == [0.0, 1.0] and all("train_loss" in m for m in rows)
