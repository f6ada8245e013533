"""The processes that Works start: other Pythons, commands of the environment, how they are stopped, what they print."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

from conftest import wait_for

from lightning_pod.core.job import jobs

HEAD = """
import os, shutil, subprocess, sys
from lightning_pod.app import App, BashWork, Flow, PopenPythonScript, TracerPythonScript, Work
"""


def pythons(folder: Path) -> list[str]:
    """An environment that has nothing, and whatever else is called Python here."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    names = [shutil.which(name) for name in ("python2", *(f"python3.{n}" for n in range(6, 16)))]
    works = [p for p in names if p and subprocess.run([p, "-c", ""], capture_output=True).returncode == 0]
    return [str(folder / "bin/python"), *works]


def test_what_a_work_s_children_are_given_and_print(pod, workspace, tmp_path):
    others = pythons(tmp_path / "env")
    (workspace / "script.py").write_text("import subprocess\nsubprocess.run(['echo', 'of a script'])\nprint('done', end='')\n")
    (workspace / "app.py").write_text(HEAD + f"""
class W(Work):
    def run(self):
        for python in {others!r}:
            p = subprocess.run([python, "-c", "print(6 * 7)"], capture_output=True, text=True)
            assert (p.stdout, p.stderr) == ("42\\n", ""), (python, p)
        assert subprocess.run(["pod", "--help"], capture_output=True).returncode == 0, os.environ["PATH"]
        subprocess.run("echo of a child; printf 'two parts, '; echo one line", shell=True)
        raise ValueError("the " + "message")
class R(Flow):
    def __init__(self):
        super().__init__()
        self.script, self.apart, self.bash = TracerPythonScript("script.py"), PopenPythonScript("script.py"), BashWork("which pod; {others[0]} -c 'print(42)'")
        self.w = W()
    def run(self):
        self.script.run(); self.apart.run(); self.bash.run(); self.w.run()
app = App(R())
""")
    pod.changes["PATH"] = "/usr/bin:/bin"  # as where the environment isn't activated
    p = pod("run", "app.py", code=1, timeout=120)
    stamp = r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d root\."
    for line in ("w: of a child", "w: two parts, one line", "script: of a script", "apart: of a script", "bash: 42"):
        assert re.search(stamp + line + "$", p.stdout, re.M), (line, p.stdout)
    assert re.search(stamp + f"bash: {sys.prefix}/bin/pod$", p.stdout, re.M), p.stdout
    assert not [line for line in p.stdout.splitlines() if line and not re.match(stamp, line)]
    assert "sitecustomize" not in p.stdout
    # the traceback once, and one line at the end
    assert p.stdout.count("the message") == 1 and p.stdout.count("Traceback") == 1
    assert p.stderr.strip().endswith("is failed: root.w failed: ValueError: the message") and p.stderr.count("\n") == 1
    assert next(j for j in jobs() if j.config.get("name") == "root.w").info["message"] == "ValueError: the message"


NOTES = """
import signal, sys, time
def note(text):
    with open(sys.argv[1], "a") as f: f.write(text + " ")
"""
STOPPED = {  # a script -> what it notes when it is stopped
    "saves": ("try:\n    note('up')\n    time.sleep(600)\nexcept KeyboardInterrupt: note('saved')", "up saved"),
    "heeds SIGTERM only": (
        "signal.signal(signal.SIGINT, lambda *a: note('INT'))\nsignal.signal(signal.SIGTERM, lambda *a: (note('TERM'), sys.exit()))\nnote('up')\nwhile True: time.sleep(1)",
        "up INT TERM",
    ),
    "heeds nothing": (
        "for s in (signal.SIGINT, signal.SIGTERM): signal.signal(s, lambda *a: note('heard'))\nnote('up')\nwhile True: time.sleep(1)",
        "up heard heard",
    ),
}


def test_a_stopped_script_is_ended_as_if_it_had_been_typed(pod, workspace):
    for i, (code, _) in enumerate(STOPPED.values()):
        (workspace / f"{i}.py").write_text(NOTES + code)
    (workspace / "app.py").write_text(HEAD + f"""
class R(Flow):
    def __init__(self):
        super().__init__()
        self.n = {len(STOPPED)}
        for i in range(self.n):
            setattr(self, f"popen{{i}}", PopenPythonScript(f"{{i}}.py", [f"popen{{i}}.txt"], parallel=True, grace=3))
            setattr(self, f"bash{{i}}", BashWork(f"{{sys.executable}} {{i}}.py bash{{i}}.txt; true", parallel=True, grace=3))
        self.notes = [f"{{kind}}{{i}}.txt" for i in range(self.n) for kind in ("popen", "bash")]
    def run(self):
        for w in self.works(): w.run()
        if self.every(0.2) and all(os.path.exists(n) and os.path.getsize(n) for n in self.notes):
            print("ALL UP")
            self.stop()
app = App(R())
""")
    out = pod("run", "app.py", timeout=60).stdout
    for i, (_, noted) in enumerate(STOPPED.values()):
        for kind in ("popen", "bash"):
            assert (workspace / f"{kind}{i}.txt").read_text().split() == noted.split(), (kind, i, out)


def test_a_command_that_was_started_outside_of_an_app_is_interrupted_with_it(tmp_path):
    (tmp_path / "script.py").write_text(NOTES + STOPPED["saves"][0])
    code = "import sys; from lightning_pod.app.script import run_process; run_process([sys.executable, 'script.py', 'notes.txt'])"
    p = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, stderr=subprocess.DEVNULL)
    notes = tmp_path / "notes.txt"
    wait_for(lambda: notes.exists() and notes.read_text(), 30)
    p.send_signal(2)
    p.wait(30)
    assert notes.read_text().split() == ["up", "saved"]
