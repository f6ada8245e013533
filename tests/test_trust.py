"""Folders that came from somebody else: nothing in them is run, until it is said that they are trusted."""

import base64
import json
import os
import pickle
import shutil
import subprocess
import sys
import time

import cloudpickle
import pytest
import pytorch_lightning as pl
import torch
from conftest import wait_for

from lightning_pod.cli import main
from lightning_pod.core.classifier import read_checkpoint
from lightning_pod.core.config import PodError
from lightning_pod.core.config import workspace as the_workspace
from lightning_pod.core.job import Job, find_job, jobs
from lightning_pod.core.nets import build_encoder
from lightning_pod.core.trust import (
    GONE_S,
    KEPT,
    Untrusted,
    load_checkpoint,
    seal,
    sign,
    signature,
    signed,
    trust,
    write_signed,
)
from lightning_pod.train.fit import fit
from lightning_pod.train.runs import Run, list_runs
from lightning_pod.train.tune import Study, tune

SMALL = dict(epochs=1, loggers="none", progress=False)


class Guest:
    """A pickle that makes a folder when it is read."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.makedirs, (str(self.folder), 0o777, True)


@pytest.fixture
def guest(workspace):
    return Guest(workspace / "was here")


@pytest.fixture
def somebody_else(monkeypatch, tmp_path):
    """A function: from now on another user works, with a key of their own."""
    return lambda: monkeypatch.setenv("POD_KEY_FILE", str(tmp_path / "bob" / "key"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run that ended after its last epoch, so that to go on with it takes a moment."""
    return fit("digits", "podnet_n", workspace_path=tmp_path_factory.mktemp("trained"), **SMALL)


def received(run: Run, workspace) -> Run:
    """A copy of the run's folder, stopped."""
    folder = workspace / "runs" / run.id
    shutil.copytree(run.path, folder)
    copy = Run(folder)
    copy._write(state="stopped")
    return copy


def refused(call, guest: Guest, *words: str):
    with pytest.raises(PodError) as e:
        call()
    assert not guest.folder.exists()
    assert all(w in str(e.value) for w in ("--trust", *words)), str(e.value)
    assert "weights_only" not in str(e.value) and "Re-running" not in str(e.value)


# ---- checkpoints


def hostile(file, guest, how: str):
    """A checkpoint with an object in it."""
    saved = torch.load(file, weights_only=True) | {"guest": guest}
    if how == "pickle":
        file.write_bytes(pickle.dumps(saved))
    else:
        torch.save(saved, file, _use_new_zipfile_serialization=how == "zip")


HOSTILE = [("last.ckpt", "zip"), ("best.ckpt", "zip"), ("last.ckpt", "old"), ("best.ckpt", "pickle")]


@pytest.mark.parametrize("name, how", HOSTILE)
def test_going_on_with_a_received_run_runs_nothing_of_its_checkpoints(trained, workspace, guest, name, how):
    run = received(trained, workspace)
    hostile(run.checkpoints / name, guest, how)
    refused(lambda: fit(resume=run.id, progress=False), guest, name)
    assert run.status == "failed" and "--trust" in run.info["message"]
    if how != "pickle":  # which isn't torch's at all
        assert fit(resume=run.id, trust=True, progress=False).status == "done" and guest.folder.exists()


def test_pod_resume_of_a_received_run_says_what_to_do(trained, workspace, guest, capfd):
    run = received(trained, workspace)
    hostile(run.checkpoints / "best.ckpt", guest, "zip")
    assert main(["resume", run.id]) == 1
    said = "".join(capfd.readouterr()) + run.log()
    assert "--trust" in said and "weights_only" not in said and not guest.folder.exists()
    assert main(["resume", run.id, "--trust"]) == 0 and run.status == "done" and guest.folder.exists()


def test_a_received_run_without_objects_goes_on_without_a_word(trained, workspace, somebody_else):
    somebody_else()
    run = received(trained, workspace)
    assert fit(resume=run.id, progress=False).status == "done"


