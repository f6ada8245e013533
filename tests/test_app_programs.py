"""A program of each shape that people wrote for `lightning.app`, as they wrote it: all do what they mean to."""

import os
import subprocess
import sys

import pytest

PROGRAMS = {}  # name -> (the program, its other files, what it says at the end)

PROGRAMS["boring, with arguments and a lit:// file"] = (
    """
import argparse
import os
from lightning.app import CloudCompute, LightningApp, LightningFlow, LightningWork
from lightning.app.components import TracerPythonScript
from lightning.app.storage import Path

class Source(LightningWork):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.text_path = None

    def run(self):
        self.text_path = "lit://texts/note.txt"
        with open(self.text_path, "w") as f:
            f.write("written by the source")

class Reader(TracerPythonScript):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.said = None

    def run(self, text_path: Path):
        assert text_path.exists()
        self.script_args += [f"--path={text_path}", f"--port={self.port}"]
        super().run()

    def on_after_run(self, res):
        self.said = res["said"]

class Root(LightningFlow):
    def __init__(self):
        super().__init__()
        parser = argparse.ArgumentParser()
        parser.add_argument("--rounds", type=int, default=1)
        self._args = parser.parse_args()
        self.source = Source(cloud_compute=CloudCompute("cpu", idle_timeout=60))
        self.reader = Reader(script_path=os.path.join(os.path.dirname(__file__), "reader.py"), parallel=True)
        self.rounds = 0

    def run(self):
        self.source.run()
        if self.source.has_succeeded:
            self.reader.run(self.source.text_path)
        if self.reader.has_succeeded:
            self.rounds += 1
            if self.rounds == self._args.rounds:
                self.stop("READ once")

    def configure_layout(self):
        return [{"name": "page", "content": self.reader}]

app = LightningApp(Root(), log_level="debug")
""",
    {"reader.py": "import sys\npath = sys.argv[1].partition('=')[2]\nsaid = open(path).read()\nprint('HEARD', said)\n"},
    ["HEARD written by the source", "READ once"],
)

PROGRAMS["dag"] = (
    """
import lightning.app as L
from lightning.app.storage import Payload
from lightning.app.structures import Dict, List

class Step(L.LightningWork):
    def __init__(self):
        super().__init__(cache_calls=True, parallel=True)
        self.result = None

    def run(self, name, *inputs):
        self.result = Payload(sum((i.value for i in inputs), 0) + len(name))

class Dag(L.LightningFlow):
    def __init__(self, models):
        super().__init__()
        self.load, self.prepare = Step(), Step()
        self.models = Dict(**{name: Step() for name in models})
        self.collect = Step()

    def run(self):
        self.load.run("load")
        if self.load.has_succeeded:
            self.prepare.run("prepare", self.load.result)
        if self.prepare.has_succeeded:
            for name, work in self.models.items():
                work.run(name, self.prepare.result)
        if all(w.has_succeeded for w in self.models.values()):
            self.collect.run("collect", *[w.result for w in self.models.values()])

class Root(L.LightningFlow):
    def __init__(self):
        super().__init__()
        self.dag, self.days = Dag(["forest", "svm"]), 0

    def run(self):
        self.dag.run()
        if self.dag.collect.has_succeeded:
            self.stop(f"DAG {self.dag.collect.result.value}")

app = L.LightningApp(Root())
""",
    {},
    [f"DAG {(4 + 7) * 2 + 6 + 3 + 7}"],
)

