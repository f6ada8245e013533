"""Every private name is the program's, but for those with the runtime's prefix."""

import inspect

from lightning_pod.app import drive, flow, old, script, state, work
from lightning_pod.app.drive import Drive, Path, Payload
from lightning_pod.app.flow import Flow
from lightning_pod.app.old import LightningTrainerScript
from lightning_pod.app.script import FabricMultiNode, PopenPythonScript, PythonServer, TracerPythonScript
from lightning_pod.app.state import Dict, List
from lightning_pod.app.work import Work

# what lightning-app 2.3.2 and this runtime have used for themselves, on any of these classes
NAMES = """
_adopt _aggregate_status_timeout _apart _api_name _app _apply _args _as_dict _attach_predict_fn _backend _batch _begin
_cache_calls _call_hash _calls _changed _changes _check_for_allow_duplicates _check_run_is_implemented _children
_cleanup_calls _cloud_build_config _cloud_compute _cold_start_proxy _collect_component_names _consumer _copy
_default_setattr _display_name _done _end_process _events _exit_code _exit_event _fastapi_app _file _files _find_match
_flows _fs _future_url _get _get_property_if_exists _grace _here _host _inputs _input_type _internal _internal_ip _iter
_keep _key _key_args _last_index _launch_server _layout _lightningignore _like _local_build_config _metadata _mine
_model _named _name _need_app _needs _note _on_init_end _on_set _open _options _origin _output_type _owned_by _parallel
_path _paths _populate_app _port _prints _process _public_ip _put _queue _raise_exception _request_queue
_response_queue _responses _restarting _runner _run_tracer _run_with_subprocess_popen _scan _script_runner
_script_runner_kwargs _server_status _set _setattr_replacement _stage _start_with_flow _state _structures _sync _tell
_texts _theme _tick _to_shared_path _todo _tree _trainer_init_pre_middleware _unpack _url _validate_path
_validate_queues _value _vars _versions _work _work_args _work_class _work_cls _work_kwargs _work_registry _works
_wrap_run_for_caching _x
""".split()
PROGRAM = f"""
import os
import lightning.app as L
from lightning.app.components import TracerPythonScript
from lightning.app.storage import Drive, Path, Payload
from lightning.app.structures import Dict, List

NAMES = {NAMES!r}
class Mine:
    def take(self):
        for name in NAMES: setattr(self, name, "mine " + name)
    def look(self):
        for name in NAMES: assert getattr(self, name) == "mine " + name, name
class MyDrive(Mine, Drive): pass
class MyPath(Mine, Path): pass
class MyPayload(Mine, Payload): pass
class Make(Mine, L.LightningWork):
    def __init__(self):
        self.take()
        super().__init__(parallel=True)
        self.items, self.where, self.table, self.drive = [], None, None, MyDrive("lit://files", allow_duplicates=True)
        self.drive.take()
        self.take()
    def run(self, x):
        self.look()
        self.drive.look()
        self.items.append(x)
        open("made.txt", "w").write("made")
        self.drive.put("made.txt")
        path = MyPath("made.txt")
        path.take()
        self.where = path
        table = MyPayload(dict(x=x))
        table.take()
        self.table = table
        self.port
class Script(Mine, TracerPythonScript):
    def __init__(self):
        super().__init__("script.py", ["1"], outputs=["y"])
        self.take()
    def on_after_run(self, res):
        self.look()
        super().on_after_run(res)
class Use(Mine, L.LightningWork):
    def run(self, where, table, drive):
        where.take()
        assert (where.parent / where.name).read_text() == "made" and table.value == dict(x=3)
        drive.get("made.txt", component_name="root.child.make", overwrite=True)
class Child(Mine, L.LightningFlow):
    def __init__(self):
        super().__init__()
        self.take()
        self.make, self.many = Make(), List(Make())
    def run(self):
        self.look()
        self.make.run(3)
        self.many[0].run(4)
class Root(Mine, L.LightningFlow):
    def __init__(self):
        self.take()
        super().__init__()
        self.child, self.script, self.named, self.n = Child(), Script(), Dict(use=Use()), 0
        self.take()
    def run(self):
        self.look()
        self.child.run()
        if self.schedule("hourly"): self.n += 1
        if not all(w.has_succeeded for w in self.child.works()): return
        self.script.run()
        self.named["use"].run(self.child.make.where, self.child.make.table, self.child.make.drive)
        for w in self.works(): assert w.has_succeeded or w is self.script, (w.name, w.status)
        self.child.make.look()
        print("MINE", self.n, self.child.make.items, self.script.y.value, self.child.make.where.origin_name, self.child.make.port > 0)
        self.child.make.stop()
        self.stop()
app = L.LightningApp(Root())
"""


def test_a_program_may_use_every_private_name(pod, workspace):
    (workspace / "script.py").write_text("import sys\ny = int(sys.argv[1])\n")
    (workspace / "app.py").write_text(PROGRAM)
    assert "MINE 1 [3] 1 root.child.make True" in pod("run", "app.py", timeout=60).stdout


def test_the_runtime_s_own_names_have_one_prefix():
    rooms = [vars(m).values() for m in (drive, flow, old, script, state, work)]
    kinds = (Drive, Path, Payload, Flow, Work, List, Dict)
    classes = {c for room in rooms for c in room if isinstance(c, type) and issubclass(c, kinds)}
    assert {TracerPythonScript, FabricMultiNode, LightningTrainerScript} < classes
    for made in classes:
        bases = [c for c in made.__mro__ if c.__module__.startswith("lightning_pod.")]
        names = {n for c in bases for n in vars(c) if n[0] == "_" and not n.startswith(("__", "_pod_", "_abc_"))}
        assert names <= {"_exit", "_to_script_args"}, (made, names)  # which lightning.app had as well

    class Sleep(Work):
        def run(self): ...

    file = inspect.getsourcefile(Sleep)
    made = Sleep(), Flow(), TracerPythonScript(file), PopenPythonScript(file), PythonServer(), List(), Payload(1)
    for one in (*made, LightningTrainerScript(file), FabricMultiNode(Sleep)):
        assert [n for n in vars(one) if n[0] == "_" and not n.startswith("_pod_")] == []