def test_what_reads_weights_refuses_objects_and_damage(trained, workspace, guest):
    file = shutil.copy(trained.checkpoints / "best.ckpt", workspace / "x.ckpt")
    hostile(workspace / "x.ckpt", guest, "zip")
    for read in (read_checkpoint, lambda f: fit("digits", "podnet_n", pretrained=str(f), **SMALL)):
        with pytest.raises(PodError, match="holds more than weights and numbers") as e:
            read(file)
        assert "weights_only" not in str(e.value) and not guest.folder.exists()
    (workspace / "x.ckpt").write_bytes(b"PK\x03\x04 cut")
    with pytest.raises(PodError, match="damaged"):
        read_checkpoint(file)


def test_weights_in_the_cache_of_torch_are_weights_and_nothing_else(workspace, guest, monkeypatch):
    from torchvision.models import ResNet18_Weights

    monkeypatch.setenv("TORCH_HOME", str(workspace / "torch"))
    file = workspace / "torch" / "hub" / "checkpoints" / ResNet18_Weights.DEFAULT.url.rpartition("/")[2]
    file.parent.mkdir(parents=True)
    torch.save({"guest": guest}, file)
    monkeypatch.delenv("TORCH_FORCE_WEIGHTS_ONLY_LOAD", raising=False)
    with pytest.raises(PodError, match="holds more than weights"):
        build_encoder("resnet18", 3, 32, pretrained=True)
    assert not guest.folder.exists() and "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ


def test_a_module_with_an_object_in_its_checkpoint_goes_on_by_itself_for_its_user_alone(workspace, somebody_else):
    class Net(pl.LightningModule):
        def __init__(self, loss):
            super().__init__()
            self.save_hyperparameters()
            self.net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))

        def training_step(self, batch, i):
            return self.hparams.loss(self.net(batch[0].float()), batch[1])

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.001)

    run = fit("digits", Net(loss=torch.nn.CrossEntropyLoss()), **SMALL)
    assert load_checkpoint(run.checkpoints / "last.ckpt")[1] is False  # it holds more than weights
    again = received(run, workspace / "copy")
    given = dict(model=Net(loss=torch.nn.CrossEntropyLoss()), workspace_path=workspace / "copy", progress=False)
    assert fit(resume=again.path, **given).status == "done"
    somebody_else()
    again._write(state="stopped")
    with pytest.raises(Untrusted, match="holds more than weights .*CrossEntropyLoss"):
        fit(resume=again.path, **given)


# ---- studies


def one_of_two(trial):
    return {"lr": trial.suggest_categorical("lr", [0.01, 0.02])}


def test_a_study_reads_what_its_user_pickled_and_nothing_else(workspace, guest, somebody_else, capsys):
    import optuna
    from pytorch_lightning import Callback

    given = dict(sampler=optuna.samplers.RandomSampler(0), trainer={"callbacks": [Callback()]})
    study = tune("digits", one_of_two, trials=1, model="podnet_n", **given, **SMALL)
    assert study.status == "done" and study.train_best(epochs=1).status == "done"  # one's own need no flag
    own = {name: (study.path / name).read_bytes() for name in ("objects.pkl", "optuna.pkl", "space.pkl")}
    study.extend(1)

    def resume():
        return tune(resume=study.id, progress=False)

    for name, call in (("objects.pkl", lambda: study.train_best(epochs=1)), ("optuna.pkl", resume),
                       ("space.pkl", resume), ("space.pkl", lambda: Study(study.path).add(lr=0.01))):
        (study.path / name).write_bytes(cloudpickle.dumps(guest))
        refused(call, guest, name)
        (study.path / name).write_bytes(own[name])
    assert resume().status == "done"
    somebody_else()
    assert main(["tune", "best", study.id, "--epochs", "1"]) == 2 and "--trust" in capsys.readouterr().err
    assert main(["tune", "add", study.id, "lr=0.01"]) == 2 and "names what is to be run" in capsys.readouterr().err
    (study.path / "objects.pkl").write_bytes(cloudpickle.dumps({"guest": guest}))
    assert main(["tune", "best", study.id, "--epochs", "1", "--trust"]) == 0 and guest.folder.exists()


