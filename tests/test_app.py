"""Apps as real processes: started with `pod run`, killed, stopped, gone on with; each point of the contract by name."""

import contextlib
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest
from conftest import alive, fill, litter, wait_for

from lightning_pod.app import Drive, Payload
from lightning_pod.core.config import PodError
from lightning_pod.core.job import Job, jobs

HEAD = """
import os, signal, subprocess, sys, time
from lightning_pod.app import App, CloudCompute, Drive, Flow, Path, Payload, PopenPythonScript, PythonServer, TracerPythonScript, Work
"""
SLEEPER = """
class Sleeper(Work):
    def __init__(self, **kwargs):
        super().__init__(parallel=True, **kwargs)
        self.pid, self.child, self.left = None, None, False
    def run(self, stubborn=False):
        code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN if %r else signal.SIG_DFL); print(flush=True); time.sleep(600)" % stubborn
        child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        child.stdout.readline()
        self.child, self.pid = child.pid, os.getpid()
        try:
            while True: time.sleep(600)
        finally: print("leaving")
    def on_exit(self): print("on_exit of", self.name)
"""


@pytest.fixture
def program(workspace):
    def write(text: str, name: str = "app.py") -> Path:
        (workspace / name).write_text(HEAD + text)
        return workspace / name

    return write


def app_job() -> Job:
    return next(j for j in jobs() if j.info["kind"] == "app")


def work_job(name: str) -> Job:
    return next(j for j in jobs() if j.info["kind"] == "work" and j.config["name"] == name)


def state_of(app: Job) -> dict:
    """What the app's journal says."""
    from lightning_pod.app.flow import Journal

    class Reading(Journal):
        def _rewrite(self): ...

    return Reading(app.path / "state.jsonl").state


def value_of(name: str, component: str):
    with contextlib.suppress(StopIteration):
        return state_of(app_job())["vars"].get(component, {}).get(name)


def started(pod, file, *args) -> subprocess.Popen:
    """`pod run`, in the background, with its sleeper at work."""
    p = pod.start("run", file, *args)
    wait_for(lambda: p.poll() is not None or value_of("pid", "root.w"), 60, "the sleeper")
    assert p.poll() is None, p.communicate()
    return p


def gone(*pids):
    wait_for(lambda: not any(map(alive, pids)), 30, f"the end of {pids}")


# ---- running, exit codes, logs


def test_keep_exit_codes(pod, program):
    end = "class R(Flow):\n    def run(self): self.{}('bye')\napp = App(R())"
    assert "bye" in pod("run", program(end.format("stop"))).stdout
    pod("run", program(end.format("fail")), code=1)
    p = pod("run", program("class R(Flow):\n    def run(self): return 1 / 0\napp = App(R())"), code=1)
    assert "ZeroDivisionError" in p.stdout and "app.py" in p.stdout
    assert app_job().status == "failed"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x = 1", "makes no App: expected one"),
        ("class R(Flow): pass\na, b = App(R()), App(R())", "makes 2 Apps"),
        ("import nothing_like_it", "No module named 'nothing_like_it'"),
        ("def", "SyntaxError"),
    ],
    ids=["none", "two", "import", "syntax"],
)
def test_a_wrong_program_is_told(pod, program, text, words):
    p = pod("run", program(text), "--json", code=None)
    assert p.returncode in (1, 2) and words in p.stdout + p.stderr + app_job().log()


def test_a_program_that_is_not_there_is_told(pod):
    assert pod("run", "nowhere.py", code=2).stderr.startswith("pod run: there is no program")


def test_repair_a_failure_reaches_the_flow_with_the_traceback(pod, program):
    p = pod(
        "run",
        program("""
class Bad(Work):
    def __init__(self, **kwargs):
        super().__init__(parallel=True, **kwargs)
    def run(self): raise ValueError("no good")
class R(Flow):
    def __init__(self):
        super().__init__()
        self.mild, self.hard, self.told = Bad(raise_exception=False), Bad(), False
    def run(self):
        self.mild.run()
        if self.mild.has_failed and not self.told:
            self.told = True
            print("told", self.mild.status.message)
        if self.told: self.hard.run()
app = App(R())
"""),
        code=1,
    )
    assert 'told Traceback' in p.stdout and 'raise ValueError("no good")' in p.stdout and "ValueError: no good" in p.stderr
    work = work_job("root.hard")
    assert work.status == "failed" and "no good" in work.log()


def test_one_work_is_one_job_with_a_log_of_its_own(pod, program):
    pod(
        "run",
        program("""
class Speak(Work):
    def run(self):
        print("one"); print("two", end=""); print(" three"); sys.stderr.write("four")
        os.system("echo raw")
class R(Flow):
    def __init__(self):
        super().__init__()
        self.speak = Speak()
    def run(self):
        self.speak.run(); print("flow's own"); self.stop()
app = App(R())
"""),
    )
    rows = {r["kind"]: r for r in pod.json("ps", "--all")}
    assert rows["app"]["status"] == rows["work"]["status"] == "done" and rows["work"]["what"].startswith(
        "root.speak of "
    )
    work = Job(app_job().path.parent / rows["work"]["id"])
    assert work.info["parent"] == str(app_job().path)
    lines = [line for line in pod("logs", work.id).stdout.splitlines() if line]
    stamp = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d root\.speak: "
    assert [re.sub(stamp, "", line) for line in lines] == ["one", "two three", "fourraw"] or "raw" in lines[-1]
    assert all(re.match(stamp, line) for line in lines[:3])
    assert re.search(r"root: flow's own", pod("logs", app_job().id, "-f").stdout)


def test_keep_the_values_of_a_work_arrive_conflated_and_in_order(pod, program):
    p = pod(
        "run",
        program("""
class Count(Work):
    def __init__(self):
        super().__init__(parallel=True)
        self.n, self.items = 0, []
    def run(self):
        while self.n < 20000: self.n += 1
        self.items.append({"a": 1})
        self.items[0]["b"] = 2
class R(Flow):
    def __init__(self):
        super().__init__()
        self.w, self.seen = Count(), []
    def run(self):
        self.w.run()
        self.seen = [*self.seen, self.w.n]
        if self.w.has_succeeded: print("turns", len(self.seen), self.seen == sorted(self.seen), self.seen[-1], self.w.items); self.stop()
app = App(R())
"""),
    )
    turns, ordered, last, items = re.search(r"turns (\d+) (\w+) (\d+) (.*)", p.stdout).groups()
    assert ordered == "True" and last == "20000" and int(turns) < 2000 and items == "[{'a': 1, 'b': 2}]"


def test_repair_a_change_sends_what_was_changed_and_nothing_else(pod, program):
    p = pod(
        "run",
        program("""
class Large(Work):
    def __init__(self):
        super().__init__()
        self.n, self.items = 0, list(range(20000))
    def run(self):
        runner, sent = self._pod_runner, []
        send = runner._send
        def noted(kind, *rest):
            if kind == "vars": sent.append(set(rest[0]))
            return send(kind, *rest)
        runner._send = noted
        while len(sent) < 5: self.n += 1
        runner._send = send
        self.items.append(1)
        print("sent", set().union(*sent), len(self.items))
app = App(Large())
"""),
    )
    assert "sent {'n'} 20001" in p.stdout


