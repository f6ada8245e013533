"""Many runs in one workspace: at once, killed, tracked, tagged by several, removed, and their views made again."""

import os
import signal
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from conftest import POD, event, last_json, litter, wait_for

from lightning_pod.train.runs import Run, list_runs, load_run, remove, run_rows, runs

FIT = ("digits", "--model", "podnet_n")
ASK_AIM = """
    import json, sys
    from aim import Repo
    found = {r.name: {"tags": r.tags, "ended": bool(r.end_time), "metrics": {m.name: list(m.values.values_list()) for m in r.metrics()}}
             for r in Repo(sys.argv[1]).iter_runs()}
    print(json.dumps(found))
"""  # noqa: E501


def in_aim(workspace: Path) -> dict:
    """What another program finds in Aim, by the run's name."""
    if not (workspace / ".aim").is_dir():
        return {}
    command = [sys.executable, "-c", textwrap.dedent(ASK_AIM), workspace]
    return last_json(subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout)


def ended_run(workspace: Path, **status) -> Run:
    """A run that was never trained."""
    from lightning_pod.train.settings import FitConfig

    run = Run.create(workspace / "runs", "fit", "nowhere:nothing", FitConfig(loggers="none").to_dict())
    run._write(**{"state": "done", "result": {"metrics": {"test_acc": 0.9}, "seconds": 1.0}, **status})
    return run


# ---- at once


def test_four_fits_at_once_one_of_them_killed(pod, workspace):
    three = ("--epochs", 3, "--loggers", "aim,csv", "--json")
    fits = [pod.start("fit", *FIT, *three, "--seed", seed) for seed in range(3)]
    doomed = pod.start("fit", *FIT, "--epochs", 2000, "--title", "doomed")
    victim = wait_for(lambda: next((r for r in list_runs() if r.info.get("title") == "doomed"), None), 120, "a run")
    wait_for(lambda: len(victim.history.rows) >= 2, 120, "two epochs")
    done = pod.json("runs", "reindex")  # while others write to Aim
    assert victim.id in done["skipped"] and not done["notes"] and not done["deleted"]
    os.kill(victim.info["pid"], signal.SIGKILL)
    doomed.communicate()
    ends = [p.communicate(timeout=240) for p in fits]
    assert [p.returncode for p in fits] == [0] * 3, ends
    ids = [last_json(out)["id"] for out, _ in ends]
    assert victim.status == "died" and len(list_runs()) == 4
    for id in ids:
        run = load_run(id)
        assert [r["epoch"] for r in run.history.rows] == [1, 2, 3] and (run.path / "csv" / "metrics.csv").exists()
        assert not [m for m in run.history.messages if m["level"] != "info"]
    row = next(r for r in run_rows() if r["id"] == victim.id)
    assert row["status"] == "died" and row["metrics"]["valid_acc"] == victim.history.rows[-1]["valid_acc"]

    done = pod.json("runs", "reindex")
    assert done["runs"] == 4 and set(done["kept"] + done["rebuilt"]) == {*ids, victim.id}, done
    assert victim.id in done["rebuilt"] and not done["notes"] and not done["deleted"]
    tracked = in_aim(workspace)
    assert set(tracked) == {*ids, victim.id} and all(t["ended"] for t in tracked.values())
    for id in tracked:
        rows = load_run(id).history.rows
        assert sorted(tracked[id]["metrics"]["valid_acc"]) == pytest.approx(sorted(r["valid_acc"] for r in rows)), id
    assert all(len(tracked[id]["metrics"]["test_acc"]) == 1 for id in ids)
    assert sorted(pod.json("runs", "reindex")["kept"]) == sorted(tracked)  # once is enough

    assert len(list((workspace / ".aim" / "meta" / "chunks").iterdir())) == 4
    gone = pod.json("runs", "rm", victim.id, ids[0])
    assert gone["removed"] == [victim.id, ids[0]] and gone["freed"] > 1_000_000 and not gone["notes"]
    assert set(in_aim(workspace)) == {r["id"] for r in pod.json("runs")} == set(ids[1:])
    assert len(list((workspace / ".aim" / "meta" / "chunks").iterdir())) == 2
    assert sorted(p.name for p in (workspace / "runs").iterdir()) == sorted(ids[1:])
    assert not litter(workspace)
    # a fifth one finds everything in order
    assert pod.json("fit", *FIT, "--epochs", 1)["status"] == "done"
    assert len(pod.json("runs", "reindex")["kept"]) == 3 == len(in_aim(workspace))




def test_aim_is_made_again_from_nothing(pod, workspace):
    import shutil

    first = pod.json("fit", *FIT, "--epochs", 2)["id"]
    pod("runs", "tag", first, "good")
    other = pod.json("fit", *FIT, "--epochs", 1, "--loggers", "none")["id"]
    pod.json("runs", "reindex")
    before = in_aim(workspace)
    assert set(before) == {first} and before[first]["tags"] == ["good"]
    shutil.rmtree(workspace / ".aim")
    assert pod.json("runs", "reindex")["rebuilt"] == [first]
    after = in_aim(workspace)
    for name, values in before[first]["metrics"].items():
        assert sorted(after[first]["metrics"][name]) == pytest.approx(sorted(values)), name
    assert load_run(other).id not in after
    # a folder that somebody deleted by hand: Aim forgets it too, and nothing else
    shutil.rmtree(load_run(first).path)
    code = f"import aim; r = aim.Run(repo={str(workspace)!r}, log_system_params=False); r.name = 'my own'; r.close()"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=60)
    assert pod.json("runs", "reindex")["deleted"] == [first]
    assert set(in_aim(workspace)) == {"my own"}


