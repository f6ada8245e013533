"""Trainings as real processes: interrupted, killed, resumed, side by side, in a kernel; and how good the default is."""

import csv
import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from conftest import Pod, event, last_json, litter, wait_for

from lightning_pod.train.fit import fit, same_weights
from lightning_pod.train.runs import Run, load_run

AIM = Path(sys.executable).with_name("aim")
SIX = ("digits", "--epochs", 6, "--seed", 3)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Run:
    """A training that nobody disturbed."""
    folder = tmp_path_factory.mktemp("undisturbed")
    return Run(folder / "runs" / Pod(folder).json("fit", *SIX)["id"])


def epochs_in_csv(run: Run) -> list[int]:
    with open(run.path / "metrics.csv", newline="") as f:
        return [int(row["epoch"]) for row in csv.DictReader(f)]


def assert_equal_runs(run: Run, other: Run, broken_off: int = 0):
    """Both went through the same epochs, each once, to the same weights and the same numbers.

    The training loss of an epoch that was `broken_off` is the mean of the batches after that."""
    assert run.status == other.status == "done"
    assert epochs_in_csv(run) == epochs_in_csv(other) == list(range(1, 7))
    assert same_weights(run, other), "the weights differ"
    a, b = (r.metrics.drop(columns="seconds") for r in (run, other))
    if broken_off:
        a.loc[broken_off, "train_loss"] = b.loc[broken_off, "train_loss"]
    assert a.equals(b), f"{a}\n{b}"
    assert all(run.summary[k] == other.summary[k] for k in ("test_acc", "test_loss"))


def warnings_of(run: Run) -> list[str]:
    return [e["text"] for e in run.events() if e["kind"] == "message" and e["level"] != "info"]


# ---- a run folder


def test_the_folder_of_a_run(undisturbed):
    names = {p.name for p in undisturbed.path.iterdir()}
    wanted = {"config.yaml", "status.json", "events.jsonl", "metrics.csv", "splits.json", "checkpoints", "log.txt"}
    assert wanted <= names, wanted - names
    assert not warnings_of(undisturbed) and not litter(undisturbed.path)
    assert [e["kind"] for e in undisturbed.events()].count("progress") > 3
    assert {"train_loss", "valid_loss", "valid_acc", "lr"} <= set(undisturbed.metrics)
    assert {"test_acc", "test_loss", "valid_acc", "valid_loss", "train_loss"} <= set(undisturbed.summary)
    splits = json.loads((undisturbed.path / "splits.json").read_text())
    parts = [set(splits[s]) for s in ("train", "valid", "test")]
    assert len(set.union(*parts)) == sum(map(len, parts)) == 1797


# ---- interrupted, killed, resumed


def test_ctrl_c_ends_with_a_checkpoint_and_resume_goes_on(pod, undisturbed):
    p, run = pod.training(*SIX, at_step=30)
    p.send_signal(signal.SIGINT)
    out, err = p.communicate(timeout=60)
    assert p.returncode == 130 and "Traceback" not in err
    assert run.status == "stopped" and (run.checkpoints / "last.ckpt").exists()
    assert f"pod resume {run.id}" in out
    at = event(run, "progress")
    assert 30 <= at["done"] < 138
    pod("resume", run.id)
    assert_equal_runs(run, undisturbed, broken_off=at["epoch"])
    assert not litter(run.path)


def test_a_fit_killed_at_any_moment_goes_on_to_the_same_end(pod, undisturbed):
    moment = random.Random()  # another one in each run of this test; printed where it fails
    p, run = pod.training(*SIX)
    for _ in range(2):
        print("killed after", pause := moment.uniform(0, 2), "s")
        time.sleep(pause)  # the moment is the point: nothing is waited for
        os.kill(run.info["pid"], signal.SIGKILL)
        wait_for(lambda: run.ended, 10, "its death to be seen")
        if run.status == "done":
            break
        assert run.status == "died"
        run.checkpoints.mkdir(exist_ok=True)
        (run.checkpoints / ".last.ckpt.abcd.tmp").write_bytes(b"what a kill amid a write leaves")
        pod("resume", run.id, "--detach")
        wait_for(lambda: run.ended or event(run, "progress").get("t", 0) > run.info["started"], 60, "progress")
    p.communicate(timeout=60)
    assert run.wait(120) == "done"
    assert_equal_runs(run, undisturbed)
    assert not litter(run.path)
    assert not warnings_of(run)


def test_ctrl_c_while_it_gets_going_leaves_nothing(pod, workspace):
    p = pod.start("fit", "digits")
    wait_for(lambda: "libtorch" in Path(f"/proc/{p.pid}/maps").read_text(), 60, "torch to be loaded")
    p.send_signal(signal.SIGINT)
    out, err = p.communicate(timeout=60)
    assert p.returncode == 130 and "Traceback" not in err, err
    assert not litter(workspace) and all(Run(r).status == "stopped" for r in workspace.glob("runs/*"))