PROGRAMS["drive"] = (
    """
import os
import time
from lightning.app import LightningApp, LightningFlow, LightningWork
from lightning.app.storage import Drive

class Writer(LightningWork):
    def __init__(self, name, drive):
        super().__init__(parallel=True, cache_calls=False)
        self.name_, self.drive, self.round = name, drive, 0

    def run(self):
        with open(f"{self.name_}.txt", "w") as f:
            f.write(f"{self.name_} {self.round}")
        self.drive.put(f"{self.name_}.txt")
        os.remove(f"{self.name_}.txt")
        self.round += 1

class Reader(LightningWork):
    def __init__(self, drive):
        super().__init__()
        self.drive, self.found = drive, []
        os.makedirs("inbox", exist_ok=True)

    def run(self):
        self.drive.root_folder = "inbox"
        while len(self.drive.list(".")) < 2:
            time.sleep(0.05)
        for path in self.drive.list("."):
            self.drive.get(path)
            self.drive.get(path)
            with open(os.path.join(self.drive.root_folder, path)) as f:
                self.found.append(f.read().split()[0])
        mine = self.drive.list(".", component_name=self.name)
        assert mine == [], mine

class Root(LightningFlow):
    def __init__(self):
        super().__init__()
        self.drive = Drive("lit://shared")
        self.a, self.b, self.reader = Writer("a", self.drive), Writer("b", self.drive), Reader(self.drive)

    def run(self):
        if self.a.num_successes < 2:
            self.a.run()
        if self.b.num_successes < 1:
            self.b.run()
        if self.a.num_successes == 2 and self.b.num_successes:
            self.reader.run()
            print("FOUND", sorted(self.reader.found), self.a.round)
            self.stop()

app = LightningApp(Root())
""",
    {},
    ["FOUND ['a', 'b'] 2"],
)

PROGRAMS["payload and a class of the program"] = (
    """
import enum
from collections import namedtuple
import lightning_app as la
from lightning_app.storage.payload import Payload

class Kind(str, enum.Enum):
    TRAIN, TEST = "train", "test"
Row = namedtuple("Row", "x y")

class Make(la.LightningWork):
    def __init__(self):
        super().__init__()
        self.table, self.kind, self.first = None, Kind.TEST, Row(0, 0)

    def run(self, kind):
        self.kind, self.first = kind, Row(1, 2)
        self.table = Payload([Row(1, 2), Row(3, 4)])

class Use(la.LightningWork):
    def __init__(self):
        super().__init__()
        self.sum = 0

    def run(self, table, first):
        self.sum = sum(r.x + r.y for r in table.value) + first.y

class Root(la.LightningFlow):
    def __init__(self):
        super().__init__()
        self.make, self.use = Make(), Use()

    def run(self):
        self.make.run(Kind.TRAIN)
        self.use.run(self.make.table, self.make.first)
        print("SUM", self.use.sum, self.make.kind is Kind.TRAIN)
        self._exit("end")

app = la.LightningApp(Root())
""",
    {},
    ["SUM 12 True"],
)

PROGRAMS["hpo, with children made on the way"] = (
    """
import lightning.app as L
from lightning.app.components import TracerPythonScript
from lightning.app.storage import Path

class Objective(TracerPythonScript):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.best_model_score, self.best_model_path, self.has_told = None, None, False

    def on_after_run(self, res):
        self.best_model_score, self.best_model_path = float(res["score"]), Path(res["path"])

class Search(L.LightningFlow):
    def __init__(self, total, simultaneous):
        super().__init__()
        self.total, self.simultaneous, self.told, self.best = total, simultaneous, 0, None

    def run(self):
        if self.told == self.total:
            return
        for i in range(self.told, min(self.told + self.simultaneous, self.total)):
            name = f"objective_{i}"
            if not hasattr(self, name):
                setattr(self, name, Objective("objective.py", [], parallel=True, cache_calls=True, cloud_compute=L.CloudCompute("cpu")))
            getattr(self, name).run(params={"--lr": i / 10})
        for work in self.works():
            if work.has_succeeded and not work.has_told:
                work.has_told = True
                self.told += 1
                if self.best is None or work.best_model_score > self.best[0]:
                    self.best = [work.best_model_score, work.name]
                work.stop()

class Root(L.LightningFlow):
    def __init__(self):
        super().__init__()
        self.search = Search(total=4, simultaneous=2)

    def run(self):
        self.search.run()
        if self.search.told == 4:
            score, name = self.search.best
            work = next(w for w in self.works() if w.name == name)
            self.stop(f"BEST {score} {name} {work.params} {work.best_model_path.name}")

app = L.LightningApp(Root())
""",
    {"objective.py": "import sys\nlr = float(sys.argv[1].partition('=')[2])\nscore, path = 1 - (lr - 0.2) ** 2, f'{lr}.ckpt'\n"},
    ["BEST 1.0 root.search.objective_2 {'--lr': 0.2} 0.2.ckpt"],
)