def test_a_study_with_a_space_in_a_file_runs_the_file_that_its_user_kept(workspace, guest):
    source = "def space(trial): return {'lr': trial.suggest_categorical('lr', [0.01, 0.02])}\n"
    (workspace / "space.py").write_text(source)
    study = tune("digits", f"{workspace / 'space.py'}:space", trials=1, model="podnet_n", **SMALL).extend(1)
    (study.path / "space.py").write_text(f"import os\nos.makedirs({str(guest.folder)!r})\n{source}")
    refused(lambda: tune(resume=study.id, progress=False), guest, "space.py")


# ---- other Jobs


def test_a_run_in_the_mail_cannot_be_a_program_in_disguise(trained, workspace, guest, capsys):
    (workspace / "evil.py").write_text(f"import os\nos.makedirs({str(guest.folder)!r})\n")
    (workspace / "evil").mkdir()
    shutil.copy(workspace / "evil.py", workspace / "evil" / "brought.py")
    program = {"file": str(workspace / "evil.py"), "argv": [], "compat": True}
    space = {"space": {"function": "f", "module": "brought", "path": str(workspace / "evil")}}
    for body, config in (("lightning_pod.app.local:app_body", program), ("brought:body", {}),
                         ("lightning_pod.train.tune:study_body", space)):
        run = received(trained, workspace)
        run._write(body=body)
        (run.path / "config.yaml").write_text(json.dumps(config))
        for call in (["resume", run.id], ["restart", run.id]) if "app" in body else (["resume", run.id],):
            if call[0] == "restart":
                run._write(kind="app")
            assert main(call) == 2
            said = capsys.readouterr().err
            assert f"names what is to be run ({body})" in said and "--trust" in said and not guest.folder.exists()
        shutil.rmtree(run.path)


APP = """
import time
from lightning_pod.app import App, Flow, Payload, Work
class Making(Work):
    def __init__(self): super().__init__(); self.made = None
    def run(self, what): self.made = Payload(what)
class Slow(Work):
    def run(self, given):
        print("has", given.value, flush=True)
        time.sleep(600)
class Root(Flow):
    def __init__(self): super().__init__(); self.making, self.slow = Making(), Slow()
    def run(self):
        self.making.run("something")
        self.slow.run(self.making.made)
app = App(Root())
"""


def test_an_app_goes_on_with_what_its_user_wrote_and_nothing_else(workspace, pod, guest, somebody_else, capsys):
    file = workspace / "app.py"
    file.write_text(APP)
    pod("run", file, "--detach")
    app = next(j for j in jobs() if j.info["kind"] == "app")

    def waiting(attempt: int) -> bool:
        logs = [j.log() for j in jobs() if j.info["kind"] == "work" and j.config["name"] == "root.slow"]
        return sum(log.count("has something") for log in logs) >= attempt

    wait_for(lambda: waiting(1), 90, "the call of the second Work")
    app.stop()
    assert main(["resume", app.id, "--detach"]) == 0
    wait_for(lambda: waiting(2), 90, "the call to be made again")
    app.stop()

    journal, text = app.path / "state.jsonl", (app.path / "state.jsonl").read_text()
    state = json.loads(text.splitlines()[0])
    (key, sealed), = state["args"]["root.slow"].items()
    forged = base64.b64encode(cloudpickle.dumps(guest)).decode()
    for mark in ("", "." + sealed.partition(".")[2], "." + "0" * 64):
        journal.write_text(text.replace(sealed, forged + mark))
        assert main(["resume", app.id]) == 1
        said = "".join(capsys.readouterr()) + app.log()
        assert "state.jsonl" in app.info["message"] and "--trust" in said and not guest.folder.exists()
    journal.write_text(text)

    somebody_else()
    assert main(["resume", app.id]) == 2 and "--trust" in capsys.readouterr().err
    assert main(["resume", app.id, "--trust", "--detach"]) == 0
    wait_for(lambda: waiting(3), 90, "the call to be made by somebody who trusts the app")
    app.stop()


def test_a_payload_of_somebody_else_is_not_read(workspace, guest, monkeypatch, somebody_else):
    import hashlib

    from lightning_pod.app.drive import Payload

    monkeypatch.setattr(Payload, "_pod_folder", str(workspace / "payloads"))
    mine = Payload([1, 2])
    mine._pod_keep("root.w")
    assert Payload.from_dict(mine.to_dict()).value == [1, 2]
    data = pickle.dumps(guest)
    name = hashlib.sha256(data).hexdigest()
    (workspace / "payloads" / f"{name}.pickle").write_bytes(data)
    refused(lambda: Payload.from_dict({**mine.to_dict(), "sha256": name}).value, guest, name)
    somebody_else()
    refused(lambda: Payload.from_dict(mine.to_dict()).value, guest)


