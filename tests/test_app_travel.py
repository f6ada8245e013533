"""What travels between the processes of an app: values of the program's own classes, and what can't be read there."""

import re
import subprocess
import sys

import pytest

HEAD = """
import enum, os, sys, threading
from collections import namedtuple
from dataclasses import dataclass
from lightning_pod.app import App, Dict, Flow, Path, Payload, TracerPythonScript, Work
"""
CLASSES = """
class Colour(str, enum.Enum):
    RED, BLUE = "red", "blue"
class Level(enum.IntEnum):
    LOW, HIGH = 1, 2
class Plain(enum.Enum):
    A, B = 1, 2
Point = namedtuple("Point", "x y")
@dataclass
class Config:
    lr: float
    layers: tuple = (1, 2)
class Table(Payload):
    def save(self, value, path):
        with open(path, "w") as f: f.write("table " + value)
    def load(self, path):
        with open(path) as f: return f.read().removeprefix("table ")
class Name(str): pass
class Where(Path): pass
"""
PROGRAM = CLASSES + """
class Make(Work):
    def __init__(self):
        super().__init__()
        self.colour, self.level, self.point, self.listed, self.name_, self.where = Colour.RED, Level.LOW, Point(0, 0), [], Name("a"), Where("a")
        self.table, self.config = None, None
    def run(self, colour, level, plain, point, config):
        assert (colour, level, plain, point, config) == (Colour.BLUE, Level.HIGH, Plain.B, Point(1, 2), Config(0.5)), (colour, config)
        assert type(self.colour) is Colour
        self.colour, self.level, self.point, self.name_, self.where = colour, level, point, Name("b"), Where("b")
        self.listed.append([Colour.BLUE, Point(3, 4)])
        self.table, self.config = Table("of text"), Payload(config)
        self.emit("made", config=config, plain=plain)
class Use(Work):
    def __init__(self):
        super().__init__()
        self.ok = False
    def run(self, table, config, point):
        assert (type(table), table.value, config.value, type(point)) == (Table, "of text", Config(0.5), Point)
        self.ok = True
class Root(Flow):
    def __init__(self):
        super().__init__()
        self.make, self.use, self.chosen = Make(), Use(), Point(0, 0)
    def run(self):
        self.make.run(Colour.BLUE, Level.HIGH, Plain.B, Point(1, 2), Config(0.5))
        m = self.make
        for e in m.events(): assert e == {"kind": "made", "config": Config(0.5), "plain": Plain.B}, e
        assert (type(m.colour), type(m.level), type(m.point), type(m.name_), type(m.where)) == (Colour, Level, Point, Name, Where), type(m.colour)
        assert m.colour is Colour.BLUE and m.listed == [[Colour.BLUE, Point(3, 4)]] and type(m.listed[0][1]) is Point
        assert type(m.table) is Table and m.table.value == "of text" and m.config.value == Config(0.5)
        self.chosen = m.point
        self.use.run(m.table, m.config, self.chosen)
        print("TRAVELLED", self.use.ok)
        if not os.path.exists("again"):
            open("again", "w").close()
            self.fail()
        self.stop()
"""


def test_values_of_the_program_s_classes_travel_and_are_the_same_after_a_resume(pod, workspace):
    (workspace / "app.py").write_text(HEAD + PROGRAM + "app = App(Root())\n")
    assert "TRAVELLED True" in pod("run", "app.py", code=1, timeout=60).stdout
    assert "TRAVELLED True" in pod("run", "app.py", "--resume", timeout=60).stdout


def test_they_travel_in_a_program_that_python_runs(pod, workspace):
    (workspace / "app.py").write_text(HEAD + PROGRAM + "open('again', 'w').close()\nif __name__ == '__main__': App(Root()).run()\n")
    p = subprocess.run([sys.executable, "app.py"], cwd=workspace, env=pod.env, capture_output=True, text=True, timeout=60)
    assert "TRAVELLED True" in p.stdout, p.stdout + p.stderr