PROGRAMS["server and its client"] = (
    """
import json
import urllib.request
import lightning as L
from lightning.app.components import PythonServer
from pydantic import BaseModel

class Question(BaseModel):
    x: int
class Answer(BaseModel):
    y: int

class Serve(PythonServer):
    def setup(self):
        self._model = lambda x: 2 * x

    def predict(self, request: Question):
        return {"y": self._model(request.x)}

class Client(L.LightningWork):
    def __init__(self):
        super().__init__()
        self.answer = None

    def run(self, url):
        request = urllib.request.Request(f"{url}/predict", json.dumps({"x": 21}).encode(), {"Content-Type": "application/json"})
        self.answer = json.load(urllib.request.urlopen(request))

class Root(L.LightningFlow):
    def __init__(self):
        super().__init__()
        self.serve, self.client = Serve(input_type=Question, output_type=Answer, start_with_flow=False), Client()

    def run(self):
        self.serve.run()
        if self.serve.url:
            self.client.run(self.serve.url)
            self.serve.stop()
            self.stop(f"ANSWER {self.client.answer}")

app = L.LightningApp(Root())
""",
    {},
    ["ANSWER {'y': 42}"],
)

PROGRAMS["popen and tracer"] = (
    """
import lightning.app as L
from lightning.app.components.python import PopenPythonScript, TracerPythonScript
from lightning.app.utilities.tracer import Tracer

class Traced(TracerPythonScript):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.seen, self.trained = 0, None

    def on_before_run(self):
        print("before", self.script_path)

    def configure_tracer(self) -> Tracer:
        from steps import Trainer

        def before(trainer, *args, **kwargs):
            self.seen += 1
            return {}, args, {**kwargs, "epochs": 5}

        tracer = super().configure_tracer()
        tracer.add_traced(Trainer, "__init__", pre_fn=before)
        return tracer

    def on_after_run(self, res):
        super().on_after_run(res)
        self.trained = res["trainer"].epochs

class Root(L.LightningFlow):
    def __init__(self):
        super().__init__()
        self.popen = PopenPythonScript("script.py", script_args=["popen"], raise_exception=False)
        self.traced = Traced("script.py", script_args=["traced"], raise_exception=True, outputs=["model"])

    def run(self):
        self.popen.run()
        if self.popen.has_succeeded:
            self.traced.run()
        if self.traced.has_succeeded:
            self.stop(f"TRACED {self.traced.seen} {self.traced.model.value} {self.traced.trained} {self.popen.exit_code}")

app = L.LightningApp(Root())
""",
    {
        "steps.py": "class Trainer:\n    def __init__(self, epochs=1): self.epochs = epochs\n",
        "script.py": "import sys\nfrom steps import Trainer\nmodel, trainer = sys.argv[1], Trainer(epochs=2)\nprint('EPOCHS', model, trainer.epochs)\n",
    },
    ["EPOCHS popen 2", "EPOCHS traced 5", "TRACED 1 traced 5 0"],
)

