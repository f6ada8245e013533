"""What lies among runs and other Jobs and is damaged: lists show it, with the reason, and it can be removed."""

import json
import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from lightning_pod import cli
from lightning_pod.core.config import PodError, read_json, read_yaml
from lightning_pod.core.config import workspace as the_workspace
from lightning_pod.core.index import job_rows
from lightning_pod.core.job import STATES, EventReader, Job, JobView, find_job, newest_events
from lightning_pod.train.progress import History
from lightning_pod.train.runs import Run, choose_rows, run_rows, tags_of
from lightning_pod.train.runs import runs as runs_frame
from lightning_pod.train.settings import FitConfig
from lightning_pod.train.tune import Study

NOBODY = 65534


def ended(home: Path, kind: str = "fit", config: dict | None = None) -> Job:
    """A Job as a training leaves it, with a line in each of its files."""
    job = Job.create(home, kind, "nowhere:nothing", FitConfig(loggers="none").to_dict() if config is None else config)
    system = {"peak_memory_mb": 1.0}
    job._write(state="done", result={"metrics": {"test_acc": 0.9}, "seconds": 1.0, "best_epoch": 1, "system": system})
    (job.path / "events.jsonl").write_text('{"t": 1, "kind": "metrics", "epoch": 1, "step": 5, "valid_acc": 0.9}\n')
    (job.path / "tags.jsonl").write_text('{"t": 1, "kind": "tag", "names": ["good"]}\n')
    (job.path / "splits.json").write_text('{"digest": "0123456789abcdef"}')
    (job.path / "log.txt").write_text("what it printed\n")
    return job


def status(job: Job, **changes):
    """Write a `status.json` of any kind of values."""
    file = job.path / "status.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def becomes(text: bytes, name: str):
    return lambda job: (job.path / name).write_bytes(text)


def a_folder(name: str):
    def change(job):
        (job.path / name).unlink()
        (job.path / name).mkdir()

    return change


def a_pipe(name: str):
    def change(job):
        (job.path / name).unlink()
        os.mkfifo(job.path / name)

    return change


def instead(make):
    """Something else stands where the folder was."""

    def change(job):
        shutil.rmtree(job.path)
        make(job.path)

    return change


def longer(name: str, text: bytes):
    def change(job):
        with open(job.path / name, "ab") as f:
            f.write(text)

    return change


BOMB = b"a: &a [x, x]\n" + b"".join(b"%c: &%c [*%c, *%c]\n" % (c + 1, c + 1, c, c) for c in range(97, 121))
WHOLE = {  # so damaged that it is no Job any more
    "a status cut short": becomes(b'{"kind": "fit", "sta', "status.json"),
    "a status of zeros": becomes(b"\0" * 4096, "status.json"),
    "an empty status": becomes(b"", "status.json"),
    "a status that is a list": becomes(b"[]", "status.json"),
    "a status that is a folder": a_folder("status.json"),
    "a status that is a pipe": a_pipe("status.json"),
    "a status nested too deeply": becomes(b"[" * 100_000, "status.json"),
    "no status": lambda job: (job.path / "status.json").unlink(),
    "an unknown state": lambda job: status(job, state="finished"),
    "a state of another type": lambda job: status(job, state=3),
    "a kind of another type": lambda job: status(job, kind=["fit"]),
    "a time that is none": lambda job: status(job, created="yesterday"),
    "an endless time": lambda job: status(job, created=1e300),
    "an attempt that is none": lambda job: status(job, attempt={}),
    "a result that is a list": lambda job: status(job, result=[1]),
    "no config": lambda job: (job.path / "config.yaml").unlink(),
    "a config that is no YAML": becomes(b"data: [", "config.yaml"),
    "a config that is a list": becomes(b"- data", "config.yaml"),
    "a config of zeros": becomes(b"\0" * 100, "config.yaml"),
    "a config with aliases": becomes(BOMB, "config.yaml"),
    "a config that is a folder": a_folder("config.yaml"),
    "a file": instead(lambda path: path.write_text("notes")),
    "an empty file": instead(lambda path: path.touch()),
    "a folder of another program": instead(lambda path: shutil.copytree(Path(__file__).parent / "scripts", path)),
    "an empty folder": instead(lambda path: path.mkdir()),
    "a link to nothing": instead(lambda path: path.symlink_to("nowhere")),
    "a link to itself": instead(lambda path: path.symlink_to(path.name)),
}
OF_A_RUN = {
    "metrics that are a list": lambda job: status(job, result={"metrics": [1]}),
    "a metric that is a text": lambda job: status(job, result={"metrics": {"test_acc": "good"}}),
    "epochs that are none": becomes(b"epochs: many", "config.yaml"),
    "data that are a list": becomes(b"data: [1, 2]", "config.yaml"),
}
IN_PART = {  # still a run, but something of it is lost
    "a block of zeros in the events": longer("events.jsonl", b"\0" * 9999 + b"\n"),
    "events that are a folder": a_folder("events.jsonl"),
    "an event that is a list": longer("events.jsonl", b"[]\n"),
    "a tag line that is no JSON": longer("tags.jsonl", b"good\n"),
    "a tag line without names": longer("tags.jsonl", b'{"kind": "tag"}\n'),
    "tags that are a folder": a_folder("tags.jsonl"),
    "splits that are a pipe": a_pipe("splits.json"),
}