def test_repair_a_value_that_the_flow_sets_reaches_a_running_work(pod, program):
    p = pod(
        "run",
        program("""
class Wait(Work):
    def __init__(self):
        super().__init__(parallel=True)
        self.ready, self.sent, self.got = False, None, None
    def run(self):
        self.ready = True
        while self.sent is None: time.sleep(0.005)
        self.got = self.sent
class R(Flow):
    def __init__(self):
        super().__init__()
        self.w = Wait()
    def run(self):
        self.w.run()
        if self.w.ready and self.w.sent is None: self.w.sent = 42
        if self.w.has_succeeded: print("got", self.w.got); self.stop()
app = App(R())
"""),
    )
    assert "got 42" in p.stdout


# ---- ends of processes

SLEEPING = (
    SLEEPER
    + """
class R(Flow):
    def __init__(self):
        super().__init__()
        self.w = Sleeper(raise_exception=False)
    def run(self):
        self.w.run()
        if self.w.has_failed: print("FAILED", self.w.status.reason, self.w.status.message); self.stop()
        if self.w.has_stopped: print("STOPPED", self.w.status.message); self.stop()
app = App(R())
"""
)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV], ids=lambda s: s.name)
def test_repair_a_work_that_dies_by_a_signal_is_known_with_its_reason(pod, program, number):
    p = started(pod, program(SLEEPING))
    pid, child = value_of("pid", "root.w"), value_of("child", "root.w")
    os.kill(pid, number)
    out, _ = p.communicate(timeout=30)
    reason, message = re.search(r"FAILED (\w+) (.*)", out).groups()
    assert reason == "died" and number.name in message
    gone(pid, child)
    assert work_job("root.w").status in ("died", "stopped")


def test_repair_works_end_when_the_flow_is_killed(pod, program):
    p = started(pod, program(SLEEPING.replace("self.w.run()", "self.w.run(True)")))
    pids = value_of("pid", "root.w"), value_of("child", "root.w")
    p.kill()
    p.wait()
    gone(*pids)
    assert app_job().status == "died"


@pytest.mark.parametrize("how", ["interrupt", "terminate", "pod stop"])
def test_keep_ctrl_c_runs_on_exit_and_ends_the_app(pod, program, how):
    p = started(pod, program(SLEEPING))
    pids = value_of("pid", "root.w"), value_of("child", "root.w")
    if how == "pod stop":
        pod("stop", app_job().id)
    else:
        p.send_signal(signal.SIGINT if how == "interrupt" else signal.SIGTERM)
    assert p.wait(30) == 130
    gone(*pids)
    log = work_job("root.w").log()
    assert "leaving" in log and "on_exit of root.w" in log
    assert app_job().status == work_job("root.w").status == "stopped"


def test_a_work_can_be_stopped_by_itself(pod, program):
    p = started(pod, program(SLEEPING))
    pod("stop", work_job("root.w").id)
    out, _ = p.communicate(timeout=30)
    assert p.returncode == 0 and "STOPPED pod stop" in out


def test_repair_stop_ends_the_whole_tree_and_run_starts_it_again(pod, program):
    p = pod(
        "run",
        program(
            SLEEPER
            + """
class R(Flow):
    def __init__(self):
        super().__init__()
        self.w, self.first = Sleeper(grace=1.0), []
    def run(self):
        if not self.first:
            self.w.run(stubborn=True)
            if self.w.pid:
                self.first = [self.w.pid, self.w.child]
                self.w.stop()
                print("reason", self.w.status.stage, self.w.status.reason)
        else:
            self.w.run(stubborn=True)
            if self.w.pid not in (None, self.first[0]): print("PIDS", *self.first, self.w.pid); self.stop()
app = App(R())
"""
        ),
    )
    first, child, second = re.search(r"PIDS (\d+) (\d+) (\d+)", p.stdout).groups()
    assert "reason stopped pending" in p.stdout and first != second
    gone(int(first), int(child), int(second))


def test_start_is_told_of_warm_and_cold_processes_and_after_a_resume(pod, program):
    file = program("""
class W(Work):
    def run(self): ...
class R(Flow):
    def __init__(self):
        super().__init__()
        self.warm, self.cold, self.waited, self.asked = W(), W(start_with_flow=False), W(), False
    def run(self):
        if not self.asked:
            self.asked = True
            self.warm.start(); self.cold.start()
        if self.waited._pod_process.state == "up": self.waited.start()
        stages = [w.status.stage for w in self.works()]
        print(stages)
        if stages == ["started"] * 3: (self.stop if os.path.exists("again") else self.fail)(f"ALL {stages}")
app = App(R())
""")
    pod("run", file, code=1, timeout=60)
    (file.parent / "again").touch()
    assert "ALL ['started', 'started', 'started']" in pod("run", file, "--resume", timeout=60).stdout


def test_a_killed_call_counts_once_when_it_is_made_again(pod, program):
    file = program("""
class Sum(Work):
    def __init__(self):
        super().__init__(retries=1, backoff=0)
        self.total, self.items, self.at, self.seen = 0, [], "", ""
    def run(self, k):
        self.total += k
        self.items.append(k)
        with open("tries", "a") as f: f.write("x")
        tries = os.path.getsize("tries")
        self.at = f"try {tries}"
        while self.seen != self.at: time.sleep(0.01)  # the Flow has it
        if tries == 1: os.kill(os.getpid(), signal.SIGKILL)
        if tries < 4: time.sleep(600)
        self.total += k
class R(Flow):
    def __init__(self):
        super().__init__()
        self.w = Sum()
    def run(self):
        self.w.seen = self.w.at
        self.w.run(1); self.w.run(2)
        print("TOTAL", self.w.total, self.w.items); self.stop()
app = App(R())
""")
    for end, options in ((signal.SIGKILL, []), (signal.SIGINT, ["--resume"])):
        p = pod.start("run", file, *options)
        at = "try 3" if options else "try 2"
        wait_for(lambda p=p, at=at: p.poll() is not None or value_of("seen", "root.w") == at, 60)
        assert value_of("total", "root.w") == 1, p.communicate()
        p.send_signal(end)
        p.communicate(timeout=60)
    assert "TOTAL 6 [1, 2]" in pod("run", file, "--resume", timeout=60).stdout


def test_repair_a_call_is_made_again_after_its_process_died(pod, program):
    p = pod(
        "run",
        program("""
class Dies(Work):
    def __init__(self):
        super().__init__(retries=2, backoff=0.1)
    def run(self):
        with open("tries", "a") as f: f.write("x")
        if os.path.getsize("tries") < 3: os.kill(os.getpid(), signal.SIGKILL)
class R(Flow):
    def __init__(self):
        super().__init__()
        self.w = Dies()
    def run(self):
        self.w.run()
        print("stages", [(s.stage, s.reason) for s in self.w.statuses]); self.stop()
app = App(R())
"""),
    )
    assert (
        p.stdout.count("('failed', 'died')") == 2
        and "('pending', 'retry')" in p.stdout
        and "('succeeded', None)]" in p.stdout
    )


def test_repair_a_call_that_takes_too_long_is_ended(pod, program):
    p = pod(
        "run",
        program(
            SLEEPER
            + """
class R(Flow):
    def __init__(self):
        super().__init__()
        self.w = Sleeper(raise_exception=False, timeout=0.5)
    def run(self):
        self.w.run()
        if self.w.has_timeout: print("TIMEOUT", self.w.status.message, self.w.pid); self.stop()
app = App(R())
"""
        ),
    )
    assert "ran longer than its timeout of 0.5 s" in p.stdout
    gone(int(re.search(r"0.5 s (\d+)", p.stdout)[1]))