PROGRAMS["interruptible"] = (
    """
from time import sleep
from lightning.app import CloudCompute, LightningApp, LightningFlow, LightningWork

class Count(LightningWork):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.counter, self.starts = 0, []

    def run(self):
        self.starts.append(self.counter)
        while True:
            self.counter += 1
            sleep(0.02)

class Root(LightningFlow):
    def __init__(self):
        super().__init__()
        self.w = Count(cloud_compute=CloudCompute("gpu", interruptible=True), start_with_flow=False, parallel=True)
        self.interrupted = False

    def run(self):
        self.w.run()
        if self.w.counter > 5 and not self.interrupted:
            self.interrupted = True
            self.w.stop()
        if self.w.counter > 20 and len(self.w.starts) == 2:
            self.stop(f"WENT ON {self.w.starts[1] > 5}")

app = LightningApp(Root())
""",
    {},
    ["WENT ON True"],
)

PROGRAMS["display name, start and dynamic structures"] = (
    """
import lightning.app as L
from lightning.app.structures import List

class Idle(L.LightningWork):
    def __init__(self, name):
        super().__init__(parallel=True)
        self.display_name = name

    def run(self):
        self.display_name = self.display_name + " ran"

class Root(L.LightningFlow):
    def __init__(self):
        super().__init__()
        self.many, self.warm = List(), Idle("warm")

    def run(self):
        if len(self.many) < 3:
            self.many.append(Idle(f"work {len(self.many)}"))
        self.warm.start()
        for w in self.many:
            w.run()
        if all(w.has_succeeded for w in self.many) and len(self.many) == 3 and self.warm.status.stage == "started":
            self.stop(f"NAMED {[w.display_name for w in self.works()]}")

app = L.LightningApp(Root())
""",
    {},
    ["NAMED ['warm', 'work 0 ran', 'work 1 ran', 'work 2 ran']"],
)

PROGRAMS["schedule"] = (
    """
import lightning.app as L

class Step(L.LightningWork):
    def __init__(self):
        super().__init__(cache_calls=True)
        self.times = []

    def run(self, name):
        self.times.append(name)

class Root(L.LightningFlow):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.done = Step(), Step(), 0

    def run(self):
        if self.schedule("*/5 * * * *", user_key="nightly"):
            self.first.run("a")
            self.second.run("b")
            self.done += 1
        if self.done:
            self.stop(f"SCHEDULED {self.done} {self.first.times} {self.second.times}")

app = L.LightningApp(Root())
""",
    {},
    ["SCHEDULED 1 ['a'] ['b']"],
)

PROGRAMS["several nodes of any kind"] = (
    """
import socket
import lightning.app as L
from lightning.app.components import MultiNode

class Node(L.LightningWork):
    def __init__(self, greeting, **kwargs):
        super().__init__(**kwargs)
        self.greeting, self.heard = greeting, None

    def run(self, main_address: str, main_port: int, num_nodes: int, node_rank: int):
        if node_rank == 0:
            with socket.create_server((main_address, main_port)) as server:
                heard = []
                while len(heard) < num_nodes - 1:
                    with server.accept()[0] as c:
                        heard.append(c.recv(100).decode())
            self.heard = sorted(heard)
            print("HEARD", self.heard)
        else:
            while True:
                try:
                    with socket.create_connection((main_address, main_port)) as c:
                        c.send(f"{self.greeting} {node_rank}".encode())
                    break
                except ConnectionRefusedError:
                    pass

class Root(L.LightningFlow):
    def __init__(self):
        super().__init__()
        self.nodes = MultiNode(Node, num_nodes=3, cloud_compute=L.CloudCompute("gpu"), greeting="hello from")

    def run(self):
        self.nodes.run()
        if all(w.has_stopped for w in self.nodes.ws):
            self.stop("NODES ended")

app = L.LightningApp(Root())
""",
    {},
    ["HEARD ['hello from 1', 'hello from 2']", "NODES ended"],
)

