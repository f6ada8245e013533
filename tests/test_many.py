"""What many Jobs cost, in files that are opened and bytes that are read: never a clock."""

import os
import sys

import pytest
from test_damaged import ended

from lightning_pod import cli
from lightning_pod.core.config import workspace as the_workspace
from lightning_pod.core.index import Newest, Watch, job_rows
from lightning_pod.core.job import Job, jobs
from lightning_pod.panels.infer import InferPanel
from lightning_pod.panels.train import TrainPanel
from lightning_pod.panels.tune import TunePanel
from lightning_pod.train.runs import Run, run_rows

MANY = 60
seen = None  # paths that were opened or listed since `watched` began


def hook(name: str, args: tuple):
    if seen is not None and name in ("open", "os.listdir", "os.scandir") and isinstance(args[0], (str, os.PathLike)):
        seen.append(os.fspath(args[0]))


sys.addaudithook(hook)


def watched(f, *args) -> list[str]:
    """What `f` opens or lists."""
    global seen
    seen = []
    try:
        f(*args)
        return seen
    finally:
        seen = None


@pytest.fixture
def many(workspace):
    """Ended runs and studies."""
    ws = the_workspace()
    runs = [ended(ws.runs) for _ in range(MANY)]
    others = [ended(ws.jobs, "push", {}) for _ in range(MANY)]
    return ws, runs, others


def inside(paths: list[str], jobs: list[Job]) -> list[str]:
    return [p for p in paths if any(p.startswith(f"{j.path}{os.sep}") for j in jobs)]


def test_a_second_list_opens_nothing_in_folders_that_did_not_change(many):
    ws, runs, others = many
    for rows in (run_rows, job_rows):
        assert len(inside(watched(rows), runs)) >= 2 * MANY  # it looks where it should
        assert inside(watched(rows), runs + others) == []
    runs[3].path.joinpath("tags.jsonl").write_text('{"kind": "tag", "names": ["new"]}\n')
    opened = inside(watched(run_rows), runs + others)
    assert opened and inside(opened, [runs[3]]) == opened
    assert [r["id"] for r in run_rows() if r["tags"] == ["new"]] == [runs[3].id]


def test_an_idle_page_lists_nothing(many):
    ws, runs, others = many
    panels = [TrainPanel(watch=False), TunePanel(watch=False), InferPanel(watch=False)]
    ticks = [panels[0].tick, panels[1].tick, panels[2].refresh]
    for home in (ws.runs, ws.jobs):
        os.utime(home, (1, 1))  # as if nothing had happened for long
    for tick in ticks:
        tick()
    for tick in ticks:
        opened = watched(tick)
        assert not {str(ws.runs), str(ws.jobs)} & set(opened)
        assert inside(opened, others) == [] and len({os.path.dirname(p) for p in inside(opened, runs)}) <= 1
    new = ended(ws.runs)
    panels[0].tick()
    assert new.id in [id for _, id in panels[0].choice.options]
    for panel in panels:
        panel.close()


def test_a_change_of_state_is_seen_by_a_watch(many):
    ws, runs, others = many
    watch, newest = Watch(ws.runs), Newest(ws.runs, most=5, view=Run)
    os.utime(ws.runs, (1, 1))
    assert watch.changed() and newest.look() and not watch.changed() and not newest.look()
    runs[0]._write(state="stopped")
    assert watch.changed() and newest.look() and len(newest.jobs) == 5
    others[0]._write(state="stopped")
    os.utime(ws.runs, (1, 1))
    watch.changed()
    assert not watch.changed()  # another home's


def test_the_ends_of_large_files_are_read_from_the_end(many, monkeypatch, capfd):
    ws, (run, *_), _ = many
    with open(run.path / "events.jsonl", "r+b") as f:
        f.truncate(3 << 30)  # a hole, that no memory would hold
        f.seek(0, 2)
        f.write(b'\n{"t": 1, "kind": "progress", "done": 3, "total": 4}\n{"t": 1, "kind": "environment", "cores": 2}\n')
    with open(run.path / "log.txt", "r+b") as f:
        f.truncate(3 << 30)
        f.seek(0, 2)
        f.write(b"\nlast but one\nthe last\n")
    read, real = [], os.pread

    def counted(*args):
        read.append(args[1])
        return real(*args)

    monkeypatch.setattr(os, "pread", counted)
    assert Run(run.path).environment == {"cores": 2}
    row = next(r for r in job_rows() if r["id"] == run.id)
    assert row["progress"] == {"done": 3, "total": 4, "left_s": None}
    assert cli.main(["logs", run.id, "--last", "2"]) == 0
    assert capfd.readouterr().out == "last but one\nthe last\n"
    assert run.log(9) == "the last\n" and sum(read) < 1 << 20


def test_a_job_is_found_by_its_name_without_opening_others(many):
    from lightning_pod.core.job import find_job

    ws, runs, others = many
    assert inside(watched(find_job, runs[7].id[-4:]), runs[:7] + runs[8:] + others) == []
    assert inside(watched(find_job, "last"), runs + others[:-1]) == []
    assert len(jobs()) == 2 * MANY