def test_keep_idle_timeout_ends_the_process_until_the_next_call(pod, program):
    p = pod(
        "run",
        program("""
class Pid(Work):
    def __init__(self):
        super().__init__(cloud_compute=CloudCompute(idle_timeout=0.2))
        self.pids = []
    def run(self, n): self.pids.append(os.getpid())
class R(Flow):
    def __init__(self):
        super().__init__()
        self.w, self.n = Pid(), 0
    def run(self):
        self.w.run(self.n)
        if self.every(0.2) and self.w._pod_process.state == "none":
            self.n += 1
            if self.n == 2: print("PIDS", *self.w.pids); self.stop()
app = App(R())
"""),
    )
    a, b = re.search(r"PIDS (\d+) (\d+)", p.stdout).groups()
    assert a != b


@pytest.mark.parametrize("parallel", [False, True])
def test_a_flow_that_changes_state_each_turn_while_a_call_is_pending_does_not_spin(pod, program, parallel):
    p = pod(
        "run",
        program("""
class Wait(Work):
    def run(self): time.sleep(1)
class R(Flow):
    def __init__(self):
        super().__init__()
        self.w, self.n = Wait(parallel=PARALLEL), 0
    def run(self):
        self.n += 1
        self.w.run()
        if self.w.has_succeeded: print("TURNS", self.n); self.stop()
app = App(R())
""".replace("PARALLEL", str(parallel))),
    )
    assert 5 < int(re.search(r"TURNS (\d+)", p.stdout)[1]) < 500  # its own changes still wake it, but not as fast as it can


@pytest.mark.parametrize("one_pipe", [False, True])
def test_output_that_nobody_reads_does_not_block_the_end(pod, program, one_pipe):
    file = program("""
class Loud(Work):
    def run(self): print("w" * 200_000)
class R(Flow):
    def __init__(self):
        super().__init__()
        self.w = Loud()
    def run(self):
        for i in range(200): print("f" * 1000)
        self.w.run()
        print("the end"); self.stop()
app = App(R())
""")
    command = [pod.command, "run", file]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT if one_pipe else subprocess.DEVNULL}
    p = subprocess.Popen(command, env=pod.env, stdin=subprocess.DEVNULL, text=True, **streams)
    assert p.wait(30) == 0
    assert app_job().status == "done" and app_job().log().endswith("root: the end\n")
    out, _ = p.communicate()
    assert 4096 <= len(out) < 600_000  # what the pipe took


def test_all_output_is_shown_to_a_slow_reader(pod, program):
    p = pod.start("run", program("""
class R(Flow):
    def run(self):
        for i in range(300): print(i, "f" * 1000)
        self.stop()
app = App(R())
"""))
    last = f"root: 299 {'f' * 1000}\n"
    wait_for(lambda: any(j.log().endswith(last) for j in jobs()), 30, "the app's last line")
    lines = []
    while line := p.stdout.readline():
        lines.append(line)
        time.sleep(0.002)
    assert p.wait(10) == 0 and lines == [f"{i} {'f' * 1000}\n" for i in range(300)]


