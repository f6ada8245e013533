"""Jobs as real processes: killed, asked to end by every way there is, started twice, read while they write."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
from conftest import alive, event, fill, litter, wait_for

from lightning_pod.core.config import PodError
from lightning_pod.core.config import workspace as the_workspace
from lightning_pod.core.index import job_rows
from lightning_pod.core.job import EventReader, Job, find_job, jobs

COUNT = "lightning_pod.core.job:count_body"


def create(body: str, where=None, **config) -> Job:
    return Job.create(where or the_workspace().jobs, "test", body, config)


def running(job: Job) -> Job:
    """`job`, started, as soon as its body has reported something."""
    job.start()
    wait_for(lambda: event(job, "metrics"), what="the first event")
    return job


def pid_of(job: Job) -> int:
    return job.info["pid"]


def processes_of(job: Job) -> list:
    return [p for p in psutil.process_iter(["cmdline"]) if str(job.path) in (p.info["cmdline"] or [])]


def assert_whole(job: Job):
    """Every line of the events is JSON, and nothing half-written lies about."""
    for line in (job.path / "events.jsonl").read_text().splitlines():
        json.loads(line)
    assert not litter(job.path)


# ---- ends nobody asked for


def test_a_killed_job_reads_died(workspace):
    job = running(create(COUNT, n=10_000, pause=0.05))
    os.kill(pid_of(job), signal.SIGKILL)
    wait_for(lambda: job.status == "died", 10, "the status 'died'")
    assert "killed" in job.info["message"]


@pytest.mark.parametrize("how", ["fork", "multiprocessing"])
def test_a_surviving_child_does_not_keep_a_killed_job_alive(workspace, how):
    job = running(create("bodies:forking_body", how=how))
    child = event(job, "metrics")["child"]
    os.kill(pid_of(job), signal.SIGKILL)
    wait_for(lambda: job.status == "died", 10, "the status 'died'")
    assert alive(child)
    job.resume()  # nor does it keep the lock
    wait_for(lambda: job.status == "running", what="the second attempt")
    assert job.stop(grace=0.5) == "stopped"


def test_a_job_killed_before_it_got_going_reads_died(workspace):
    job = create(COUNT, n=10_000, pause=0.05).start()
    os.kill(json.loads((job.path / "spawned.json").read_text())["pid"], signal.SIGKILL)
    wait_for(lambda: job.status == "died", 10, "the status 'died'")


def test_resume_after_died_goes_on(workspace):
    job = create("bodies:dying_body").start()
    assert job.wait(30) == "died"
    assert job.resume().wait(30) == "done"
    assert [e["step"] for e in job.events() if e["kind"] == "metrics"] == [1, 2, 3, 4, 5, 6]
    assert job.info["attempt"] == 2


def test_a_stump_of_an_event_is_no_event(workspace):
    job = create("bodies:dying_body").start()
    job.wait(30)
    with open(job.path / "events.jsonl", "a") as f:
        f.write('{"kind": "metrics", "st')
    reader = EventReader(job.path / "events.jsonl")
    assert [e["step"] for e in reader.read() if e["kind"] == "metrics"] == [1, 2, 3]
    assert job.resume().wait(30) == "done"
    assert [e["step"] for e in reader.read() if e["kind"] == "metrics"] == [4, 5, 6]
    assert_whole(job)


def test_an_error_in_the_body_is_told(workspace):
    job = create("bodies:failing_body").start()
    assert job.wait(30) == "failed"
    assert job.info["message"] == "RuntimeError: the body failed"
    assert "Traceback" in job.log()
    assert job.resume().wait(30) == "failed" and job.info["attempt"] == 2


# ---- started twice


START = """
import sys
from lightning_pod.core.config import PodError
from lightning_pod.core.job import Job
print("ready", flush=True)
sys.stdin.readline()
try: print(Job(sys.argv[1]).start().wait(60))
except PodError as e: print(e)
"""


@pytest.mark.parametrize("pause", [0, 0.3])
def test_of_two_processes_that_start_a_job_one_runs_it(workspace, pause):
    for _ in range(5):
        job = create("bodies:once_body", pause=pause)
        command = [sys.executable, "-c", START, job.path]
        rivals = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
        for p in rivals:
            assert p.stdout.readline() == "ready\n"
        for p in rivals:
            p.stdin.write("go\n"), p.stdin.flush()
        told = [p.communicate(timeout=60)[0].strip() for p in rivals]
        wait_for(lambda job=job: not processes_of(job), 20, "all processes of the Job to end")
        assert len((job.path / "ran.txt").read_text().split()) == 1, told
        assert job.status == "done" and job.info["attempt"] == 1, told


def test_what_runs_or_is_done_is_not_started(workspace):
    job = running(create(COUNT, n=10_000, pause=0.05))
    for verb in (job.start, job.resume):
        with pytest.raises(PodError, match="is running already"):
            verb()
    with pytest.raises(PodError, match="running already"):
        Job(job.path).run()
    assert job.stop() == "stopped"
    done = create(COUNT, n=1).start()
    assert done.wait(30) == "done"
    with pytest.raises(PodError, match="is done"):
        done.resume()


def test_a_job_whose_maker_was_killed_before_it_was_started_is_started_by_resume(workspace, pod):
    code = """
        import os, signal
        from lightning_pod.core.config import workspace
        from lightning_pod.core.job import Job
        job = Job.create(workspace().jobs, "count", "lightning_pod.core.job:count_body", {"n": 3})
        print(job.id, job.status, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    p = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True)
    id, status = p.stdout.split()
    job = find_job(id)
    assert status == "created" and job.status == "died" and "before it was started" in job.info["message"]
    assert pod.json("resume", id)["status"] == "done" and job.info["result"] == {"counted": 3}
    waiting = create(COUNT, n=1)  # its maker lives, and may start it; so may everybody else
    assert waiting.status == "created" and waiting.resume().wait(30) == "done"


