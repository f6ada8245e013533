"""What Flows and Works mean, each point of the contract by name: one process, no ports, a clock of its own."""

import json
from datetime import datetime

import pytest

from lightning_pod.app import (
    App,
    CloudCompute,
    ConflictError,
    Dict,
    Drive,
    Flow,
    Harness,
    List,
    Path,
    Payload,
    TracerPythonScript,
    Work,
)
from lightning_pod.app.flow import Journal, StaticWebFrontend, StreamlitFrontend, VoilaFrontend, next_tick
from lightning_pod.app.old import Get, Post
from lightning_pod.app.state import fingerprint
from lightning_pod.app.work import KEPT_STATUSES, WorkStopped
from lightning_pod.core.config import PodError
from lightning_pod.core.trust import Untrusted, sign


class Add(Work):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.sum, self.calls = 0, 0

    def run(self, a=1, b=1):
        self.sum, self.calls = a + b, self.calls + 1


class Failing(Work):
    def __init__(self, times=1, **kwargs):
        super().__init__(**kwargs)
        self.tries, self.times, self.caught, self._made = 0, times, None, 0

    def run(self):
        self._made += 1  # not `self.tries += 1`: each try begins with the state of the first
        self.tries = self._made
        if self.tries <= self.times:
            raise ValueError(f"try {self.tries}")

    def on_exception(self, exception):
        self.caught = str(exception)
        super().on_exception(exception)


def flow_of(run, **children):
    """A Flow with these children and attributes, whose `run` is a function of it."""

    class Root(Flow):
        def __init__(self):
            super().__init__()
            for name, child in children.items():
                setattr(self, name, child)

        def run(self):
            run(self)

    return Root()


# ---- state


def test_keep_names_of_the_tree():
    class Child(Flow):
        def __init__(self):
            super().__init__()
            self.w = Add()

    root = flow_of(lambda f: None, child=Child(), many=[Add(), Child()], named={"a": Add()}, w=Add())
    App(root)
    assert [w.name for w in root.works()] == ["root.w", "root.child.w", "root.many.0", "root.many.1.w", "root.named.a"]
    assert list(root.flows) == ["root.child", "root.many.1"]
    assert root.works(recurse=False) == [root.w]
    assert dict(root.named_works())["root.many.1.w"] is root.many[1].w


def test_keep_list_indices_are_never_reused_and_keys_have_no_dots():
    root = flow_of(lambda f: None, many=List(Add(), Add()))
    App(root)
    root.many.pop(0)
    root.many.append(Add())
    assert [w.name for w in root.many] == ["root.many.1", "root.many.2"]
    with pytest.raises(AttributeError, match="without dots"):
        Dict()["a.b"] = Add()
    with pytest.raises(AttributeError, match="without dots"):
        Dict()[1] = Add()


@pytest.mark.parametrize(
    "value",
    [1, 2.5, "x", True, None, [1, {"a": [2]}], {"k": 1}, (1, 2), Drive("lit://d"), Path("p"), CloudCompute("gpu")],
)
def test_keep_values_that_may_be_state(value):
    root = flow_of(lambda f: None, value=value)
    assert root.value == value and "value" in root.state["vars"]


@pytest.mark.parametrize("value", [{1, 2}, object(), b"bytes", [object()], lambda: 1], ids=str)
def test_keep_other_values_are_refused(value):
    with pytest.raises(AttributeError, match="Name it _value"):
        flow_of(lambda f: None, value=value)


def test_keep_lit_strings_become_paths():
    assert isinstance(flow_of(lambda f: None, out="lit://models/a").out, Path)


def test_keep_a_new_public_attribute_later_is_an_error_and_private_ones_are_free():
    root = flow_of(lambda f: None, x=1)
    with pytest.raises(AttributeError, match="no attribute 'y'"):
        root.y = 1
    root._y = object()
    w = Add()
    with pytest.raises(AttributeError, match="There are: calls, sum"):
        w.total = 1


def test_keep_forgetting_super_init_is_told():
    class Forgetful(Flow):
        def __init__(self):
            self.x = 1

    with pytest.raises(AttributeError, match=r"super\(\).__init__\(\)"):
        Forgetful()


def test_keep_children_can_be_attached_in_run_and_not_replaced():
    def run(f):
        if not hasattr(f, "late"):
            f.late = Add()
        f.late.run(2)

    h = Harness(flow_of(run)).run()
    assert h.root.late.sum == 3 and h.root.late.name == "root.late"
    with pytest.raises(AttributeError, match="can't be replaced"):
        h.root.late = Add()


def test_keep_a_work_owns_no_components():
    class Owner(Work):
        def __init__(self):
            super().__init__()
            self.child = Add()

        def run(self): ...

    with pytest.raises(AttributeError, match="a Work has no children"):
        Owner()


def test_keep_a_payload_is_set_inside_of_run_only():
    class Early(Work):
        def __init__(self):
            super().__init__()
            self.p = Payload(1)

        def run(self): ...

    with pytest.raises(AttributeError, match="inside of a Work's run"):
        Early()