def test_keep_the_cores_of_a_work_are_the_threads_of_its_process(pod, program):
    pod.changes["OMP_NUM_THREADS"] = None
    p = pod(
        "run",
        program("""
class Threads(Work):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.seen = None
    def run(self):
        import torch
        self.seen = [os.environ.get("OMP_NUM_THREADS"), torch.get_num_threads()]
class R(Flow):
    def __init__(self):
        super().__init__()
        self.one, self.any = Threads(cloud_compute=CloudCompute(cpu=1)), Threads()
    def run(self):
        self.one.run(); self.any.run(); print("SEEN", self.one.seen, self.any.seen); self.stop()
app = App(R())
"""),
    )
    default = subprocess.run(
        [sys.executable, "-c", "import torch; print(torch.get_num_threads())"],
        env=pod.env,
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"SEEN ['1', 1] [None, {int(default.stdout)}]" in p.stdout


# ---- going on

RESUMABLE = """
class Step(Work):
    def run(self, name):
        with open("steps.txt", "a") as f: f.write(name + "\\n")
        if name == "b":
            while not os.path.exists("go"): time.sleep(0.02)
class R(Flow):
    def __init__(self):
        super().__init__()
        self.step, self.seen, self.data, self.made = Step(), 0, {"k": [1]}, False
    def run(self):
        if not self.made:
            self.late, self.made = Step(parallel=True), True
        if self.late.has_succeeded: open("told", "w").close()
        self.step.run("a")
        if self.seen == 0:
            self.seen = 5
            self.data["k"].append(2)
            self.late.run("late")
        self.step.run("b")
        self.step.run("c")
        if self.late.has_succeeded: print("DONE", self.seen, self.data, self.late.name); self.stop()
app = App(R())
"""


def test_repair_resume_goes_on_where_a_killed_app_was(pod, program, workspace):
    file = program(RESUMABLE)
    p = pod.start("run", file)
    steps = workspace / "steps.txt"
    written = lambda: sorted(steps.read_text().split()) if steps.exists() else []  # noqa: E731
    wait_for(lambda: (workspace / "told").exists() and written() == ["a", "b", "late"], 60, "the second step")
    p.kill()
    p.wait()
    wait_for(lambda: work_job("root.step").ended, 10)
    (workspace / "go").touch()
    out = pod("run", file, "--resume").stdout
    assert "DONE 5 {'k': [1, 2]} root.late" in out
    done = steps.read_text().split()
    assert (done.count("a"), done.count("late"), done[-1], done.count("b")) == (1, 1, "c", 2)
    assert app_job().info["attempt"] == 2 and len([j for j in jobs() if j.info["kind"] == "app"]) == 1
    assert "nothing to go on with" in pod("run", file, "--resume", code=2).stderr


def test_repair_what_a_flow_has_seen_succeed_is_not_made_again(pod, program, workspace):
    file = program("""
class Busy(Work):
    def __init__(self):
        super().__init__(parallel=True)
        self.n = 0
    def run(self):
        while not os.path.exists("killed"): self.n += 1
class Step(Work):
    def run(self, name):
        with open("steps.txt", "a") as f: f.write(name + "\\n")
class R(Flow):
    def __init__(self):
        super().__init__()
        self.busy, self.step, self.other = Busy(), Step(parallel=True), Step(parallel=True)
    def run(self):
        self.busy.run()
        if self.busy.n == 0 and not os.path.exists("killed"): return  # from here on there are always messages
        self.step.run("one")
        if self.step.has_succeeded and not os.path.exists("killed"):
            open("killed", "w").close()
            os.kill(os.getpid(), signal.SIGKILL)  # in the very turn that sees it
        if self.step.has_succeeded: self.other.run("two")
        if self.other.has_succeeded: print("DONE"); self.stop()
app = App(R())
""")
    assert pod("run", file, code=None).returncode == -signal.SIGKILL
    assert "DONE" in pod("run", file, "--resume").stdout
    assert (workspace / "steps.txt").read_text().split() == ["one", "two"]


def test_pod_resume_and_restart_of_an_app_and_a_work(pod, program, workspace):
    file = program(RESUMABLE)
    pod("run", file, "--detach")
    wait_for(lambda: (workspace / "steps.txt").exists() and "b" in (workspace / "steps.txt").read_text(), 60)
    work = work_job("root.step")
    first = work.info["pid"]
    pod("restart", work.id)
    wait_for(lambda: (workspace / "steps.txt").read_text().split().count("b") == 2, 30, "the call to be made again")
    assert work.info["pid"] != first and work.info["attempt"] == 2
    pod("restart", app_job().id)
    wait_for(lambda: (workspace / "steps.txt").read_text().split().count("b") == 3, 30, "the app to go on")
    (workspace / "go").touch()
    assert app_job().wait(30) == "done"
    assert (workspace / "steps.txt").read_text().split().count("a") == 1
    assert "is a" in pod("restart", work.id, code=2).stderr or "isn't running" in pod("restart", work.id, code=2).stderr


# ---- why


def test_pod_why_names_the_argument_and_the_line(pod, program, workspace):
    (workspace / "train.py").write_text("import sys\nlr = 0.1\nprint(lr, sys.argv)\n")
    file = program("""
class R(Flow):
    def __init__(self):
        super().__init__()
        self.t, self.rounds = TracerPythonScript("train.py", input_files=["data.csv"], cache_calls=True), 0
    def run(self):
        self.t.run(params={"x": 1})
        if self.rounds == 0:
            self.rounds = 1
            open("train.py", "a").write("print('edited')\\n")
        self.t.run(params={"x": 1})
        if self.rounds == 1:
            self.rounds = 2
            open("data.csv", "w").write("changed")
        self.t.run(params={"x": 1})
        if self.rounds == 2: self.rounds = 3
        self.t.run(params={"x": 2})
        self.stop()
app = App(R())
""")
    (workspace / "data.csv").write_text("1")
    pod("run", file)
    app = app_job()
    notes = [json.loads(line) for line in (app.path / "why" / "root.t.jsonl").read_text().splitlines()]
    assert len([n for n in notes if not n["hit"]]) == 4
    hit = pod.json("why", f"{app.id}/root.t")
    told = hit["made"]
    assert (
        hit["hit"]
        and "has succeeded" in hit["reason"]
        and not told["hit"]
        and told["differences"] == ["argument params: {'x': 1} → {'x': 2}"]
    )
    from lightning_pod.app.flow import why

    for n, words in (
        (2, "script train.py: line 4: '(nothing)' → \"print('edited')\""),
        (3, "input data.csv: line 1: '1' → 'changed'"),
    ):
        folder = workspace / f"why{n}"
        folder.mkdir()
        for f in (app.path / "why").glob("*.txt"):
            (folder / f.name).write_bytes(f.read_bytes())
        (folder / "root.t.jsonl").write_text("\n".join(map(json.dumps, [x for x in notes if not x["hit"]][:n])) + "\n")
        assert words in why(folder, "root.t")["differences"], why(folder, "root.t")
    assert "say which Work" in pod("why", app.id, code=2).stderr


# ---- files


def test_keep_files_go_from_work_to_work(pod, program):
    p = pod(
        "run",
        program("""
import pandas as pd
class Make(Work):
    def __init__(self):
        super().__init__()
        self.drive, self.path, self.table = Drive("lit://files", root_folder="."), None, None
    def run(self):
        os.makedirs("out", exist_ok=True)
        open("out/a.txt", "w").write("in a drive"); open("b.txt", "w").write("by a path")
        self.drive.put("out"); self.path = Path("b.txt"); self.table = Payload(pd.DataFrame({"x": [1, 2]}))
class Use(Work):
    def __init__(self):
        super().__init__()
        self.drive, self.heard = Drive("lit://files"), []
    def run(self, path, table, drive):
        os.makedirs("elsewhere", exist_ok=True); os.chdir("elsewhere")
        owners = [(str(e), e.owner) for e in self.drive.list("out")]
        os.rename(self.drive.root_folder / "out", self.drive.root_folder / "was")
        self.drive.get("out", timeout=5)
        self.heard = [path.read_text(), path.origin_name, int(table.value["x"].sum()), owners, (self.drive.root_folder / "out/a.txt").read_text(), drive.component_name]
class R(Flow):
    def __init__(self):
        super().__init__()
        self.make, self.use = Make(), Use()
    def run(self):
        self.make.run(); self.use.run(self.make.path, self.make.table, self.make.drive)
        print("HEARD", self.use.heard)
        try: self.make.drive.list()
        except ValueError as e: print(e)
        self.stop()
app = App(R())
"""),
    )
    assert "HEARD ['by a path', 'root.make', 3, [('out/a.txt', 'root.make')], 'in a drive', 'root.use']" in p.stdout
    assert "a Flow may not list files" in p.stdout


@pytest.fixture
def drive_of(tmp_path, monkeypatch):
    monkeypatch.setenv("POD_DRIVE", str(tmp_path / "drive"))

    def make(component: str, **kwargs) -> Drive:
        (tmp_path / component).mkdir(exist_ok=True)
        return Drive("lit://d", component_name=component, root_folder=tmp_path / component, **kwargs)

    return make


def test_keep_a_drive_s_rules_of_ownership(drive_of, tmp_path):
    a, b = drive_of("a"), drive_of("b")
    (tmp_path / "a/f").write_text("of a")
    (tmp_path / "b/f").write_text("of b")
    a.put("f")
    with pytest.raises(PodError, match="put by a"):
        b.put("f")
    both = drive_of("b", allow_duplicates=True)
    both.put("f")
    (tmp_path / "c").mkdir()
    c = drive_of("c")
    with pytest.raises(PodError, match="put by a and b"):
        c.get("f")
    c.get("f", component_name="b")
    assert (tmp_path / "c/f").read_text() == "of b"
    with pytest.raises(FileNotFoundError, match="c has not put this"):
        c.delete("f")
    (tmp_path / "a/f").write_text("of a, again")
    a.put("f")
    c.get("f", component_name="a")
    assert (tmp_path / "c/f").read_text() == "of a, again"
    a.delete("f")
    assert [(str(e), e.owner) for e in c.list()] == [("f", "b")] and c.list(component_name="a") == []


@pytest.mark.parametrize("there", ["nothing", "file", "link to a file", "folder", "link to a folder"])
@pytest.mark.parametrize("put", ["file", "folder"])
def test_what_get_replaces(drive_of, tmp_path, put, there):
    a, c = drive_of("a"), drive_of("c")
    source, target, beside = tmp_path / "a/it", tmp_path / "c/it", tmp_path / "c/beside"
    if put == "folder":
        source.mkdir()
    (source / "f" if put == "folder" else source).write_text("new")
    a.put("it")
    old = beside if there.startswith("link") else target
    if "folder" in there:
        old.mkdir()
        (old / "mine").write_text("mine")
    elif there != "nothing":
        old.write_text("old")
    if there.startswith("link"):
        target.symlink_to(beside)
    if "folder" in there:
        with pytest.raises(FileExistsError, match="overwrite=True"):
            c.get("it")
        assert (target / "mine").read_text() == "mine"
    c.get("it", overwrite="folder" in there)
    assert (target / "f" if put == "folder" else target).read_text() == "new" and not target.is_symlink()
    assert sorted(p.name for p in (tmp_path / "c").iterdir()) == (["beside", "it"] if there.startswith("link") else ["it"])
    if there == "link to a folder":
        assert (beside / "mine").read_text() == "mine"  # what the link led to isn't touched


@pytest.mark.parametrize("kind", [str, Path], ids=["string", "path"])
def test_the_root_folder_of_a_drive_may_be_set(drive_of, tmp_path, monkeypatch, kind):
    a, c = drive_of("a"), drive_of("c")
    (tmp_path / "a/sub").mkdir()
    (tmp_path / "a/sub/f").write_text("text")
    monkeypatch.chdir(tmp_path / "a")
    a.root_folder = kind("sub")
    monkeypatch.chdir(tmp_path)
    a.put("f")
    a.put(tmp_path / "a/sub/f")
    c.root_folder = kind(tmp_path / "c/new")
    c.get("f")
    assert (tmp_path / "c/new/f").read_text() == "text" and c.to_dict()["root_folder"] == str(tmp_path / "c/new")
    assert Drive.from_dict(a.to_dict()).root_folder == tmp_path / "a/sub"


def test_the_folder_of_a_lit_path_is_there(workspace):
    from lightning_pod.app import Flow, Harness, Work
    from lightning_pod.app import Path as AppPath

    class Write(Work):
        def __init__(self):
            super().__init__()
            self.p, self.folder, self.later, self.said = "lit://a/b.txt", AppPath("lit://out"), None, ""

        def run(self):
            with open(self.p, "w") as f:
                f.write("by open")
            (self.folder / "deep" / "c.txt").write_text("by a derived path")
            self.later = "lit://set/in/run.txt"
            with open(str(self.later), "w") as f:
                f.write("by its text")
            with open(os.path.join(self.folder, "d.txt"), "w") as f:
                f.write("joined")
            self.said = [p.read_text() for p in (self.p, self.folder / "deep/c.txt", self.later, self.folder / "d.txt")]

    class Root(Flow):
        def __init__(self):
            super().__init__()
            self.w = Write()

        def run(self):
            self.w.run()

    assert Harness(Root()).run().root.w.said == ["by open", "by a derived path", "by its text", "joined"]
    assert (workspace / ".pod/storage/set/in/run.txt").read_text() == "by its text"


@pytest.mark.parametrize("path", ["../secret", "/etc/passwd", "a/../../b"])
def test_a_drive_reaches_nothing_outside(drive_of, path):
    for verb in ("put", "get", "delete"):
        with pytest.raises(PodError, match="outside of the Drive's folder"):
            getattr(drive_of("a"), verb)(path)
    for id in ("lit://", "lit://a/b", "s3://bucket", "x"):
        with pytest.raises(PodError):
            Drive(id)


def test_repair_a_missing_file_and_a_timeout_with_component_name(drive_of, tmp_path):
    a, b = drive_of("a"), drive_of("b")
    with pytest.raises(FileNotFoundError):
        a.get("nothing")
    with pytest.raises(FileNotFoundError):
        a.put("nothing")
    began = time.monotonic()
    with pytest.raises(FileNotFoundError, match="of a after 0.3 s"):
        b.get("late", component_name="a", timeout=0.3)
    assert time.monotonic() - began >= 0.3
    (tmp_path / "a/late").write_text("x")
    timer = threading.Timer(0.2, a.put, ("late",))
    timer.start()
    b.get("late", component_name="a", timeout=10)
    timer.join()


def test_repair_a_work_that_changes_directory_keeps_its_drive(drive_of, tmp_path, monkeypatch):
    a, b = drive_of("a"), drive_of("b")
    (tmp_path / "a/f").write_text("x")
    monkeypatch.chdir("/")
    a.put("f")
    a.put(tmp_path / "a/f")  # the same
    b.get("f")
    assert (tmp_path / "b/f").read_text() == "x" and not Path("/f").exists()
    monkeypatch.chdir(tmp_path / "a")
    assert Drive("lit://d").root_folder == (tmp_path / "a").resolve()


def test_keep_a_payload_is_read_by_the_app_that_wrote_it_only(tmp_path, monkeypatch):
    monkeypatch.setattr(Payload, "_pod_folder", str(tmp_path / "mine"))
    payload = Payload({"x": 1})
    payload._pod_keep("root.w")
    assert Payload.from_dict(payload.to_dict()).value == {"x": 1}
    monkeypatch.setattr(Payload, "_pod_folder", str(tmp_path / "theirs"))
    for d in (payload.to_dict(), {**payload.to_dict(), "sha256": "0" * 64}):
        with pytest.raises(PodError, match="isn't one of this app's"):
            Payload.from_dict(d).get()
    with pytest.raises(PodError, match="names no Payload"):
        Payload.from_dict({**payload.to_dict(), "sha256": "../mine/x"})


def test_repair_no_reader_sees_half_a_file(drive_of, tmp_path):
    a, b = drive_of("a"), drive_of("b")
    file = tmp_path / "a/f"
    file.write_bytes(b"0" * 300_000)
    a.put("f")
    over, seen = threading.Event(), set()

    def write():
        i = 0
        while not over.is_set():
            i += 1
            file.write_bytes(str(i % 10).encode() * 300_000)
            a.put("f")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(40):
            b.get("f", overwrite=True)
            data = (tmp_path / "b/f").read_bytes()
            assert len(data) == 300_000 and len(set(data)) == 1
            seen.add(data[0])
    finally:
        over.set()
        writer.join()
    assert len(seen) > 1
    damaged = tmp_path / "drive/d/a/f"
    damaged.write_bytes(b"x" * 300_000)
    import lightning_pod.app.drive as module

    before, module.SETTLE_S = module.SETTLE_S, 0.2
    try:
        with pytest.raises(PodError, match="damaged"):
            b.get("f", overwrite=True)
    finally:
        module.SETTLE_S = before


# ---- servers


def test_keep_url_and_a_python_server(pod, program):
    p = pod(
        "run",
        program("""
import json, urllib.request
from pydantic import BaseModel
class In(BaseModel): x: float
class Out(BaseModel): y: float
class Double(PythonServer):
    def setup(self): self._factor = 2
    def predict(self, request): return {"y": self._factor * request.x}
class Ask(Work):
    def __init__(self):
        super().__init__()
        self.answer = None
    def run(self, url):
        request = urllib.request.Request(url + "/predict", json.dumps({"x": 4}).encode(), {"Content-Type": "application/json"})
        self.answer = json.load(urllib.request.urlopen(request))
class R(Flow):
    def __init__(self):
        super().__init__()
        self.server, self.ask = Double(In, Out), Ask()
    def run(self):
        self.server.run()
        if self.server.url:
            self.ask.run(self.server.url)
            print("ANSWER", self.ask.answer, self.server.ready, self.server.url == f"http://{self.server.host}:{self.server.port}"); self.stop()
app = App(R())
"""),
    )
    assert "ANSWER {'y': 8.0} True True" in p.stdout


PAGES = {
    "gradio": """
from lightning_pod.app import ServeGradio
class Page(ServeGradio):
    inputs, outputs, examples, title = ["text"], ["text"], [["an example"]], "The title"
    def build_model(self): print("BUILT"); return lambda text: text[::-1]
    def predict(self, text): return self.model(text)
class Ask(Work):
    def __init__(self):
        super().__init__()
        self.answer = None
    def run(self, url):
        import urllib.request
        from gradio_client import Client
        page = urllib.request.urlopen(url).read().decode()
        self.answer = [Client(url, verbose=False).predict("abc", api_name="/predict"), "The title" in page]
""",
    "streamlit": """
from lightning_pod.app import ServeStreamlit
class Page(ServeStreamlit):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.greeting = "hello"
    def build_model(self): print("BUILT", flush=True); return lambda text: text[::-1]
    def render(self):
        import streamlit
        streamlit.write(self.greeting + " " + self.model("abc"))
class Ask(Work):
    def __init__(self):
        super().__init__()
        self.answer = None
    def run(self, url):
        import urllib.request
        from streamlit.proto.BackMsg_pb2 import BackMsg
        from websockets.sync.client import connect
        page = urllib.request.urlopen(url).read().decode()
        message = BackMsg()
        message.rerun_script.query_string = ""
        for visitor in range(2):
            with connect(url.replace("http", "ws") + "/_stcore/stream", subprotocols=["streamlit"]) as browser:
                browser.send(message.SerializeToString())  # as a browser asks for the page
                while b"hello cba" not in browser.recv(timeout=30): pass
        self.answer = ["hello cba", "<title>Streamlit" in page]
""",
}


@pytest.mark.parametrize("package", PAGES)
def test_keep_a_page_answers_or_tells_what_it_needs(pod, program, package):
    """Where the package is installed the page is asked; elsewhere the error names the command that installs it."""
    file = program(
        PAGES[package]
        + """
class R(Flow):
    def __init__(self):
        super().__init__()
        self.page, self.ask = Page(parallel=True), Ask()
    def run(self):
        self.page.run()
        if self.page.url:
            self.ask.run(self.page.url)
            print("ANSWER", self.ask.answer, self.page.ready); self.stop()
app = App(R())
"""
    )
    if importlib.util.find_spec(package):
        answer = {"gradio": "['cba', True]", "streamlit": "['hello cba', True]"}[package]
        out = pod("run", file, timeout=90).stdout
        assert f"ANSWER {answer} True" in out and out.count("BUILT") == 1
    else:
        p = pod("run", file, code=None)
        assert p.returncode in (1, 2) and f"{package} is needed for Page: pip install 'lightning_pod[{package}]'" in p.stdout + p.stderr


NODES = """
from lightning_pod.app import FabricMultiNode, LightningTrainerMultiNode, MultiNode, PyTorchSpawnMultiNode
class Node(Work):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.seen = None
    def run(self{parameters}):
{body}
class R(Flow):
    def __init__(self):
        super().__init__()
        self.nodes = {kind}(Node, num_nodes=3, cloud_compute=CloudCompute("cpu"))
    def run(self):
        self.nodes.run()
        if all(w.seen for w in self.nodes.ws): print("SEEN", [w.seen for w in self.nodes.ws], flush=True); self.stop()
app = App(R())
"""


def seen_by_nodes(pod, program, kind: str, parameters: str, body: str) -> list:
    """What each of three Works of a `MultiNode` has seen: its rank first, its process last."""
    text = NODES.format(kind=kind, parameters=parameters, body=textwrap.indent(textwrap.dedent(body), 8 * " "))
    return json.loads(re.search(r"SEEN (.*)", pod("run", program(text), timeout=120).stdout)[1])


def test_keep_several_nodes_are_as_many_processes(pod, program):
    seen = seen_by_nodes(pod, program, "MultiNode", ", main_address, main_port, num_nodes, node_rank", """
        import socket
        if node_rank == 0:
            with socket.create_server((main_address, main_port)) as s:
                for _ in range(num_nodes - 1): s.accept()[0].sendall(b"hello")
        else:
            while True:
                try: c = socket.create_connection((main_address, main_port)); break
                except OSError: time.sleep(0.02)
            assert c.recv(5) == b"hello"
        self.seen = [node_rank, num_nodes, os.getpid()]""")
    assert [s[:2] for s in seen] == [[0, 3], [1, 3], [2, 3]] and len({s[2] for s in seen}) == 3


def test_keep_trainers_on_several_nodes_train_together(pod, program):
    seen = seen_by_nodes(pod, program, "LightningTrainerMultiNode", "", """
        import torch
        from lightning.pytorch import LightningModule, Trainer  # the other name, imported as late as can be
        from torch.utils.data import DataLoader, TensorDataset
        class Model(LightningModule):
            def __init__(self):
                super().__init__()
                self.layer = torch.nn.Linear(2, 1)
            def training_step(self, batch, i): return self.layer(batch[0]).mean()
            def configure_optimizers(self): return torch.optim.SGD(self.parameters(), lr=0.1)
        trainer = Trainer(accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False)
        model = Model()
        trainer.fit(model, DataLoader(TensorDataset(torch.arange(48.0).reshape(24, 2)), batch_size=2))
        self.seen = [trainer.global_rank, trainer.world_size, trainer.global_step, round(float(model.layer.weight.sum()), 4), os.getpid()]""")
    assert [s[:3] for s in seen] == [[0, 3, 4], [1, 3, 4], [2, 3, 4]]
    assert len({s[3] for s in seen}) == 1 and len({s[4] for s in seen}) == 3  # the same weights in three processes


def test_keep_fabrics_on_several_nodes_share_their_gradients(pod, program):
    seen = seen_by_nodes(pod, program, "FabricMultiNode", "", """
        import torch
        from lightning_fabric import Fabric
        fabric = Fabric(accelerator="cpu")
        fabric.launch()
        layer = torch.nn.Linear(1, 1, bias=False)
        model, optimizer = fabric.setup(layer, torch.optim.SGD(layer.parameters(), lr=1.0))
        before = float(layer.weight)
        fabric.backward(model(torch.tensor([[float(fabric.global_rank)]])).sum())
        optimizer.step()
        self.seen = [fabric.global_rank, fabric.world_size, round(float(layer.weight) - before, 4), os.getpid()]""")
    assert [s[:3] for s in seen] == [[0, 3, -1.0], [1, 3, -1.0], [2, 3, -1.0]] and len({s[3] for s in seen}) == 3


def test_keep_nodes_of_torch_alone_stand_in_one_process_group(pod, program):
    seen = seen_by_nodes(pod, program, "PyTorchSpawnMultiNode", ", world_size, node_rank, global_rank, local_rank", """
        import torch
        total = torch.tensor(float(global_rank))
        torch.distributed.all_reduce(total)
        self.seen = [global_rank, world_size, node_rank, local_rank, float(total), os.getpid()]""")
    assert [s[:5] for s in seen] == [[0, 3, 0, 0, 3.0], [1, 3, 1, 0, 3.0], [2, 3, 2, 0, 3.0]]


# ---- imports and idleness


def test_importing_the_app_brings_no_torch():
    code = "import sys, lightning_pod.app as a; [getattr(a, n) for n in a.__all__]; import lightning_pod.app.compat, lightning_pod.app.old; print({'torch', 'pytorch_lightning', 'numpy', 'IPython'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


def test_repair_an_idle_app_does_nothing(pod, program):
    begin = "    def run(self):\n        self.w.run()"
    assert begin in SLEEPING
    p = started(pod, program(SLEEPING.replace(begin, begin.replace("\n", "\n        print('TURN')\n"))))
    app = app_job()

    def done() -> list[int]:
        """How often the Flow was called; where the system tells, how often its thread has waked up, and a busy Work's."""
        tasks = [Path(f"/proc/{pid}/task/{pid}/status") for pid in (p.pid, value_of("pid", "root.w"))]
        woken = [re.search(r"^voluntary_ctxt_switches:\s*(\d+)", f.read_text(), re.M) for f in tasks if f.exists()]
        return [app.log().count("TURN"), *(int(m[1]) for m in woken)]

    def still() -> bool:
        before = done()
        for _ in range(3):
            beat = os.stat(app.path / "lock").st_mtime_ns
            wait_for(lambda beat=beat: os.stat(app.path / "lock").st_mtime_ns != beat, 60, "a heartbeat")
        return done() == before

    wait_for(still, 60, "three heartbeats in which nothing is done")
    assert done()[0] >= 1 and p.poll() is None
    p.send_signal(signal.SIGINT)
    assert p.wait(30) == 130


# ---- limits


def test_limit_fifty_works_at_once(pod, program, workspace):
    p = pod(
        "run",
        program("""
class Many(Work):
    def __init__(self):
        super().__init__(parallel=True, start_with_flow=False)
        self.pid = None
    def run(self):
        self.pid = os.getpid()
        while not os.path.exists("all"): time.sleep(0.05)
class R(Flow):
    def __init__(self):
        super().__init__()
        self.many = [Many() for _ in range(50)]
    def run(self):
        for w in self.many: w.run()
        if all(w.pid for w in self.many): open("all", "w").close()
        if all(w.has_succeeded for w in self.many): print("PIDS", len({w.pid for w in self.many})); self.stop()
app = App(R())
"""),
    )
    assert "PIDS 50" in p.stdout
    assert len([j for j in jobs() if j.info["kind"] == "work" and j.status == "done"]) == 50


def test_limit_fifty_megabytes_of_state(pod, program):
    p = pod(
        "run",
        program("""
class Large(Work):
    def __init__(self):
        super().__init__(parallel=True)
        self.big, self.n = [], 0
    def run(self):
        self.big = [f"{i:01000}" for i in range(50_000)]
        while self.n < 20_000: self.n += 1
        self.big[17] = "changed in place"
class R(Flow):
    def __init__(self):
        super().__init__()
        self.w = Large()
    def run(self):
        self.w.run()
        if self.w.has_succeeded: print("LARGE", self.w.n, len(self.w.big), self.w.big[17]); self.stop()
app = App(R())
"""),
    )
    assert "LARGE 20000 50000 changed in place" in p.stdout


def test_limit_ten_thousand_calls_with_flat_memory(pod, program):
    p = pod(
        "run",
        program("""
class Echo(Work):
    def __init__(self):
        super().__init__()
        self.n = 0
    def run(self, i): self.n = i
def megabytes(): return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
class R(Flow):
    def __init__(self):
        super().__init__()
        self.w, self.i = Echo(), 0
    def run(self):
        self.w.run(self.i)
        if self.i == 2000: self._early = megabytes()
        if self.i == 9999: print("GREW", megabytes() - self._early, self.w.n, self.w.num_successes); self.stop()
        self.i += 1
app = App(R())
"""),
    )
    grew, n, successes = re.search(r"GREW ([-\d.]+) (\d+) (\d+)", p.stdout).groups()
    assert float(grew) < 10 and (n, successes) == ("9999", "10000")


def test_limit_a_gigabyte_of_log(pod, program, workspace):
    pod.changes["POD_LOG_LIMIT"] = str(8 << 20)
    p = pod.start(
        "run",
        program("""
class Loud(Work):
    def run(self):
        line = "x" * 9_999
        for i in range(100_000): print(line)
        subprocess.run([sys.executable, "-c", "import sys\\nfor i in range(2000): sys.stdout.write('y' * 9999 + chr(10))"])  # 20 MB past Python's own output
        print("the end")
app = App(Loud())
"""),
        "--json",
    )
    folder = wait_for(lambda: [j for j in jobs() if j.info["kind"] == "work"], 30)[0].path
    most = 0
    while p.poll() is None:
        with contextlib.suppress(FileNotFoundError):
            most = max(most, sum(f.stat().st_size for f in folder.glob("log*.txt")))
        time.sleep(0.05)
    assert p.communicate() and p.returncode == 0
    assert most < 80 << 20 and len(list(folder.glob("log*.txt"))) == 4
    assert "the end" in pod("logs", folder.name).stdout[-1000:]


# ---- more of the contract


@pytest.fixture
def s3(monkeypatch):
    """The URL of a bucket of a server that is one."""
    import s3fs
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    try:
        port = server._server.port
        for name, value in {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_ACCESS_KEY_ID": "x",
            "AWS_SECRET_ACCESS_KEY": "x",
            "AWS_DEFAULT_REGION": "us-east-1",
        }.items():
            monkeypatch.setenv(name, value)
        s3fs.S3FileSystem.clear_instance_cache()
        s3fs.S3FileSystem().mkdir(f"drives-{port}")
        yield f"s3://drives-{port}/pod"
    finally:
        server.stop()
        s3fs.S3FileSystem.clear_instance_cache()


def test_repair_a_drive_s_root_is_any_url(s3, tmp_path, monkeypatch):
    monkeypatch.setenv("POD_DRIVE", s3)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    a, b = (Drive("lit://d", component_name=n, root_folder=tmp_path / n) for n in ("a", "b"))
    (tmp_path / "a/sub").mkdir()
    (tmp_path / "a/sub/f").write_text("on s3")
    a.put("sub")
    assert [(str(e), e.owner) for e in b.list("sub")] == [("sub/f", "a")] and [str(e) for e in b.list()] == ["sub"]
    b.get("sub")
    assert (tmp_path / "b/sub/f").read_text() == "on s3"
    with pytest.raises(PodError, match="put by a"):
        b.put("sub/f")
    a.delete("sub")
    assert b.list() == []


@pytest.mark.parametrize("kind", ["file", "s3"])
def test_a_running_app_uses_a_drive_whose_root_is_a_url(pod, program, request, tmp_path, kind):
    root = f"file://{tmp_path}/drives" if kind == "file" else request.getfixturevalue("s3")
    pod.changes["POD_DRIVE"] = root
    p = pod(
        "run",
        program("""
class Make(Work):
    def __init__(self):
        super().__init__()
        os.makedirs("made", exist_ok=True)
        self.drive = Drive("lit://files", root_folder="made")
    def run(self):
        for name in ("a", "b"): (self.drive.root_folder / name).write_text("text of " + name)
        self.drive.put(".")
class Use(Work):
    def __init__(self):
        super().__init__()
        os.makedirs("used", exist_ok=True)
        self.drive, self.heard = Drive("lit://files", root_folder="used"), []
    def run(self):
        found = self.drive.list()
        for path in found: self.drive.get(path, timeout=5)
        self.heard = [[str(path), path.owner, (self.drive.root_folder / path).read_text()] for path in found]
class R(Flow):
    def __init__(self):
        super().__init__()
        self.make, self.use = Make(), Use()
    def run(self):
        self.make.run(); self.use.run()
        print("HEARD", self.use.heard); self.stop()
app = App(R())
"""),
    )
    assert "HEARD [['a', 'root.make', 'text of a'], ['b', 'root.make', 'text of b']]" in p.stdout
    if kind == "file":
        assert (tmp_path / "drives/files/root.make/a").read_text() == "text of a"
    else:
        import s3fs

        assert s3fs.S3FileSystem().cat_file(f"{root}/files/root.make/a") == b"text of a"


def test_an_app_in_a_notebook_runs_in_the_background_with_a_widget_and_a_stop_button(workspace):
    import nbformat
    from nbclient import NotebookClient

    cells = [
        """
import time
from lightning_pod.app import App, Flow, Work
class Tick(Work):
    def __init__(self):
        super().__init__(parallel=True)
        self.n = 0
    def run(self):
        while True:
            self.n += 1
            time.sleep(0.05)""",
        """
class Root(Flow):
    def __init__(self):
        super().__init__()
        self.tick, self.limit = Tick(), 10**9
    def run(self):
        self.tick.run()
        if self.tick.n >= self.limit: self.stop()
root = Root()
running = App(root).run()""",
        """
until = time.time() + 30
while root.tick.n < 3 and time.time() < until: time.sleep(0.05)
print("RUNNING", running.status, root.tick.n >= 3, root.tick.status.stage)
root.limit = 5  # set from a cell: the Flow sees it
print("ENDED", running.wait(30))""",
        """
again = App(Root()).run()
box = again.widget()
button = box.children[1]
button.click()
print("STOPPED", again.wait(30), again.wait() and button.description)""",
    ]
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells])
    NotebookClient(nb, timeout=90, kernel_name="python3", resources={"metadata": {"path": str(workspace)}}).execute()
    text = "".join(o.get("text", "") for c in nb.cells for o in c.outputs if o.output_type == "stream")
    assert "RUNNING running True running" in text and "ENDED done" in text and "STOPPED stopped Stop" in text, text