@pytest.mark.parametrize("wrong, words", [
    ("another key", "--trust"), ("a key that all may read", "chmod 600"), ("no file to write in", "events.jsonl"),
])
def test_a_job_refused_in_its_own_process_ends_as_failed_and_says_why(workspace, monkeypatch, wrong, words):
    job = Job.create(the_workspace().jobs, "test", "lightning_pod.core.job:count_body", {"n": 3})
    key = workspace / "bob" / "key"
    if wrong == "a key that all may read":
        key.parent.mkdir()
        key.write_bytes(bytes(32))
        key.chmod(0o644)
    if wrong == "no file to write in":
        (job.path / "events.jsonl").mkdir()
        key = os.environ["POD_KEY_FILE"]
    real = subprocess.Popen
    with monkeypatch.context() as m:  # only the new process has that key
        m.setattr(subprocess, "Popen", lambda *a, env, **k: real(*a, env={**env, "POD_KEY_FILE": str(key)}, **k))
        job.start()
    assert job.wait(90) == "failed" and words in job.info["message"]
    assert words in job.log()
    wait_for(lambda: job.lease.holder() is None, what="the lock, which is let go after the status was written")


# ---- the key


def test_processes_that_make_the_key_at_once_have_the_same(tmp_path, monkeypatch):
    import multiprocessing

    monkeypatch.setenv("POD_KEY_FILE", str(tmp_path / "new" / "key"))
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        marks = pool.map(seal, [b"x"] * 40, chunksize=1)
    assert len(set(marks)) == 1 and [p.name for p in (tmp_path / "new").iterdir()] == ["key"]


def test_without_a_place_for_a_key_a_fit_goes_on_and_a_study_says_why_not(trained, workspace, monkeypatch):
    (workspace / "file").touch()
    monkeypatch.setenv("POD_KEY_FILE", str(workspace / "file" / "key"))
    assert fit(resume=received(trained, workspace).id, progress=False).status == "done"
    with pytest.raises(PodError, match="POD_KEY_FILE"):
        tune("digits", {"lr": [0.01, 0.02]}, trials=1, model="podnet_n", **SMALL)
    assert not list((workspace / ".pod" / "jobs").glob("*"))


def test_trust_signs_what_a_job_started_too(workspace, somebody_else, guest):
    study = tune("digits", {"lr": [0.01, 0.02]}, trials=1, model="podnet_n", trainer={"callbacks": []}, **SMALL)
    run = list_runs()[0]
    (run.path / "objects.pkl").write_bytes(cloudpickle.dumps({}))
    somebody_else()
    assert run.path / "objects.pkl" in trust(study) and isinstance(find_job(study.id), Job)


# ---- signatures


SIGNING = """
import sys
from pathlib import Path
from lightning_pod.core.trust import sign, signed, write_signed
me, home, n = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
for k in range(n):
    write_signed(home / f"{me}.pkl", f"{me} {k}".encode())
    assert signed(home / f"{me}.pkl"), f"{me} {k} is lost"
    write_signed(home / f"{me} of {k}.pkl", me.encode())
    if k % 5: (home / f"{me} of {k}.pkl").unlink()
"""


def test_signatures_of_two_processes_are_bounded_and_none_is_lost(workspace, monkeypatch):
    two = [subprocess.Popen([sys.executable, "-c", SIGNING, me, workspace, "100"]) for me in ("one", "two ü")]
    assert [p.wait(120) for p in two] == [0, 0]
    files = sorted(workspace.glob("*.pkl"))
    assert len(files) == 42 and all(map(signed, files))
    monkeypatch.setattr("time.time", lambda now=time.time(): now + 2 * GONE_S)
    for k in range(32):
        sign(workspace / "new.pkl", str(k).encode())
    assert len((workspace / ".signatures").read_text().splitlines()) <= 40 + 3 * KEPT + 32 and all(map(signed, files))
    assert not [p for p in workspace.iterdir() if p.suffix != ".pkl" and p.name != ".signatures"]