def test_keep_the_state_as_a_dictionary():
    h = Harness(flow_of(lambda f: f.w.run(), w=Add(), many=[Add()], x=1)).run()
    state = h.app.state
    assert set(state) == {"vars", "calls", "flows", "works", "structures", "changes", "app_state"}
    assert state["app_state"] == {"stage": "running"} and state["vars"] == {"x": 1}
    work = state["works"]["w"]
    assert work["vars"]["sum"] == 2 and {"_host", "_port", "_url"} <= set(work["vars"])
    assert [s["stage"] for s in work["calls"][work["calls"]["latest_call_hash"]]["statuses"]] == [
        "pending",
        "running",
        "succeeded",
    ]
    json.dumps(state)


def test_keep_state_dict_and_load_state_dict():
    a, b = (flow_of(lambda f: None, x=1, w=Add()) for _ in range(2))
    a.x, a.w.sum = 5, 7
    b.load_state_dict(a.state_dict(), {"w": a.w.state})
    assert (b.x, b.w.sum) == (5, 7) and a.state_dict()["works"] == {}
    with pytest.raises(ValueError, match=r"no children \['other'\]"):
        b.load_state_dict(a.state_dict(), {"other": {}})


def test_repair_the_size_limit_counts_real_bytes_and_names_the_attribute():
    def run(f):
        f.big = "x" * 3000
        f.w.run()

    h = Harness(App(flow_of(run, small=[1] * 10, big="", w=Add()), state_limit=2000))
    with pytest.raises(AttributeError, match=r"root\.big with 3,000"):
        h.run()


def test_repair_in_place_changes_are_seen():
    def run(f):
        if len(f.items) < 3:
            f.items.append({"n": len(f.items)})
        elif not f.items[0].get("seen"):
            f.items[0]["seen"] = True

    h = Harness(flow_of(run, items=[])).run()
    assert h.root.items == [{"n": 0, "seen": True}, {"n": 1}, {"n": 2}] and h.app.turns == 5


@pytest.mark.parametrize("where", ["flow", "work"])
def test_what_is_put_into_a_list_is_checked_too(where):
    class Spoils(Work):
        def __init__(self):
            super().__init__()
            self.items = []

        def run(self):
            self.items.append({1, 2})

    def run(f):
        f.w.run() if where == "work" else f.items.append(object())

    with pytest.raises(AttributeError, match=rf"root\.{'w.' if where == 'work' else ''}items = .*Name it _items"):
        Harness(flow_of(run, items=[], w=Spoils())).run()


# ---- the loop


def test_keep_a_flow_that_changes_nothing_is_not_called_again():
    h = Harness(flow_of(lambda f: setattr(f, "_n", getattr(f, "_n", 0) + 1))).run()
    assert h.root._n == 1
    h.advance(hours=5)
    assert h.root._n == 1


def test_keep_the_flow_is_called_again_as_long_as_it_changes_something():
    h = Harness(flow_of(lambda f: setattr(f, "n", min(10, f.n + 1)), n=0)).run()
    assert h.root.n == 10


def test_keep_stop_ends_with_0_and_fail_with_1(capsys):
    assert Harness(flow_of(lambda f: f.stop("that's it"))).run().exit_code == 0
    assert Harness(flow_of(lambda f: f.fail("too bad"))).run().exit_code == 1
    out = capsys.readouterr()
    assert "that's it" in out.out and "too bad" in out.err


def test_keep_on_exit_of_flows_and_works():
    gone = []

    class Leaving(Add):
        def on_exit(self):
            self.sum = -1

    class Root(Flow):
        def __init__(self):
            super().__init__()
            self.w = Leaving()

        def run(self):
            self.w.run()
            self.stop()

        def on_exit(self):
            gone.append(self.w.sum)

    Harness(Root()).run()
    assert gone == [-1]


def test_events_are_not_conflated():
    class Talking(Work):
        def run(self):
            for i in range(20):
                self.emit("count", i=i)

    def run(f):
        f.w.run()
        f.got = [*f.got, *(e["i"] for e in f.w.events())]

    assert Harness(flow_of(run, w=Talking(parallel=True), got=[])).run().root.got == list(range(20))


def test_keep_stages_of_the_app():
    app = App(flow_of(lambda f: f.fail() if f.bad else None, bad=False))
    assert app.stage == "blocking" and app.state["app_state"] == {"stage": "blocking"}
    h = Harness(app).run()
    assert app.stage == "running"
    h.root.bad = True
    h.run()
    assert app.stage == "failed" and h.exit_code == 1
    assert Harness(flow_of(lambda f: f.stop())).run().app.stage == "stopping"


# ---- calls


def test_keep_a_pending_or_running_call_is_not_sent_again():
    h = Harness(flow_of(lambda f: [f.w.run(1), f.w.run(2), f.n], n=0, w=Add(parallel=True)), skip=("root.w",)).run()
    for _ in range(3):
        h.root.n += 1
        h.run()
    sums = len(h.root.w.statuses)
    assert len(h.waiting) == 1 and list(h.root.w._pod_todo) == [h.root.w._pod_calls["latest_call_hash"]] and sums == 1