def test_a_work_with_a_lock_and_a_call_with_a_function_are_sent(pod, program):
    p = pod(
        "run",
        program("""
import threading
class W(Work):
    def __init__(self):
        super().__init__()
        self._lock, self._add = threading.Lock(), lambda x: x + 1
        self.made = 0
    def run(self, f):
        with self._lock: self.made += f(self._add(1))
class R(Flow):
    def __init__(self):
        super().__init__()
        self.w = W()
    def run(self):
        self.w.run(lambda x: x * 10); print("MADE", self.w.made); self.stop()
app = App(R())
"""),
        timeout=60,
    )
    assert "MADE 20" in p.stdout


def test_a_program_that_fails_in_a_work_s_process_fails_the_app(pod, program):
    p = pod(
        "run",
        program(
            "if __name__ != '__main__': raise RuntimeError('not here')\nclass W(Work):\n    def run(self): ...\napp = App(W())"
        ),
        code=1,
        timeout=60,
    )
    assert "the process of root.work ended with exit code 1: RuntimeError: not here" in p.stderr


def test_an_app_of_a_notebook_s_cells_is_exported_and_run(pod, workspace):
    nbformat, export = pytest.importorskip("nbformat"), pytest.importorskip("nbdev.export")
    cells = [
        "#| default_exp app",
        "#| export\nfrom lightning_pod.app import App, Flow, Work",
        "#| export\nclass Two(Work):\n    def __init__(self):\n        super().__init__()\n        self.two = 0\n    def run(self): self.two = 2",
        "#| export\nclass Root(Flow):\n    def __init__(self):\n        super().__init__()\n        self.w = Two()\n    def run(self):\n        self.w.run()\n        print('TWO', self.w.two)\n        self.stop()",
        "#| export\napp = App(Root())",
        "1 + 1",
    ]
    nbformat.write(
        nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells]), workspace / "app.ipynb"
    )
    export.nb_export(workspace / "app.ipynb", lib_path=workspace / "lib")
    assert "TWO 2" in pod("run", workspace / "lib" / "app.py", timeout=60).stdout