PROGRAMS["a failure that the flow handles"] = (
    """
from lightning.app import LightningApp, LightningFlow, LightningWork

class Flaky(LightningWork):
    def __init__(self):
        super().__init__(raise_exception=False, parallel=True, cache_calls=False)
        self.total = 0

    def run(self, bad):
        self.total += 1
        if bad:
            raise ValueError("bad data")

class Root(LightningFlow):
    def __init__(self):
        super().__init__()
        self.w, self.retried = Flaky(), False

    def run(self):
        if not self.retried:
            self.w.run(bad=True)
        if self.w.has_failed:
            self.retried = True
            print("REASON", self.w.status.reason, "bad data" in self.w.status.message)
        if self.retried and not self.w.has_succeeded:
            self.w.run(bad=False)
        if self.w.has_succeeded:
            self.stop("HANDLED")

app = LightningApp(Root())
""",
    {},
    ["REASON user_exception True", "HANDLED"],
)


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_as_it_was_written_does_what_it_means_to(pod, workspace, name):
    program, files, said = PROGRAMS[name]
    for file, text in {"app.py": program, **files}.items():
        (workspace / file).write_text(text)
    p = pod("run", "app.py", timeout=120)
    for text in said:
        assert text in p.stdout, p.stdout + p.stderr
    assert "Traceback" not in p.stdout + p.stderr or "failure" in name


PAGES = """
import lightning.app as L
from lightning.app.api.http_methods import Get, Post
from lightning.app.frontend import StaticWebFrontend, StreamlitFrontend
from lightning.app.utilities.commands import ClientCommand

def render(state): ...

class Page(L.LightningFlow):
    def configure_layout(self):
        return StaticWebFrontend("site")
class Board(L.LightningFlow):
    def configure_layout(self):
        return StreamlitFrontend(render_fn=render)
class Server(L.LightningWork):
    def run(self): ...
class Remember(ClientCommand):
    def run(self, name: str = "client"):
        return self.invoke_handler(name=name)
class Child(L.LightningFlow):
    def __init__(self):
        super().__init__()
        self.names = []
    def add(self, name: str = "nobody"):
        self.names.append(name)
        return f"{len(self.names)} names"
    def configure_commands(self):
        return [{"add name": self.add}, {"remember": Remember(method=self.add)}]
    def configure_api(self):
        return [Post("/user/add", self.add), Get("/user/names", lambda: list(self.names))]
class Root(L.LightningFlow):
    def __init__(self):
        super().__init__()
        self.page, self.board, self.server, self.child = Page(), Board(), Server(), Child()
    def configure_layout(self):
        return [{"name": "page", "content": self.page}, {"name": "board", "content": self.board}, {"name": "docs", "content": "https://example.org"}, {"name": "server", "content": self.server}]
app = L.LightningApp(Root())
"""
LOOK = """
from lightning_pod.app.compat import install; install()
from lightning_pod.app.local import Harness, load_app
h = Harness(load_app("app.py")).run()
print("LAYOUT", h.root._pod_layout, h.root.page._pod_layout, h.root.board._pod_layout)
answers = [h.app.request("add name", name="a"), h.app.request("remember", name="b"), *(h.app.request(r.method, **k) for r, k in zip(h.app.routes, ({"name": "c"}, {})))]
h.app.pass_messages(block=False); h.run()
print("ANSWERS", [a.result(10) for a in answers], h.root.child.names, sorted(h.app.commands))
"""


def test_layouts_commands_and_routes_of_a_program_are_known(workspace):
    (workspace / "app.py").write_text(PAGES)
    p = subprocess.run([sys.executable, "-c", LOOK], cwd=workspace, env=os.environ, capture_output=True, text=True)
    assert p.returncode == 0, p.stderr
    layout, answers = [line for line in p.stdout.splitlines() if line.startswith(("LAYOUT", "ANSWERS"))]
    for part in ("{'name': 'page', 'flow': 'root.page'}", "'https://example.org'", "'work': 'root.server'", "'serve_dir': 'site'", "'render_fn': 'render'"):
        assert part in layout, layout
    assert "'1 names', " in answers and answers.endswith("['a', 'b', 'c'] ['add name', 'remember']"), answers