def test_keep_a_script_s_bytes_and_input_files_are_part_of_its_call(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "script.py").write_text("open('ran.txt', 'a').write('x')\n")
    (tmp_path / "data.csv").write_text("1")
    h = Harness(flow_of(lambda f: [f.t.run(), f.n], n=0, t=TracerPythonScript("script.py", input_files=["data.csv"])))
    for change, runs in (
        (lambda: None, 1),
        (lambda: (tmp_path / "other.csv").write_text("1"), 1),
        (lambda: (tmp_path / "script.py").write_text("open('ran.txt', 'a').write('xx'[:1])\n"), 2),
        (lambda: (tmp_path / "data.csv").write_text("22"), 3),
        (lambda: (tmp_path / "data.csv").write_text("1"), 3),  # as it was: that call has succeeded
    ):
        change()
        h.root.n += 1
        h.run()
        assert (tmp_path / "ran.txt").read_text() == runs * "x"


def test_keep_a_bounded_number_of_stages_of_a_call():
    h = Harness(flow_of(lambda f: f.w.run(), w=Failing(times=15, retries=20, backoff=0))).run().advance(seconds=1)
    w = h.root.w
    assert w.has_succeeded and w.tries == 16 and len(w.statuses) == KEPT_STATUSES


def test_keep_a_cached_call_is_made_once():
    h = Harness(flow_of(lambda f: (f.w.run(1), f.w.run(1), f.w.run(a=1, b=1), f.w.run(2)), w=Add())).run()
    assert h.root.w.calls == 2 and h.root.w.sum == 3 and h.root.w.num_successes == 2


def test_keep_parallel_false_ends_the_turn_at_the_call():
    reached = []

    def run(f):
        reached.append("before")
        f.w.run()
        reached.append("after")

    Harness(flow_of(run, w=Add())).run()
    assert reached[:2] == ["before", "before"] and reached[-1] == "after" and reached.count("after") == 1


def test_keep_parallel_true_returns_at_once_and_run_returns_none():
    stages = []
    h = Harness(flow_of(lambda f: stages.append((f.w.run(), f.w.status.stage)), w=Add(parallel=True))).run()
    assert stages[0] == (None, "pending") and stages[-1] == (None, "succeeded") and h.root.w.sum == 2


def test_keep_no_except_clause_of_a_flow_swallows_the_end_of_a_turn():
    def run(f):
        try:
            f.w.run()
        except Exception:
            f.swallowed = True

    assert Harness(flow_of(run, w=Add(), swallowed=False)).run().root.swallowed is False


def test_keep_calls_are_first_in_first_out():
    class Order(Work):
        def __init__(self):
            super().__init__(parallel=True)
            self.order = []

        def run(self, x):
            self.order.append(x)

    assert Harness(flow_of(lambda f: [f.w.run(i) for i in range(5)], w=Order())).run().root.w.order == [0, 1, 2, 3, 4]


def test_keep_stages_and_tests_of_them():
    h = Harness(flow_of(lambda f: f.w.run() if f.go else None, go=False, w=Add(parallel=True)), skip=("root.w",)).run()
    w = h.root.w
    assert w.status.stage == "not_started" and not w.has_started
    h.root.go = True
    h.run()
    assert w.is_running and w.has_started and not w.has_succeeded
    h.finish("root.w", sum=9)
    assert w.has_succeeded and w.sum == 9 and [s.stage for s in w.statuses] == ["pending", "running", "succeeded"]
    assert all(s.timestamp > 1.6e9 for s in w.statuses)


def test_keep_a_returned_value_is_an_error():
    class Returning(Work):
        def run(self):
            return 3

    h = Harness(flow_of(lambda f: f.w.run(), w=Returning(raise_exception=False))).run()
    assert (
        h.root.w.has_failed
        and h.root.w.status.reason == "invalid_return_value"
        and "self.result" in h.root.w.status.message
    )


def test_keep_a_failure_has_its_traceback_then_on_exception_then_fails_the_app():
    h = Harness(flow_of(lambda f: f.w.run(), w=Failing()))
    with pytest.raises(RuntimeError, match="try 1"):
        h.run()
    w = h.root.w
    assert w.has_failed and w.status.reason == "user_exception" and 'raise ValueError(f"try' in w.status.message
    assert "work.py" not in w.status.message  # the runtime's own frames are left out
    assert w.caught == "try 1" and h.exit_code == 1


def test_keep_raise_exception_false_lets_the_work_live():
    class Sometimes(Work):
        def __init__(self):
            super().__init__(parallel=True, raise_exception=False)
            self.done = []

        def run(self, x):
            if x == 1:
                raise ValueError(x)
            self.done.append(x)

    h = Harness(flow_of(lambda f: [f.w.run(i) for i in range(3)], w=Sometimes())).run()
    assert h.root.w.done == [0, 2] and h.exit_code is None


def test_repair_parallel_false_without_cache_waits_for_one_success_then_goes_on():
    def run(f):
        if f.rounds == 3:
            f.stop()
        f.w.run()
        f.rounds += 1

    h = Harness(flow_of(run, w=Add(cache_calls=False), rounds=0)).run()
    assert h.root.rounds == 3 and h.root.w.calls == 3