def test_a_fit_killed_before_its_first_epoch_begins_again(pod, undisturbed):
    p, run = pod.training(*SIX)
    p.kill()
    p.communicate()
    if not (run.checkpoints / "last.ckpt").exists():
        assert "yet" in pod("predict", run.id, "x.png", code=2).stderr
    out = pod.json("resume", run.id)
    assert out["status"] == "done" and out["metrics"]["test_acc"] > 0.9
    assert_equal_runs(run, undisturbed)


# ---- side by side


def test_two_fits_at_once_are_both_done_and_both_in_aim(pod, workspace):
    fits = [pod.start("fit", "digits", "--epochs", 2, "--seed", seed, "--json") for seed in (1, 2)]
    ends = [p.communicate(timeout=240) for p in fits]
    assert [p.returncode for p in fits] == [0, 0], ends
    runs = [last_json(out) for out, _ in ends]
    assert all(r["status"] == "done" and r["metrics"]["test_acc"] > 0.5 for r in runs)
    assert not [w for r in runs for w in warnings_of(load_run(r["id"]))]
    # what `aim up` does when it opens
    subprocess.run([AIM, "storage", "--repo", workspace, "reindex", "-y"], capture_output=True, check=True)
    ask = """
        import json, sys
        from aim import Repo
        found = {r.name: sorted({m.name for m in r.metrics()}) for r in Repo(sys.argv[1]).iter_runs()}
        print(json.dumps(found))
    """
    command = [sys.executable, "-c", textwrap.dedent(ask), workspace]
    tracked = last_json(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert sorted(tracked) == sorted(r["id"] for r in runs)
    for names in tracked.values():
        assert {"train_loss", "valid_loss", "valid_acc", "test_acc", "lr"} <= set(names)


# ---- without Aim

NO_AIM = """
import importlib.machinery, sys
real = importlib.machinery.PathFinder.find_spec
def find_spec(name, path=None, target=None):
    return None if name.partition(".")[0] in ("aim", "aimrocks", "aimrecords") else real(name, path, target)
importlib.machinery.PathFinder.find_spec = staticmethod(find_spec)
"""


def test_fit_without_aim_works_whole_and_says_so(pod, workspace, tmp_path):
    (tmp_path / "blocked").mkdir()
    (tmp_path / "blocked" / "sitecustomize.py").write_text(NO_AIM)
    pod.changes["PYTHONPATH"] = os.pathsep.join([str(tmp_path / "blocked"), pod.env["PYTHONPATH"]])
    p = pod("fit", "digits", "--epochs", 1, "--json")
    assert "not tracked in aim" in p.stderr and "pip install aim" in p.stderr
    run = load_run("last")
    assert run.status == "done" and run.summary["test_acc"] > 0.5
    assert warnings_of(run) == [line for line in p.stderr.splitlines() if "aim" in line]
    assert not (workspace / ".aim").exists()


# ---- in a kernel


def test_a_kernels_stop_ends_at_a_batch_edge_and_the_kernel_lives_on(workspace):
    from jupyter_client.manager import start_new_kernel

    manager, client = start_new_kernel(cwd=str(workspace))
    try:
        said = []
        client.execute("from lightning_pod import fit, runs\nrun = fit('digits', epochs=2000, loggers='none')")
        run = wait_for(lambda: next(iter((workspace / "runs").glob("[!.]*")), None), 60, "the run")
        run = Run(wait_for(lambda: run if (run / "status.json").exists() else None))
        wait_for(lambda: event(run, "progress").get("done", 0) > 30, 60, "progress")
        manager.interrupt_kernel()
        reply = client.get_shell_msg(timeout=60)
        assert reply["content"]["status"] == "ok", reply
        while not said or said[-1] != ("status", "idle"):
            message = client.get_iopub_msg(timeout=10)
            said.append((message["msg_type"], message["content"].get("execution_state", message["content"])))
        shown = [c["data"] for kind, c in said if kind == "display_data"]
        assert any("application/vnd.jupyter.widget-view+json" in d for d in shown), said
        assert not [c for kind, c in said if kind in ("error", "stream")], said
        assert run.status == "stopped" and (run.checkpoints / "last.ckpt").exists()
        assert any("with a checkpoint" in e.get("text", "") for e in run.events())
        answer = client.execute_interactive("assert run.status == 'stopped' and len(runs()) == 1", timeout=60)
        assert answer["content"]["status"] == "ok", answer
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


# ---- how good it is


def test_the_default_fit_of_the_digits(workspace):
    found = [fit("digits", seed=seed, loggers="none", progress=False) for seed in range(5)]
    again = fit("digits", seed=0, loggers="none", progress=False)
    scores = [r.summary["test_acc"] for r in found]
    assert scores[0] >= 0.985 and sum(scores) / 5 >= 0.985, scores
    assert again.summary == found[0].summary and same_weights(again, found[0])