def call(capfd, *argv: str) -> tuple[int, str, str]:
    """`pod …` in this process: its exit code, and what it printed. No traceback comes through."""
    code = cli.main([str(a) for a in argv])
    out, err = capfd.readouterr()
    assert "Traceback" not in err
    return code, out, err


def answer(capfd, *argv: str):
    code, out, err = call(capfd, *argv, "--json")
    assert code == 0, err
    return json.loads(out.splitlines()[-1])


@pytest.mark.parametrize("what", [*WHOLE, *OF_A_RUN])
def test_a_damaged_run_is_listed_with_the_reason_and_removed(workspace, capfd, what):
    good, bad = ended(workspace / "runs"), ended(workspace / "runs")
    answer(capfd, "runs", "ls")  # as it was, it is in the index
    (WHOLE | OF_A_RUN)[what](bad)
    rows = {r["id"]: r for r in answer(capfd, "runs", "ls")}
    assert rows[bad.id]["status"] == "damaged" and rows[bad.id]["message"] and rows[good.id]["status"] == "done"
    lists = [("runs",), ("runs", "ls", "--sort", "test_acc"), ("runs", "ls", "--status", "damaged")]
    for verb in lists + [("ps", "--all")] * (what in WHOLE):
        code, out, _ = call(capfd, *verb)
        assert code == 0 and bad.id in out and "damaged" in out, out
    verbs = [("runs", "show"), ("runs", "compare", good.id), ("runs", "tag"), ("logs",), ("stop",), ("resume",)]
    for verb in [*verbs, ("predict",)]:
        code, out, err = call(capfd, *verb, bad.id, *(["x"] if verb[-1] in ("tag", "predict") else []))
        assert code in (0, 2) and "damaged" in out + err or what in OF_A_RUN, (verb, out, err)
    call(capfd, "runs", "reindex")
    assert len(runs_frame()) == 2
    assert answer(capfd, "runs", "rm", bad.id)["removed"] == [bad.id]
    assert [p.name for p in (workspace / "runs").iterdir()] == [good.id]


@pytest.mark.parametrize("what", IN_PART)
def test_a_run_that_is_damaged_in_part_is_a_run_and_says_so(workspace, capfd, what):
    good, bad = ended(workspace / "runs"), ended(workspace / "runs")
    answer(capfd, "runs", "ls")
    IN_PART[what](bad)
    rows = {r["id"]: r for r in answer(capfd, "runs", "ls")}
    assert rows[bad.id]["status"] == "done" and rows[bad.id]["damage"] and not rows[good.id]["damage"]
    assert rows[bad.id]["metrics"] == {"test_acc": 0.9}
    code, out, _ = call(capfd, "runs")
    assert code == 0 and sum("damaged" in line for line in out.splitlines()) == 1
    for verb in (("runs", "show"), ("runs", "compare", good.id), ("logs",), ("runs", "tag")):
        code, out, err = call(capfd, *verb, bad.id, *(["x"] if verb[-1] == "tag" else []))
        assert code in (0, 2), (verb, out, err)
    assert answer(capfd, "runs", "rm", bad.id)["removed"] == [bad.id]