def test_repair_two_calls_without_cache_take_turns():
    def run(f):
        f.a.run()
        f.b.run()
        f.rounds += 1
        if f.rounds == 3:
            f.stop()

    h = Harness(flow_of(run, a=Add(cache_calls=False), b=Add(cache_calls=False), rounds=0)).run()
    assert (h.root.a.calls, h.root.b.calls) == (3, 3)


def test_keep_parallel_true_without_cache_is_queued_again():
    h = Harness(flow_of(lambda f: f.w.run() if f.w.calls < 4 else None, w=Add(parallel=True, cache_calls=False))).run()
    assert h.root.w.calls == 4


def test_repair_a_failed_call_can_be_made_again_with_retries_and_backoff():
    h = Harness(flow_of(lambda f: f.w.run(), w=Failing(times=2, retries=2, backoff=10))).run()
    w = h.root.w
    assert w.tries == 1 and w.is_pending and w.status.reason == "retry"
    h.advance(seconds=10)
    assert w.tries == 2 and w.is_pending
    h.advance(seconds=19)
    assert w.tries == 2
    h.advance(seconds=1)
    assert w.tries == 3 and w.has_succeeded and w.caught is None


def test_repair_retries_of_one_call_and_retry_by_hand():
    def run(f):
        f.w.using(retries=1, backoff=0).run()

    h = Harness(flow_of(run, w=Failing(times=3, raise_exception=False))).run()
    h.advance(seconds=1)
    w = h.root.w
    assert w.tries == 2 and w.has_failed and w.caught == "try 2"
    w.retry()
    h.run().advance(seconds=1)
    assert w.tries == 4 and w.has_succeeded
    with pytest.raises(TypeError, match="unknown attempts"):
        w.using(attempts=3)


def test_repair_a_call_that_waits_too_long_fails():
    h = Harness(
        flow_of(
            lambda f: [f.w.run(1), f.w.run(2)],
            w=Add(parallel=True, raise_exception=False, cloud_compute=CloudCompute(wait=5)),
        ),
        skip=("root.w",),
    ).run()
    h.advance(seconds=6)
    assert h.root.w.has_timeout and "waited to be started" in h.root.w.status.message
    assert h.root.w.num_timeouts == 1


def test_repair_run_after_stop_starts_it_again():
    def run(f):
        if f.go:
            f.w.run()

    h = Harness(flow_of(run, go=True, w=Add(parallel=True)), skip=("root.w",)).run()
    h.root.w.stop()
    h.root.go = False
    h.run()
    assert h.root.w.has_stopped and h.root.w._pod_process.state == "none"
    h.root.go = True
    h.run()
    assert h.root.w.is_running and h.root.w._pod_process.generation == 2
    h.finish("root.w", sum=5)
    h.root.w.stop()
    h.run()
    assert (
        h.root.w.has_stopped and h.root.w._pod_calls[h.root.w._pod_calls["latest_call_hash"]]["ret"] is None
    )  # the success is kept


def test_repair_has_started_is_true_once_a_call_was_made():
    h = Harness(flow_of(lambda f: None, w=Add())).run()
    assert h.root.w._pod_process.state == "up" and not h.root.w.has_started
    cold = Harness(flow_of(lambda f: f.w.start() if f.warm else None, warm=False, w=Add(start_with_flow=False))).run()
    assert cold.root.w._pod_process.state == "none"
    cold.root.warm = True
    cold.run()
    assert cold.root.w.status.stage == "started"


def test_repair_a_conflicting_write_is_an_error_on_both_sides(capsys):
    h = Harness(flow_of(lambda f: f.w.run(), w=Add(parallel=True)), skip=("root.w",)).run()
    runner, _ = h.runners["root.w"]
    runner.key = next(iter(h.waiting))[1][0]
    runner.work.sum = 10
    runner.dirty, dirty = {}, runner.dirty  # sent, but still on its way …
    h.root.w.sum = 20  # … when the Flow writes
    assert runner.seen["sum"] == 1
    h.app._on_vars(h.root.w, {n: (0, 10) for n in dirty if n == "sum"})
    assert h.root.w.sum == 20 and "ConflictError: root.w.sum" in capsys.readouterr().err
    with pytest.raises(ConflictError, match="the Flow's value stands"):
        runner.work.calls = 1
    runner.key = None
    h.finish("root.w")
    assert h.root.w.has_failed and h.root.w.status.reason == "conflict"


def test_old_programs_keep_the_later_write_with_a_warning():
    from lightning_pod.app.old import LightningApp

    h = Harness(LightningApp(flow_of(lambda f: f.w.run(), w=Add(parallel=True))), skip=("root.w",)).run()
    h.root.w.sum = 20
    with pytest.warns(UserWarning, match="the Work's value stands"):
        h.app._on_vars(h.root.w, {"sum": (0, 10)})
    assert h.root.w.sum == h.runners["root.w"][0].work.sum == 10  # on both sides