# ---- what can't begin

IN_A_NOTEBOOK = """
class W(Work):
    def run(self): pass
class R(Flow):
    def __init__(self):
        super().__init__()
        self.w = W()
    def run(self):
        self.w.run()
        if self.w.has_succeeded: self.stop()
if __name__ == "__main__":
    import json
    from lightning_pod.core.job import jobs
    for where in sys.argv[1:]:
        os.environ["POD_WORKSPACE"], _, key = where.partition("=")
        if key: os.environ["POD_KEY_FILE"] = key
        told = {"raised": None, "status": None, "said": "", "states": []}
        try:
            app = App(R()).run(background=True)
            told |= {"status": app.wait(30), "said": repr(app), "html": app._html()}
            told["states"] = [j.status for j in jobs()]
        except PodError as e: told["raised"] = str(e)
        print(json.dumps(told), flush=True)
"""


def of_a_notebook(pod, program, *places) -> list[dict]:
    """What became of an app that was started in the background of one process, in each of the places."""
    file = program("from lightning_pod.core.config import PodError\n" + IN_A_NOTEBOOK)
    p = subprocess.run([sys.executable, file, *map(str, places)], env=pod.env, capture_output=True, text=True, timeout=240)
    assert p.returncode == 0, p.stderr
    return [json.loads(line) for line in p.stdout.splitlines() if line.startswith("{")]