@pytest.mark.parametrize("kind", ["study", "app", "report"])
def test_a_damaged_job_of_any_kind_is_listed_and_removed(workspace, capfd, kind):
    home = the_workspace().jobs
    config = {"objective": {"valid_acc": "maximize"}, "settings": {}, "file": "app.py"}
    jobs = {what: ended(home, kind, config) for what in WHOLE}
    for what, job in jobs.items():
        WHOLE[what](job)
    (home / os.fsdecode(b"\xff name \n of nobody")).mkdir()
    found = answer(capfd, "ps", "--all")
    assert len(found) == len(WHOLE) + 1 and {r["status"] for r in found} == {"damaged"}
    assert call(capfd, "ps", "--all")[1].count("damaged") >= len(found)
    if kind == "study":
        listed = answer(capfd, "tune", "ls")
        assert {r["status"] for r in listed} == {"damaged"} and jobs["a config that is no YAML"].id in str(listed)
    for id in [r["id"] for r in found]:
        assert answer(capfd, "rm", id, "--yes")["removed"] == [id]
    assert os.listdir(home) == [] and job_rows() == []


def test_a_study_without_its_trials_is_listed_as_damaged(workspace, capfd):
    job = ended(the_workspace().jobs, "study", {"objective": {"valid_acc": "maximize"}, "settings": {}})
    (row,) = answer(capfd, "tune", "ls")
    assert row["status"] == "damaged" and "its trials can't be read" in row["message"]
    assert job.id in call(capfd, "tune", "ls")[1]


@contextmanager
def as_nobody():
    """Meanwhile no file is ours but what was made here."""
    if os.geteuid():
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.parametrize("name", ["", "status.json", "config.yaml", "events.jsonl"])
def test_a_run_that_may_not_be_read_is_listed_and_removed(monkeypatch, capfd, name):
    for argv in (["runs"], ["ps", "--all"], ["runs", "rm", "nothing"]):
        call(capfd, *argv)  # brings in what these need
    folder = Path(tempfile.mkdtemp())
    try:
        folder.chmod(0o777)
        monkeypatch.setenv("POD_WORKSPACE", str(folder))
        monkeypatch.chdir(folder)
        with as_nobody():
            monkeypatch.setenv("POD_KEY_FILE", str(folder / "key"))
            run = ended(folder / "runs")
            (run.path / name).chmod(0)
            (row,) = answer(capfd, "runs", "ls")
            assert "permission denied" in row["damage"]
            assert row["status"] == ("done" if name == "events.jsonl" else "damaged")
            assert call(capfd, "ps", "--all")[0] == 0
            assert answer(capfd, "runs", "rm", run.id)["removed"] == [run.id] and os.listdir(folder / "runs") == []
    finally:
        shutil.rmtree(folder)


def test_what_runs_with_a_damaged_status_is_stopped_before_it_is_removed(workspace):
    job = Job.create(the_workspace().jobs, "count", "lightning_pod.core.job:count_body", {"n": 10_000, "pause": 0.05})
    job.start()
    next(e for e in job.watch(60) if e["kind"] == "metrics")
    (job.path / "status.json").write_bytes(b"{")
    assert job.status == "damaged" and cli.main(["rm", job.id]) == 2 and job.path.exists()
    assert job.stop(grace=20) == "damaged" and job.lease.holder() is None
    assert cli.main(["rm", job.id]) == 0 and not job.path.exists()


# ---- readers and what they are given: nothing but `PodError` comes out

TEXT = st.text(max_size=20)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT | st.sampled_from([*STATES, "fit", "2026"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4), max_leaves=12)
NAMES = st.sampled_from(
    """t kind state title created changed attempt pid host own_process result message maker body parent metrics seconds
    system best_epoch done total left_s step epoch text level names name tracker_id packages git peak_memory_mb
    cpu_percent valid_acc test_acc train_loss data model epochs trainer loggers digest classes matrix spec objective
    settings""".split())
KINDS = st.sampled_from("metrics progress rewind message system environment tracker preparing tag untag state".split())
MAPPINGS = st.dictionaries(NAMES, VALUES, max_size=8)
NEARLY = st.builds(lambda more, state: {"kind": "fit", "state": state, **more}, MAPPINGS, st.sampled_from(STATES))
EVENTS = st.builds(lambda more, kind: {**more, "kind": kind}, MAPPINGS, KINDS)