def test_they_travel_from_a_notebook_s_cells(workspace):
    import nbformat
    from nbclient import NotebookClient

    cells = [HEAD, PROGRAM, "open('again', 'w').close()\nprint('ENDED', App(Root()).run().wait(60))"]
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells])
    NotebookClient(nb, timeout=90, kernel_name="python3", resources={"metadata": {"path": str(workspace)}}).execute()
    assert "ENDED done" in "".join(o.get("text", "") for c in nb.cells for o in c.outputs)


def test_objects_of_a_traced_script_s_own_classes_come_back(pod, workspace):
    (workspace / "train.py").write_text("class Model:\n    lr = 0.5\nmodel, colour = Model(), colour_given\n")
    (workspace / "app.py").write_text(HEAD + CLASSES + """
class Use(Work):
    def run(self, model): assert model.value.lr == 0.5
class Root(Flow):
    def __init__(self):
        super().__init__()
        self.train, self.use = TracerPythonScript("train.py", outputs=["model", "colour"]), Use()
    def run(self):
        self.train.run(colour_given=Colour.RED)
        self.use.run(self.train.model)
        print("MODEL", self.train.model.value.lr, self.train.colour.value is Colour.RED)
        self.stop()
app = App(Root())
""")
    assert "MODEL 0.5 True" in pod("run", "app.py", timeout=60).stdout


UNREADABLE = """
def read(pid):
    if os.getpid() != pid: raise RuntimeError("can't be read in another process")
    return Thing()
class Thing(str):
    "A string that can't be read in another process."
    def __reduce__(self): return read, (os.getpid(),)
class W(Work):
    def __init__(self, how, **kwargs):
        super().__init__(parallel=True, raise_exception=False, **kwargs)
        self.how, self.thing, self.items = how, None, []
    def run(self, given=None):
        if self.how == "state": self.thing = Thing("x")
        if self.how == "event": self.emit("thing", it=Thing("x"))
        if self.how == "no pickle": self.emit("thing", it=threading.Lock())
        if self.how == "in place": self.items.append(type("Text", (str,), {"__reduce__": lambda self: 1 / 0})())
"""


def test_what_cannot_be_read_or_sent_fails_its_work_and_tells_why(pod, workspace):
    (workspace / "app.py").write_text(HEAD + UNREADABLE + """
class Root(Flow):
    def __init__(self):
        super().__init__()
        self.works_ = Dict(**{how: W(how) for how in ("state", "event", "no pickle", "in place", "argument", "good")})
    def run(self):
        for how, w in self.works_.items(): w.run(Thing() if how == "argument" else None)
        if all(w.has_failed or w.has_succeeded for w in self.works_.values()):
            for how, w in self.works_.items(): print(f"{how}: {w.status.stage}: {(w.status.message or '').strip().splitlines()[-1:]}")
            self.stop()
app = App(Root())
""")
    out = pod("run", "app.py", timeout=60).stdout
    for how in ("state", "event", "argument"):
        assert re.search(f"{how}: failed: .*can't be read in another process", out), out
    assert re.search("no pickle: failed: .*cannot pickle '_thread.lock' object", out), out
    assert re.search("in place: failed: .*root.works_.in place.items = .* can't be sent to the Flow: ZeroDivisionError", out), out
    assert "good: succeeded" in out


@pytest.mark.parametrize("thread", ["works", "root.work", "stop"])
def test_a_service_thread_that_dies_ends_the_app_with_its_reason(pod, workspace, thread):
    (workspace / "app.py").write_text(HEAD + f"""
import time
from multiprocessing.connection import Connection, Listener
class W(Work):
    def __init__(self):
        super().__init__()
        self.n = 0
    def run(self):
        while True:
            self.n += 1
            time.sleep(0.05)
class Root(Flow):
    def __init__(self):
        super().__init__()
        self.work = W()
    def run(self):
        if {thread!r} == "root.work" and self.work.n > 1: Connection.recv_bytes = self.broken
        self.work.run()
    def broken(self, *args): raise RuntimeError("the thread is broken")
root = Root()
if {thread!r} == "works": Listener.accept = root.broken
if {thread!r} == "stop":
    from lightning_pod.core.job import Context
    Context.wait_for_stop = root.broken
app = App(root)
""")
    p = pod("run", "app.py", code=1, timeout=60)
    assert "the thread is broken" in p.stderr, p.stdout + p.stderr