def test_what_a_killed_making_left_is_taken_away(workspace):
    home = the_workspace().jobs
    code = """
        import os, signal, sys
        from pathlib import Path
        from lightning_pod.core import job
        job.write_json = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
        job.Job.create(Path(sys.argv[1]), "count", "lightning_pod.core.job:count_body", {"n": 3})
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code), home])
    (draft,) = home.iterdir()
    assert draft.name.endswith(".draft") and jobs() == []
    create(COUNT, n=1)
    assert draft.exists()  # somebody may be at it
    os.utime(draft, (1, 1))
    pod_like = [sys.executable, "-c", "from test_job import *; create(COUNT, n=1)"]
    subprocess.run(pod_like, check=True)
    assert not litter(home) and len(jobs()) == 2


# ---- read while it is written


def test_readers_never_see_half_a_file(workspace):
    job = running(create("bodies:fast_body"))

    def read(_):
        status = json.loads((job.path / "status.json").read_text())
        events = EventReader(job.path / "events.jsonl").read()
        assert status["state"] == "running" == job.status
        steps = [e["step"] for e in events if e["kind"] == "metrics"]
        assert steps == list(range(1, len(steps) + 1))
        return len(steps)

    with ThreadPoolExecutor(8) as pool:
        seen = list(pool.map(read, range(200)))
    assert max(seen) > min(seen), "nothing was written meanwhile"
    assert job.stop() == "stopped"
    assert_whole(job)


# ---- asked to end


def test_stop_ends_at_a_good_moment_and_resume_goes_on(workspace):
    job = running(create(COUNT, n=40, pause=0.05))
    assert job.stop() == "stopped"
    first = event(job, "metrics")["step"]
    assert 1 <= first < 40
    assert job.resume().wait(30) == "done"
    assert [e["step"] for e in job.events() if e["kind"] == "metrics"] == list(range(1, 41))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_its_process_stops_a_job(workspace, number):
    job = running(create(COUNT, n=10_000, pause=0.05))
    pid = pid_of(job)
    os.kill(pid, number)
    assert job.wait(10) == "stopped"
    wait_for(lambda: not alive(pid), what="the process to end")


def test_a_stubborn_job_is_killed_with_all_its_processes(workspace):
    job = running(create("bodies:stubborn_body"))
    metrics = event(job, "metrics")
    pids = [pid_of(job), metrics["child"], metrics["grandchild"]]
    assert all(map(alive, pids))
    assert job.stop(grace=1) == "stopped"
    assert "killed" in job.info["message"]
    wait_for(lambda: not any(map(alive, pids)), 10, "the whole tree to end")


def test_stop_before_start(workspace):
    job = create(COUNT, n=3)
    assert job.stop() == "stopped"
    assert job.stop() == "stopped"
    assert job.resume().wait(30) == "done"


def test_stop_while_starting(workspace):
    job = create(COUNT, n=10_000, pause=0.05).start()
    assert job.stop() == "stopped"


@pytest.mark.parametrize("wait", [False, True])
def test_the_end_of_a_job_ends_what_it_started(workspace, wait):
    job = create("bodies:parent_body", wait=wait).start()
    child = find_job(wait_for(lambda: event(job, "child"), what="the child")["id"])
    if wait:
        wait_for(lambda: child.status == "running", what="the child to run")
        job.stop()
    assert job.wait(30) == ("stopped" if wait else "done")
    assert child.wait(10) == "stopped"
    assert job.id in child.info["message"]


def test_a_detached_job_leaves_what_it_started(workspace):
    job = create("bodies:parent_body", detach=True).start()
    assert job.wait(30) == "done"
    child = find_job(event(job, "child")["id"])
    assert child.status == "running"
    assert child.stop() == "stopped"


# ---- a disk that is full


def test_no_half_job_on_a_full_disk(workspace, small_disk):
    disk = small_disk(64)
    fill(disk)
    with pytest.raises(PodError, match="disk is full"):
        create(COUNT, where=disk / "jobs", n=1)
    assert not list(disk.glob("jobs/*")) and not litter(disk)


def test_a_disk_that_fills_up_fails_the_job_in_words(workspace, small_disk):
    disk = small_disk(1024)
    (disk / "jobs").mkdir()
    job = create("bodies:full_body", where=disk / "jobs").start()
    job.wait(60)
    assert job.status in ("failed", "died")  # the status itself may not fit
    assert "Traceback" not in job.log()
    assert_whole(job)
    (disk / "filler").unlink(missing_ok=True)


def test_jobs_are_listed_newest_first_and_their_ids_told_apart(workspace):
    made = [create(COUNT, n=1) for _ in range(20)]  # many in a second
    assert [j.id for j in jobs()] == [j.id for j in reversed(made)]
    assert find_job("last").id == made[-1].id
    assert find_job(made[0].id[-4:]).id == made[0].id
    with pytest.raises(PodError, match="could be any of"):
        find_job(made[0].id[:8])


# ---- a folder that several machines share


def beaten(job: Job, seconds: float):
    """The lock as another machine touched it so many seconds ago."""
    (job.path / "lock").touch()
    os.utime(job.path / "lock", (time.time() - seconds,) * 2)


def test_a_job_of_another_machine_is_judged_by_its_newest_heartbeat_each_time(workspace):
    ws = the_workspace()
    job = Job.create(ws.jobs, "count", "lightning_pod.core.job:count_body", {"n": 1})
    job._write(state="running", host="another")

    def said() -> set[str]:
        return {job.status, job_rows(ws)[0]["status"], *(j.status for j in jobs(ws))}

    beaten(job, 300)
    assert said() == {"died"}
    beaten(job, 0)  # its network was away for a while; nothing else in the folder has changed
    assert said() == {"running"}
    beaten(job, 45)  # NFS may show a time that was a minute ago
    assert said() == {"running"}
    with pytest.raises(PodError, match="runs on another: kill it there"):
        job.kill()
    assert "died" not in (job.path / "status.json").read_text()
    job._write(host=None)  # of this machine, where the lock tells at once
    beaten(job, 0)
    assert said() == {"died"}


def test_a_job_that_is_being_started_on_another_machine_has_time_to_load(workspace):
    job = Job.create(the_workspace().jobs, "count", "lightning_pod.core.job:count_body", {"n": 1})
    status = job.path / "status.json"
    for age, state in ((30, "starting"), (300, "died")):
        status.write_text(json.dumps(json.loads(status.read_text()) | {
            "state": "starting", "host": "another", "changed": time.time() - age}))
        assert job.status == state == job_rows(the_workspace())[0]["status"]