def test_repair_a_flow_s_value_is_seen_in_a_running_call():
    h = Harness(flow_of(lambda f: f.w.run(), w=Add(parallel=True)), skip=("root.w",)).run()
    h.root.w.sum = 77
    assert h.runners["root.w"][0].work.sum == 77
    h.root.w.sum = 77
    assert h.root.w._pod_versions["sum"] == 1  # the same value is no change


def test_a_call_with_wrong_arguments_fails_in_the_flow():
    with pytest.raises(TypeError, match=r"root\.w\.run: got an unexpected keyword argument 'c'"):
        Harness(flow_of(lambda f: f.w.run(c=1), w=Add())).run()


def test_a_call_outside_of_run_is_refused():
    h = Harness(flow_of(lambda f: None, w=Add())).run()
    with pytest.raises(PodError, match="outside of a Flow's run"):
        h.root.w.run()


def test_a_bounded_number_of_calls_is_kept_and_old_ones_stay_hits():
    def run(f):
        for i in range(600):
            f.w.run(i)

    h = Harness(flow_of(run, w=Add(parallel=True))).run()
    w = h.root.w
    assert w.calls == 600 and len(w._pod_calls) < 210 and not w._pod_args
    h.root._x = 0
    h.app._changed = True
    assert h.run().root.w.calls == 600


# ---- going on, without processes


def resumed(make, journal, times=1):
    """An app that is run, and run again from its journal: the second one."""
    for _ in range(times + 1):
        app = App(make())
        app.journal = Journal(journal)
        h = Harness(app).run()
        app.journal.close()
    return h


def test_repair_a_resume_gives_back_what_was_set(tmp_path):
    values = {"pair": (1, (2, [3])), "by_number": {1: {2.5: None, True: "x"}}, "plain": [1, {"a": None}], "nan": [float("inf")], "none": None}

    class Root(Flow):
        def __init__(self):
            super().__init__()
            self.round = 0
            for name in values:
                setattr(self, name, None)

        def run(self):
            if self.round == 0:
                self.round = 1
                for name, value in values.items():
                    setattr(self, name, value)

    root = resumed(Root, tmp_path / "state.jsonl", times=2).root
    assert {n: getattr(root, n) for n in values} == values and type(root.by_number[1]) is dict
    assert not (tmp_path / "state.jsonl").read_text().count("pickle")  # a state can be read without running it


def test_a_child_may_take_the_place_of_none(tmp_path):
    class Root(Flow):
        def __init__(self):
            super().__init__()
            self.w = None

        def run(self):
            if self.w is None:
                self.w = Add()
            self.w.run(2)

    h = resumed(Root, tmp_path / "state.jsonl")
    assert h.root.w.sum == 3 and h.root.w.calls == 1 and h.root.w.name == "root.w"


def test_repair_a_resumed_script_keeps_the_call_whose_arguments_the_flow_changed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "script.py").write_text("import sys\nopen('ran.txt', 'a').write(' '.join(sys.argv[1:]) + ';')\n")

    def run(f):
        if not f.asked:
            f.asked, f.t.script_args = True, ["--lr", "0.5"]
        f.t.run()
        f.t.run(params={"x": 1})  # changes the arguments in the Work, which isn't the Flow's doing

    def make():
        return flow_of(run, asked=False, t=TracerPythonScript("script.py", ["--lr", "0.1"]))

    h = resumed(make, tmp_path / "state.jsonl", times=2)
    assert h.root.t.num_successes == 2 and (tmp_path / "ran.txt").read_text() == "--lr 0.5;--lr 0.1 x=1;"


# ---- services


def test_keep_schedule_is_true_at_first_then_once_a_tick():
    seen = []
    h = Harness(
        flow_of(lambda f: seen.append(h.now) if f.schedule("hourly") else None), now=datetime(2026, 5, 1, 10, 30)
    )
    h.run().advance(hours=3)
    assert seen == [datetime(2026, 5, 1, 10, 30), *(datetime(2026, 5, 1, i) for i in (11, 12, 13))]


def test_repair_schedule_latches_until_the_block_is_done():
    def run(f):
        if f.schedule("daily"):
            f.a.run()
            f.b.run()
            f.rounds += 1

    h = Harness(flow_of(run, a=Add(cache_calls=False), b=Add(cache_calls=False), rounds=0)).run()
    assert h.root.rounds == 1
    h.advance(days=2)
    assert (h.root.rounds, h.root.a.calls, h.root.b.calls) == (3, 3, 3)


def test_keep_schedule_with_start_time_and_user_key():
    def run(f):
        for name in ("a", "b"):
            if f.schedule("0 12 * * *", start_time=datetime(2026, 1, 10), user_key=name):
                f.n += 1

    h = Harness(flow_of(run, n=0), now=datetime(2026, 1, 1)).run()
    assert h.root.n == 2
    h.advance(days=9)
    assert h.root.n == 2  # ticks are counted from the start time on
    h.advance(days=1)
    assert h.root.n == 4


def test_every_wakes_the_app():
    h = Harness(flow_of(lambda f: setattr(f, "n", f.n + 1) if f.every(10) else None, n=0)).run()
    h.advance(seconds=35)
    assert h.root.n == 4


