"""Calls that can't be carried out: a clear sentence, exit code 2, no traceback, nothing left behind."""

import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from conftest import Pod, event, fill, last_json, litter, wait_for
from PIL import Image

from lightning_pod.train.runs import Run, load_run


def make_folder(folder, classes: int = 2, images: int = 12):
    """A folder of class folders with noise in them."""
    rng = np.random.default_rng(0)
    for c in range(classes):
        (folder / f"class{c}").mkdir(parents=True)
        for i in range(images):
            Image.fromarray(rng.integers(0, 255, (16, 16), dtype=np.uint8)).save(folder / f"class{c}" / f"{i}.png")
    return folder


def contents(workspace) -> list:
    """What is in a workspace, but for images that were decoded on the way to an error."""
    return sorted(p for p in workspace.rglob("*") if p not in (workspace / "runs", workspace / ".pod")
                  and workspace / ".pod" / "cache" not in (p, *p.parents))


def refused(pod: Pod, *args) -> str:
    """What `pod` says of a call that it refuses, everything else about the refusal checked."""
    before = contents(pod.workspace)
    p = pod(*args, code=None)
    assert p.returncode == 2, f"exit code {p.returncode}\n{p.stdout}\n{p.stderr}"
    assert p.stderr.startswith(f"pod {args[0]}: ") and "Traceback" not in p.stderr, p.stderr
    assert not p.stdout and "Error" not in p.stderr, p.stdout + p.stderr
    listed = re.search("images of|put its files there", p.stderr)
    assert p.stderr.count("\n") == 1 or listed, f"more than a sentence:\n{p.stderr}"
    assert contents(pod.workspace) == before, "something was left behind"
    return p.stderr


# ---- in a notebook


def test_an_error_in_a_notebook_is_its_sentence(pod):
    code = "import lightning_pod as lp\nlp.fit('digitz')"
    ipython = [sys.executable, "-m", "IPython", "--no-banner", "--colors=NoColor"]
    p = subprocess.run([*ipython, "-c", code], cwd=pod.workspace, env=pod.env, capture_output=True, text=True)
    assert "PodError: unknown data set 'digitz'. Did you mean 'digits'?" in p.stdout + p.stderr
    assert "Traceback" not in p.stdout + p.stderr and "fit.py" not in p.stdout + p.stderr, p.stdout


# ---- data


def test_an_unknown_data_set(pod):
    said = refused(pod, "fit", "digitz")
    assert "unknown data set 'digitz'" in said and "Did you mean 'digits'?" in said
    assert "FashionMNIST" in said and "CIFAR10" in said
    assert "Did you mean 'FashionMNIST'?" in refused(pod, "fit", "fashion-mnist")


def test_a_folder_that_is_not_there(pod, tmp_path):
    assert f"no such folder: '{tmp_path}/nothing'" in refused(pod, "fit", tmp_path / "nothing")
    (tmp_path / "file").touch()
    assert "folder" in refused(pod, "fit", tmp_path / "file")


def test_an_empty_folder(pod, tmp_path):
    (tmp_path / "empty").mkdir()
    said = refused(pod, "fit", tmp_path / "empty")
    assert f"no images under '{tmp_path}/empty'" in said and "one folder per class" in said
    Image.new("L", (8, 8)).save(tmp_path / "empty" / "loose.png")
    assert "1 images lie in it directly" in refused(pod, "fit", tmp_path / "empty")


def test_a_folder_with_one_class(pod, tmp_path):
    said = refused(pod, "fit", make_folder(tmp_path / "one", classes=1))
    assert "one has 1 class (class0): a classifier needs at least 2" in said


def test_an_unreadable_image(pod, tmp_path):
    folder = make_folder(tmp_path / "pictures")
    (folder / "class0" / "torn.png").write_bytes((folder / "class0" / "0.png").read_bytes()[:100])
    (folder / "class1" / "text.jpg").write_text("this is no image")
    said = refused(pod, "fit", folder)
    assert "2 of 26 images" in said and "torn.png" in said and "text.jpg" in said and "on_bad" in said
    out = pod.json("fit", folder, "--on_bad", "skip", "--epochs", 1, "--loggers", "none")
    assert out["status"] == "done"
    assert "2 damaged images left out" in load_run("last").log()


def test_a_torchvision_set_that_is_not_there(pod, tmp_path):
    said = refused(pod, "fit", "FashionMNIST", "--root", tmp_path / "root", "--download", "false")
    assert "FashionMNIST is not in" in said and "download" in said


# ---- settings


@pytest.mark.parametrize(("option", "value", "hint"), [
    ("lr", "0", "above 0"), ("lr", "abc", "expected a number"), ("lr", "-1", "above 0"), ("lr", "nan", "a number"),
    ("epochs", "0", "from 1"), ("epochs", "many", "a whole number"), ("epochs", "2.5", "a whole number"),
    ("batch_size", "0", "from 1"), ("image_size", "1", "pixels"), ("seed", "-1", "from 0"),
    ("valid", "1", "valid"), ("test", "-0.1", "from 0"), ("augment", "wild", "none"), ("on_bad", "ignore", "skip"),
    ("model", "resnet19", "resnet1"), ("loggers", "wondb", "wandb"), ("trainer.precision", "7", "precision"),
])  # fmt: skip
def test_a_setting_that_cannot_be(pod, option, value, hint):
    said = refused(pod, "fit", "digits", f"--{option}={value}")
    assert value in said and hint in said


@pytest.mark.parametrize(("option", "value"), [("lr", "0"), ("model", "resnet19"), ("augment", "wild"), ("valid", "1")])
def test_a_setting_that_cannot_be_is_refused_before_a_process_is_started(pod, option, value):
    assert value in refused(pod, "fit", "digits", f"--{option}={value}", "--detach")