def test_signatures_of_before_and_of_others_stay(workspace, somebody_else, monkeypatch):
    (workspace / "mine.pkl").write_bytes(b"mine")
    (workspace / ".signatures").write_text(signature(b"mine"))  # no name, and the line was cut short
    for k in range(70):
        write_signed(workspace / "again.pkl", b"mine %d" % k)
    mine = workspace / "again.pkl"
    assert signed(workspace / "mine.pkl") and signed(mine)
    somebody_else()
    for k in range(70):
        write_signed(workspace / "theirs.pkl", str(k).encode())
    assert signed(workspace / "theirs.pkl") and not signed(mine)
    monkeypatch.undo()
    assert signed(workspace / "mine.pkl") and signed(mine)


def test_a_module_with_an_object_signs_no_more_than_it_keeps(workspace):
    class Net(pl.LightningModule):
        def __init__(self, loss):
            super().__init__()
            self.save_hyperparameters()
            self.net = torch.nn.Linear(1, 1)

        def training_step(self, batch, i):
            return self.net(batch[1].float()[:, None]).square().mean()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.001)

    images = torch.zeros(32, 4, 4, 1, dtype=torch.uint8).numpy(), torch.arange(32).numpy() % 2
    run = fit(images, Net(torch.nn.L1Loss()), epochs=60, loggers="none", progress=False)
    assert run.status == "done" and len((run.checkpoints / ".signatures").read_text().splitlines()) <= 2 * KEPT + 32
    assert all(map(signed, run.checkpoints.glob("*.ckpt")))


# ---- damaged, or somebody else's

DAMAGE = {
    "empty": lambda b: b"",
    "cut at the front": lambda b: b[:50],
    "cut in half": lambda b: b[: len(b) // 2],
    "cut at the end": lambda b: b[:-20],
    "overwritten at the front": lambda b: bytes(40) + b[40:],
    "overwritten in the pickle": lambda b: b[:200] + bytes(100) + b[300:],
}
WEIGHTS = {"a weight changed": lambda b: b[: len(b) // 2] + bytes([b[len(b) // 2] ^ 255]) + b[len(b) // 2 + 1 :]}


@pytest.mark.parametrize("is_signed", [True, False])
@pytest.mark.parametrize("how", ["zip", "old"])
@pytest.mark.parametrize("objects", [False, True])
def test_a_damaged_checkpoint_is_told_as_damaged_and_a_foreign_one_as_foreign(workspace, objects, how, is_signed):
    def read():
        try:
            return load_checkpoint(file)[1]
        except Untrusted as e:
            return f"foreign: {e}"
        except PodError as e:
            return f"damaged: {e}"

    file = workspace / "some.ckpt"
    more = {"loss": torch.nn.L1Loss(), "made": cloudpickle.loads(cloudpickle.dumps(Guest))} if objects else {}
    saved = {"w": torch.ones(4000), "h": torch.ones(9).bfloat16(), "epoch": 3, **more}
    torch.save(saved, file, cloudpickle, _use_new_zipfile_serialization=how == "zip")
    whole = file.read_bytes()
    if is_signed:
        sign(file)
    said = read()
    assert said is (not objects) if is_signed or not objects else "holds more than weights" in said, said
    for name, damage in {**DAMAGE, **WEIGHTS}.items():
        file.write_bytes(damage(whole))
        said = read()
        if name in DAMAGE or how == "zip":
            words = f"damaged: '{file}' can't be read: it is damaged, or no checkpoint ("
            assert str(said).startswith(words), (name, said)
            with pytest.raises(PodError, match="can't be read: it is damaged, or no checkpoint"):
                read_checkpoint(file)
        else:  # torch's older format has no sums
            assert said is True if not objects else "was changed" in said, (name, said)


def test_a_checkpoint_without_sums_is_no_damaged_one(workspace):
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"w": torch.ones(4000)}, workspace / "x.ckpt")
    finally:
        torch.serialization.set_crc32_options(True)
    assert load_checkpoint(workspace / "x.ckpt")[1] and read_checkpoint(workspace / "x.ckpt")["w"].sum() == 4000