@pytest.mark.parametrize(
    "pattern", ["", "* * * *", "60 * * * *", "a * * * *", "*/0 * * * *", "5-2 * * * *", "sometimes"]
)
def test_a_wrong_pattern_is_told(pattern):
    with pytest.raises(PodError, match="expected five fields"):
        next_tick(pattern, datetime(2026, 1, 1))


def test_keep_layouts():
    class Shown(Flow):
        def configure_layout(self):
            return StaticWebFrontend("site")

    class Root(Flow):
        def __init__(self):
            super().__init__()
            self.a, self.w = Shown(), Add()

        def configure_layout(self):
            return [
                {"name": "A", "content": self.a},
                {"name": "W", "content": self.w},
                {"name": "U", "content": "https://x"},
            ]

    h = Harness(Root()).run()
    assert h.root._pod_layout == [
        {"name": "A", "flow": "root.a"},
        {"name": "W", "work": "root.w", "url": ""},
        {"name": "U", "url": "https://x"},
    ]
    assert h.root.a._pod_layout == [{"name": "", "frontend": {"type": "StaticWebFrontend", "serve_dir": "site"}}]
    assert Harness(flow_of(lambda f: None, child=Shown())).run().root._pod_layout == [
        {"name": "child", "flow": "root.child"}
    ]


@pytest.mark.parametrize(
    ("layout", "shown"),
    [
        (VoilaFrontend("page.ipynb"), [{"name": "", "frontend": {"type": "VoilaFrontend", "notebook": "page.ipynb"}}]),
        (StreamlitFrontend(flow_of), [{"name": "", "frontend": {"type": "StreamlitFrontend", "render_fn": "flow_of"}}]),
        ({"name": "one", "content": "https://x"}, [{"name": "one", "url": "https://x"}]),
        ([], []),
    ],
    ids=["voila", "streamlit", "dictionary", "nothing"],
)
def test_keep_what_a_layout_may_be(layout, shown):
    class Root(Flow):
        def configure_layout(self):
            return layout

    assert Harness(Root()).run().root._pod_layout == shown


@pytest.mark.parametrize("layout", [[3], [{"name": "x"}], {"name": "a", "content": 3}])
def test_a_wrong_layout_is_told(layout):
    class Root(Flow):
        def configure_layout(self):
            return layout

    with pytest.raises(PodError, match="configure_layout"):
        Harness(Root()).run()


def test_keep_commands():
    class Root(Flow):
        def __init__(self):
            super().__init__()
            self.names = []

        def configure_commands(self):
            return [{"add": self.add}]

        def add(self, name):
            self.names.append(name)
            return len(self.names)

    h = Harness(Root()).run()
    answers = h.app.request("add", name="x"), h.app.request("nope")
    h.app.pass_messages(block=False)
    assert answers[0].result(0) == 1 and h.root.names == ["x"]
    with pytest.raises(PodError, match="there are add"):
        answers[1].result(0)


def test_keep_routes_of_the_api():
    class Child(Flow):
        def configure_api(self):
            return [Get("/names", self.names_of)]

        def names_of(self):
            return list(self.names)

        def __init__(self):
            super().__init__()
            self.names = []

    class Root(Flow):
        def __init__(self):
            super().__init__()
            self.child, self.w = Child(), Add(parallel=True)

        def configure_api(self):
            return [Post("/add", self.add, timeout=3)]

        def add(self, name):
            self.child.names.append(name)
            self.w.run(len(self.child.names))
            return len(self.child.names)

    h = Harness(Root()).run()
    post, get = h.app.routes
    assert [(type(r).__name__, r.route, r.name, r.timeout) for r in (post, get)] == [
        ("Post", "/add", "post", 3),
        ("Get", "/names", "get", 30),
    ]
    answers = [h.app.request(post.method, name="x"), h.app.request(get.method), h.app.request(post.method, no="x")]
    h.app.pass_messages(block=False)
    assert [a.result(0) for a in answers[:2]] == [1, ["x"]] and h.run().root.w.sum == 2  # between two turns, as a Flow
    with pytest.raises(TypeError, match="unexpected keyword argument 'no'"):
        answers[2].result(0)


def test_keep_ready():
    class Slow(Flow):
        def __init__(self):
            super().__init__()
            self.up = False

        @property
        def ready(self):
            return self.up

    root = flow_of(lambda f: None, a=Slow(), b=Slow())
    root.a.up = True
    assert not root.ready
    root.b.up = True
    assert root.ready


def test_keep_iterate():
    def run(f):
        for i in f.experimental_iterate(range(4)):
            f.w.run(i)

    assert Harness(flow_of(run, w=Add())).run().root.w.calls == 4


def test_keep_a_work_can_be_the_root():
    h = Harness(Add()).run()
    assert h.exit_code == 0 and h.root.work.sum == 2


def test_port_is_found_when_first_asked_and_known_on_both_sides():
    class Asking(Work):
        def __init__(self):
            super().__init__()
            self.heard = None

        def run(self):
            self.heard = self.port

    asked = Harness(flow_of(lambda f: (f.port, f.w.run())[0], port=0, w=Asking()))
    asked.run()
    assert asked.root.w.heard == asked.root.w.port
    assert Add(port=1234).port == 1234 and Add().host == "127.0.0.1"