def test_a_script_that_trains_and_removes_comes_to_its_end(workspace):
    code = """
        from lightning_pod import fit, runs
        from lightning_pod.train.runs import remove
        run = fit("digits", "podnet_n", epochs=1, progress=False)
        print(remove(run)["notes"], len(runs()))
    """
    p = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=120)
    assert p.returncode == 0 and p.stdout.split() == ["[]", "0"], p.stderr
    assert in_aim(workspace) == {}


# ---- removing


def test_a_run_that_goes_on_is_removed_only_by_force(pod, workspace):
    p, run = pod.training(*FIT, "--epochs", 2000, "--loggers", "none")
    said = pod("runs", "rm", run.id, code=2).stderr
    assert f"run {run.id} is running" in said and "--force" in said
    assert run.status == "running"
    assert pod.json("runs", "rm", run.id, "--force")["removed"] == [run.id]
    out, err = p.communicate(timeout=60)
    assert "Traceback" not in err, err
    assert not run.path.exists() and pod.json("runs") == [] and not any((workspace / "runs").iterdir())


def test_what_a_run_was_made_from_is_said(pod, workspace):
    parent = ended_run(workspace)
    from lightning_pod.train.settings import FitConfig

    child = Run.create(workspace / "runs", "fit", "nowhere:nothing", {**FitConfig().to_dict(), "pretrained": parent.id})
    p = pod("runs", "rm", parent.id)
    assert f"fit {child.id} names run {parent.id}" in p.stderr and "removed 1 run" in p.stdout
    assert child.path.exists()


def test_a_terminal_is_asked(pod, workspace):
    import pty

    run = ended_run(workspace)
    for answer, code, there in (("n", 1, True), ("y", 0, False)):
        ours, theirs = pty.openpty()
        p = subprocess.Popen([POD, "runs", "rm", run.id], env=pod.env, cwd=workspace, stdin=theirs,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        os.write(ours, f"{answer}\n".encode())
        out, err = p.communicate(timeout=60)
        os.close(ours), os.close(theirs)
        assert "[y/N]" in err and run.id in err
        assert p.returncode == code and run.path.exists() is there, err
    run = ended_run(workspace)
    assert "removed 1 run" in pod("runs", "rm", run.id, "--yes").stdout


def test_a_removal_that_was_killed_is_finished_by_the_next(workspace):
    left, run = ended_run(workspace), ended_run(workspace)
    left.path.rename(left.path.with_name(f".{left.id}.removed"))  # killed right after this
    assert [r["id"] for r in run_rows()] == [run.id]
    remove(run)
    assert list((workspace / "runs").iterdir()) == []


def test_a_list_while_others_remove_and_make_runs(workspace):
    code = """
        import sys; sys.path.insert(0, sys.argv[1])
        from pathlib import Path
        from test_runs import ended_run, remove
        for _ in range(40): remove(ended_run(Path(sys.argv[2])))
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(Path(__file__).parent), str(workspace)]
    busy = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    stays = ended_run(workspace)
    while any(p.poll() is None for p in busy):
        assert stays.id in [r["id"] for r in run_rows()]
    assert [p.returncode for p in busy] == [0, 0], [p.stderr.read() for p in busy]
    for p in busy:
        p.stderr.close()
    assert list(runs().index) == [stays.id]
    assert not litter(workspace)


# ---- tags


def test_many_tag_a_run_at_once(pod, workspace):
    run = ended_run(workspace)
    names = [f"tag{i}" for i in range(6)]
    taggers = [pod.start("runs", "tag", run.id, name) for name in names]
    ends = [p.communicate(timeout=60) for p in taggers]
    assert [p.returncode for p in taggers] == [0] * 6, ends
    assert sorted(run.tags) == names
    (run.path / "tags.jsonl").open("a").write('{"t": 1, "kind": "tag", "na')  # one that was killed in mid-line
    run.tag("last")
    assert set(run.tags) == {*names, "last"}


def test_a_run_that_goes_on_can_be_tagged(pod):
    p, run = pod.training(*FIT, "--epochs", 2000, "--loggers", "none")
    assert pod.json("runs", "tag", run.id, "promising")["tags"] == ["promising"]
    assert pod.json("runs", "ls", "--tag", "promising", "--status", "running")[0]["id"] == run.id
    at = event(run, "progress")["done"]
    wait_for(lambda: event(run, "progress")["done"] > at, 60, "its going on")
    run.stop()
    p.communicate(timeout=60)
    assert load_run(run.id).tags == ["promising"]


def test_what_is_stopped_to_be_removed_keeps_nobody_waiting(workspace, monkeypatch):
    monkeypatch.setattr(Run, "grace", 600)
    home = workspace / "runs"
    stubborn, other = (Run.create(home, "fit", "lightning_pod.core.job:stubborn_body", {}) for _ in range(2))
    stubborn.start()
    wait_for(lambda: list(stubborn.newest("metrics")), 60, "its child")
    process = psutil.Process(stubborn.lease.holder())
    family = [*process.children(recursive=True), process]
    with ThreadPoolExecutor(1) as pool:
        removal = pool.submit(remove, stubborn, force=True)
        try:
            wait_for((stubborn.path / "stop").exists, 30, "the request to stop")
            other.tag("meanwhile")
            assert removal.running() and stubborn.path.exists()
        finally:
            for p in family:
                p.kill()
        assert removal.result(60)["removed"] == [stubborn.id] and not stubborn.path.exists()
    assert Run(other.path).tags == ["meanwhile"]