def as_json(values) -> st.SearchStrategy[bytes]:
    return values.map(lambda v: json.dumps(v).encode())


def as_lines(values) -> st.SearchStrategy[bytes]:
    return st.lists(as_json(values) | st.binary(max_size=30), max_size=6).map(b"\n".join).map(lambda b: b + b"\n")


def as_yaml(values) -> st.SearchStrategy[bytes]:
    odd = [b"a: !!timestamp b", b"!!set {a, b}", b"? [1]\n: 2", b"a: !!python/name:os.system", b"2020-01-01: 1"]
    return as_json(values) | st.sampled_from(odd)


BYTES = st.binary(max_size=60)
LONE = TEXT.map(lambda t: t.encode("utf-8", "surrogatepass"))
FUZZ = settings(max_examples=100, deadline=None, phases=[Phase.generate], derandomize=True,
                suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def folder():
    with tempfile.TemporaryDirectory() as d:
        yield Path(d)


def tried(f, *args):
    """What `f` brings; None where it raises `PodError`. Anything else that it raises fails the test."""
    try:
        return f(*args)
    except PodError as e:
        assert str(e)


@FUZZ
@given(data=st.one_of(BYTES, as_json(VALUES), as_yaml(MAPPINGS), LONE))
def test_fuzz_files_read_whole(folder, data):
    file = folder / "file"
    file.write_bytes(data)
    tried(read_json, file)
    tried(read_json, file, None, dict)
    config = tried(read_yaml, file)
    json.dumps(config, default=str)


@FUZZ
@given(data=st.one_of(BYTES, as_lines(EVENTS), as_lines(VALUES)))
def test_fuzz_events(folder, data):
    file = folder / "events.jsonl"
    file.write_bytes(data)
    reader = EventReader(file)
    history, events = History(), reader.read()
    for e in events:
        history.feed(e)
    assert isinstance(history.line(), str) and isinstance(history.load, dict)
    assert list(newest_events(file)) == events[::-1]
    assert (reader.damage is None) == (reader.passed == 0)
    tags_of(file)
    json.dumps(history.rows)


@FUZZ
@given(status=st.one_of(BYTES, as_json(NEARLY), as_json(MAPPINGS)), lines=as_lines(EVENTS), tags=as_lines(EVENTS),
       config=st.one_of(BYTES, as_yaml(MAPPINGS), st.just(b"epochs: 3")), other=BYTES | as_json(MAPPINGS))
@example(status=b'{"kind": "fit", "state": "damaged"}', lines=b'{"kind": "system"}\n{"kind": "system", "t": 1.5}\n',
         tags=b"", config=b"", other=b"")
def test_fuzz_runs_and_other_jobs(folder, status, config, lines, tags, other):
    home = the_workspace(folder / "w")
    names = {"status.json": status, "config.yaml": config, "events.jsonl": lines, "tags.jsonl": tags,
             **dict.fromkeys(("splits.json", "confusion.json", "spawned.json"), other)}
    for place in (home.runs, home.jobs):
        job = place / "20260101-000000-aaaa"
        job.mkdir(parents=True, exist_ok=True)
        for name, data in names.items():
            (job / name).write_bytes(data)
    for view in (JobView(job), Job(job), Study(job), Run(home.runs / job.name)):
        assert view.status in STATES and repr(view) and (view.damage is None or view.status == "damaged")
        tried(lambda view=view: view.config)
    (row,) = run_rows(home)
    json.dumps(row, default=str)
    choose_rows([row], sort="created") if row["created"] else None
    cli._table([{"what": cli._what(row)}], "").encode("utf-8")
    assert len(job_rows(home)) == 2 and len(runs_frame(home)) == 1
    run = Run(home.runs / job.name)
    for read in ("history", "metrics", "system", "environment", "tags", "seconds", "confusion", "data_version"):
        tried(lambda read=read: getattr(run, read))
    details = tried(run.details)
    assert details is None or cli._shown(details)


@FUZZ
@given(id=st.text(max_size=300))
def test_fuzz_names_to_be_found(folder, id):
    tried(find_job, id, the_workspace(folder / "none"))