def test_a_stop_can_be_told_apart_from_a_failure():
    assert not issubclass(WorkStopped, Exception)


def test_equal_values_have_equal_fingerprints():
    a = {"x": [1.5, "y", None, True], "z": {"k": 2**70}}
    assert fingerprint(a) == fingerprint(json.loads(json.dumps(a))) != fingerprint({**a, "w": 1})


# ---- a call that is made again


class Half(Work):
    """Changes its state in each way there is, and fails half way as often as it is told."""

    def __init__(self, times=1, **kwargs):
        super().__init__(**kwargs)
        self.total, self.items, self.table, self.text, self.given, self.caught, self._left = 10, [0], {"n": 0}, "a", 1, 0, times

    def run(self, k=1):
        self.total += k
        self.items.append(k)
        self.table["n"] += k
        self.text += "b"
        if self._left:
            self._left -= 1
            raise ValueError("half way")
        self.total += k

    def on_exception(self, exception):
        self.caught += 1
        super().on_exception(exception)

    @property
    def all(self):
        return self.total, self.items, self.table, self.text


WHOLE = (12, [0, 1], {"n": 1}, "ab")  # one call, made once


def test_a_call_that_is_made_again_begins_with_the_state_of_its_start():
    h = Harness(flow_of(lambda f: f.w.run(), w=Half(times=3, retries=3, backoff=0))).run().advance(seconds=1)
    assert h.root.w.has_succeeded and h.root.w.all == WHOLE

    def by_hand(f):
        if f.w.has_failed:
            f.w.retry()
        f.w.run()

    h = Harness(flow_of(by_hand, w=Half(times=2, raise_exception=False))).run()
    assert h.root.w.has_succeeded and h.root.w.all == WHOLE
    assert h.root.w.caught == 2  # what on_exception sets isn't the call's

    def stopped(f):
        f.w.run()
        if f.w.total == 11 and not f.stopped:
            f.stopped = True
            f.w.stop()

    h = Harness(flow_of(stopped, w=Half(times=0, parallel=True), stopped=False), skip=("root.w",)).turn().turn()
    h.runners["root.w"][0].key = h.waiting[0][1][0]
    h.runners["root.w"][0].work.total = 11  # half a call …
    h.runners["root.w"][0].flush()
    h.app.pass_messages(block=False)
    assert h.root.w.total == 11
    h.turn()
    assert h.root.stopped
    h.skip.clear()
    h.run()
    assert h.root.w.has_succeeded and h.root.w.all == WHOLE


def test_what_the_flow_has_set_stands_when_a_call_is_made_again():
    def run(f):
        if f.w.has_failed:
            f.w.given, f.w.text = 7, "new"
            f.w.retry()
        f.w.run()

    h = Harness(flow_of(run, w=Half(raise_exception=False))).run()
    assert (h.root.w.given, h.root.w.text, h.root.w.total) == (7, "newb", 12)


def test_what_another_call_has_changed_since_stands_and_is_told(capsys):
    def run(f):
        f.w.run(1)
        if f.w.has_failed and f.other == 0:
            f.w.run(5)
            f.other = 1
        elif f.w.has_succeeded and f.other == 1:
            f.other = 2
            f.w._pod_calls["latest_call_hash"] = next(iter(f.w._pod_args))
            f.w.retry()

    h = Harness(flow_of(run, w=Half(raise_exception=False, parallel=True), other=0)).run()
    assert h.root.w.total == 10 + 1 + 5 + 5 + 1 + 1 and h.root.other == 2
    assert "root.w.total: a call is made again, and this isn't as it was at its start" in capsys.readouterr().err


def test_an_interruptible_work_goes_on_from_what_it_has_left():
    w = Half(retries=1, backoff=0, cloud_compute=CloudCompute(interruptible=True))
    h = Harness(flow_of(lambda f: f.w.run(), w=w)).run().advance(seconds=1)
    assert h.root.w.has_succeeded and h.root.w.total == 10 + 1 + 2


@pytest.mark.parametrize("options", [{}, {"cache_calls": False}])
def test_a_flow_that_waits_for_a_failed_call_says_so_once_with_file_and_line(capsys, options):
    def run(f):
        f.turns += 1 if f.turns < 5 else 0
        f.w.run()

    Harness(flow_of(run, w=Half(raise_exception=False, **options), turns=0)).run()
    err = capsys.readouterr().err
    line = run.__code__.co_firstlineno + 2
    assert err.count("the Flow waits at") == 1 and f"test_app_harness.py, line {line}: f.w.run()" in err
    assert "ValueError: half way" in err and "self.w.retry()" in err


def test_a_flow_that_goes_on_after_a_failure_says_nothing_of_waiting(capsys):
    def caught(f):
        f.w.run()

    for work in (Half(raise_exception=False, parallel=True), Half(raise_exception=False, retries=1, backoff=0)):
        Harness(flow_of(caught, w=work)).run().advance(seconds=5)
    with pytest.raises(Exception, match="half way"):
        Harness(flow_of(caught, w=Half())).run().advance(seconds=5)
    assert "the Flow waits" not in capsys.readouterr().err