def test_an_app_that_can_not_begin_in_a_notebook_says_why(pod, program, workspace, tmp_path):
    for name in ("a", "b/.pod", "c/.pod/jobs", "d/x"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("a file")
    places = [*(tmp_path / n for n in "abc"), f"{tmp_path / 'd'}={tmp_path}", f"{tmp_path / 'd'}={tmp_path / 'key'}"]
    *refused, fine = of_a_notebook(pod, program, *places)
    words = [*["a file stands where a folder is needed"] * 3, str(tmp_path)]
    for found, expected in zip(refused, words, strict=True):
        assert expected in (found["raised"] or found["said"]) and found["status"] in (None, "failed"), found
        assert "created" not in found["states"]
    assert (fine["raised"], fine["status"], set(fine["states"])) == (None, "done", {"done"})
    assert not litter(tmp_path)


def test_an_app_in_a_notebook_says_that_the_disk_is_full_wherever_it_fills_up(pod, program, small_disk):
    disks = []
    for kilobytes in range(0, 64, 4):
        disks.append(small_disk(256))
        (disks[-1] / ".pod" / "jobs").mkdir(parents=True)
        fill(disks[-1], kilobytes << 10)
    found = of_a_notebook(pod, program, *disks, small_disk(4000, "ro"), small_disk(4000))
    *full, read_only, fine = found
    assert "read-only" in read_only["raised"] and fine["status"] == "done"
    for told in full:
        said = told["raised"] or told["said"]
        assert "created" not in told["states"], told
        assert told["status"] == "done" or told["raised"] or told["status"] == "failed", told
        # what a Work's process has to say fits nowhere
        works = "the process of root.w ended with exit code 1" in said
        assert told["status"] == "done" or "the disk is full" in said or works, told
        assert told["raised"] or told["status"] == "done" or "root.w" in told["html"] and "failed: " in told["html"], told
    assert sum(bool(told["raised"]) for told in full) >= 2 and sum(told["status"] == "failed" for told in full) >= 3
    assert not any(litter(disk) for disk in disks)