def test_data_that_cannot_be_is_refused_before_a_process_is_started(pod, tmp_path):
    assert "digits" in refused(pod, "fit", "digitz", "--detach")
    assert "1 class" in refused(pod, "fit", make_folder(tmp_path / "one", classes=1), "--detach")


def test_a_config_file_that_is_not_there_or_none(pod, tmp_path):
    assert "nothing.yaml" in refused(pod, "fit", "--config", tmp_path / "nothing.yaml")
    (tmp_path / "bad.yaml").write_text("epochs: [1, 2")
    assert "bad.yaml" in refused(pod, "fit", "--config", tmp_path / "bad.yaml")
    (tmp_path / "bad.yaml").write_text("epochz: 3")
    assert "epochz" in refused(pod, "fit", "--config", tmp_path / "bad.yaml")


# ---- runs and images


@pytest.mark.parametrize("call", [("predict", "nope", "x.png"), ("runs", "show", "nope"), ("logs", "nope"),
                                  ("stop", "nope"), ("resume", "nope"), ("predict", "last", "x.png")])  # fmt: skip
def test_a_run_that_is_not_there(pod, call):
    said = refused(pod, *call)
    assert "'nope'" in said or "'last'" in said
    assert "There are none yet" in said and str(pod.workspace) in said


def test_a_run_that_is_not_there_among_others(pod):
    id = pod.json("fit", "digits", "--epochs", 1, "--loggers", "none")["id"]
    for verb in ("logs", "stop", "resume"):
        assert id in refused(pod, verb, "20200101-000000-nope")


def test_a_predict_of_what_is_no_image(pod, tmp_path):
    pod("fit", "digits", "--epochs", 1, "--loggers", "none")
    good = tmp_path / "good.png"
    Image.new("L", (8, 8)).save(good)
    (tmp_path / "text.png").write_text("this is no image")
    (tmp_path / "empty.png").touch()
    (tmp_path / "torn.png").write_bytes((make_folder(tmp_path / "noise") / "class0" / "0.png").read_bytes()[:100])
    for name, hint in (("text.png", "not an image"), ("empty.png", "not an image"), ("torn.png", "damaged"),
                       ("nothing.png", "no such file")):
        said = refused(pod, "predict", "last", tmp_path / name)
        assert str(tmp_path / name) in said and hint in said, said
        told = pod("predict", "last", good, tmp_path / name, "--json", code=1)  # the good one is answered
        assert hint in told.stderr and told.stderr.count("\n") == 1, told.stderr
        assert [("label" in row, "error" in row) for row in last_json(told.stdout)] == [(True, False), (False, True)]
    rows = last_json(pod("predict", "last", tmp_path, "--json", code=1).stdout)
    assert len(rows) == 4 + len(list((tmp_path / "noise").rglob("*.png"))) and sum("error" in r for r in rows) == 3
    (tmp_path / "bare").mkdir()
    assert "no images below" in refused(pod, "predict", "last", tmp_path / "bare")


# ---- a workspace that can't be written


def test_a_file_where_the_runs_should_be(pod, workspace):
    (workspace / "runs").write_text("a file")
    assert "a file stands where a folder is needed" in refused(pod, "fit", "digits", "--epochs", 1)
    pod.changes["POD_WORKSPACE"] = str(workspace / "runs")
    assert "a file stands where a folder is needed" in refused(pod, "fit", "digits", "--epochs", 1)


def test_a_read_only_disk(workspace, small_disk):
    disk = small_disk(64, "ro")
    said = refused(Pod(disk), "fit", "digits", "--epochs", 1)
    assert str(disk) in said and "read-only" in said and "POD_WORKSPACE" in said


def test_a_disk_that_is_full_already(workspace, small_disk):
    disk = small_disk(64)
    fill(disk)
    for detach in ([], ["--detach"]):
        said = refused(Pod(disk), "fit", "digits", "--epochs", 1, *detach)
        assert str(disk) in said and "the disk is full" in said and "POD_WORKSPACE" in said


@pytest.mark.parametrize("kilobytes", [256, 6000])
def test_a_disk_that_fills_up_in_mid_training(workspace, small_disk, kilobytes):
    """It is too small for a checkpoint, or for the second one; what was kept goes on when there is room."""
    disk, room = small_disk(kilobytes), workspace
    p = Pod(disk)("fit", "digits", "--epochs", 2, "--loggers", "none", code=2)
    assert "the disk is full" in p.stderr and "Traceback" not in p.stderr and not litter(disk)
    run = Run(next(disk.glob("runs/*")))
    assert run.status in ("failed", "died")  # the status itself may not fit
    assert "Traceback" not in run.log() and "the disk is full" in run.log()
    shutil.copytree(run.path, room / "runs" / run.id)
    assert Pod(room).json("resume", run.id)["status"] == "done"


def test_a_disk_too_small_for_aim_is_told_once(workspace, small_disk):
    p = Pod(small_disk(2000))("fit", "digits", "--epochs", 1, code=2)
    assert "the disk is full" in p.stderr and "Traceback" not in p.stderr
    assert p.stderr.count("the disk is full") == 1, p.stderr


def test_a_detached_fit_on_a_disk_that_fills_up_says_so_in_its_status(workspace, small_disk):
    disk = small_disk(6000)
    pod = Pod(disk)
    run = Run(disk / "runs" / pod.json("fit", "digits", "--epochs", 2, "--loggers", "none", "--detach")["id"])
    wait_for(lambda: run.ended, 120, "the end")
    assert run.status in ("failed", "died") and "Traceback" not in run.log()
    assert event(run, "progress") and not litter(disk)