def test_a_work_may_change_what_the_flow_had_set_before_its_process_was_there():
    def run(f):
        if f.w.status.stage == "not_started":
            f.w.total = 100
        f.w.run()

    h = Harness(flow_of(run, w=Half(times=0, start_with_flow=False))).run()
    assert h.root.w.total == 102 and h.root.w.has_succeeded


# ---- start()


@pytest.mark.parametrize("warm", [True, False])
def test_start_makes_a_work_started_whether_or_not_its_process_was_warmed_up(warm):
    seen = []

    def run(f):
        if f.step == 0:
            f.w.start()
            f.w.start()  # it has been asked for already
        elif f.step == 1 and f.w.status.stage == "started":
            f.w.run()
        elif f.step == 2 and f.w.has_succeeded:
            f.w.start()  # it has a call: that one's status stays
            f.w.stop()
        elif f.step == 3 and f.w._pod_process.state == "none":
            f.w.start()
        seen.append(f.w.status.stage)
        f.step += seen[-1] in (("pending", "started"), ("pending",), ("stopped",), ("pending", "started"), ())[f.step]

    h = Harness(flow_of(run, w=Add(parallel=True, start_with_flow=warm), step=0)).run(turns=50)
    assert h.root.w.status.stage == "started" and h.root.w.calls == 1 and h.root.step == 4
    assert [s.stage for s in h.root.w.statuses][:2] == ["pending", "started"]


def test_a_work_that_was_started_and_stopped_before_its_process_was_there_is_stopped():
    def run(f):
        if f.step == 0:
            f.w.start()
            f.w.stop()
        f.step = 1

    h = Harness(flow_of(run, w=Add(start_with_flow=False), step=0)).run()
    assert [s.stage for s in h.root.w.statuses] == ["pending", "stopped"]


class Counts(Flow):
    def __init__(self):
        super().__init__()
        self.n, self.pair = 0, (0, 1)

    def run(self):
        self.n += 1
        self.pair = (self.n, {3: "x"})
        if self.n == 3:
            self.stop()


DAMAGED = {  # what is done to a line of the journal -> what is said
    "overwritten": (lambda line: bytes(9) + line[9:], "line 2 (Expecting value"),
    "another program's": (lambda line: b"[1, 2]", "line 2 (expected any of vars, calls"),
    "another part": (lambda line: b'{"var": {}}', "line 2 (expected any of vars, calls"),
    "no components": (lambda line: b'{"vars": {"root": 3}}', "line 2 (vars: expected values by component"),
    "a literal cut short": (lambda line: b'{"vars": {"root": {"pair": {"type": "__literal__", "text": "(1,"}}}}', "root: "),
    "a pickle that is none": (lambda line: b'{"vars": {"root": {"pair": {"type": "__pickle__", "data": "%%.0"}}}}', "'%%.0'"),
    "a pickle without data": (lambda line: b'{"vars": {"root": {"pair": {"type": "__pickle__"}}}}', "can't be read back"),
}


@pytest.mark.parametrize("trusted", [False, True])
@pytest.mark.parametrize("how", DAMAGED)
def test_a_damaged_journal_is_told_with_its_file_and_what_to_do_and_stays_as_it_is(tmp_path, how, trusted):
    file = tmp_path / "state.jsonl"
    app = App(Counts())
    app.journal = Journal(file)
    Harness(app).run()
    app.journal.close()
    damage, says = DAMAGED[how]
    lines = file.read_bytes().split(b"\n")
    at = next(i for i, line in enumerate(lines) if b"pair" in line)
    wrong = damage(lines[at])
    text = b"\n".join([lines[0], wrong, *lines[1:]] if says.startswith("line") else [*lines[:-1], wrong, b""])
    file.write_bytes(text)
    if trusted:
        sign(file)
    with pytest.raises(PodError) as e:
        app = App(Counts())
        app.journal = Journal(file)
        Harness(app).run()
    said = str(e.value)
    assert not isinstance(e.value, Untrusted) and str(file) in said and "damaged" in said, said
    assert ("begin anew" in said) and (says in said or trusted), said
    if says.startswith("line"):
        assert file.read_bytes() == text


def test_a_program_may_have_an_attribute_of_the_name_of_what_a_trainer_reports(tmp_path):
    class Mine(TracerPythonScript):
        def __init__(self):
            super().__init__(__file__)
            self.training = True

    report = {"done": 3, "total": 9, "best_model_path": None, "metrics": {}, "epoch": 0, "epochs": 1, "step": 3}
    for work, shown in ((Mine(), True), (TracerPythonScript(__file__), report)):
        work._pod_tell(report)
        assert work.training == shown and work.state_vars["vars"]["_training"] == report
        assert ("training" in work.state_vars["vars"]) == isinstance(work, Mine)
        again = type(work)() if isinstance(work, Mine) else TracerPythonScript(__file__)
        again.set_state(work.state)
        assert again.training == shown and again._pod_training == report
