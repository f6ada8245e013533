"""Studies as real processes: steered, killed, stopped, taken up again, sharing a database."""

import os
import signal
import time

import psutil
import pytest
import torch
from conftest import alive, event, litter, wait_for

from lightning_pod.core.config import PodError
from lightning_pod.core.job import Job
from lightning_pod.core.sources import digits
from lightning_pod.train.fit import fit, same_weights
from lightning_pod.train.runs import list_runs, load_run
from lightning_pod.train.tune import Study, load_study, make_pruner, make_sampler, make_space, studies, tune

SPACE = {"lr": {"low": 0.005, "high": 0.1, "log": True}, "ema": [False, True]}


def begin(space=SPACE, **more) -> Study:
    """A study of small trainings in a process of its own."""
    return tune("digits", space, model="podnet_n", loggers="none", background=True, **more)


def ended(study: Study) -> dict:
    """The study when it has ended: what it came to."""
    assert study.wait(240) == "done", (study.info, study.log()[-3000:], words_of_workers(study))
    return study.summary()


def words_of_workers(study: Study) -> str:
    return "".join(p.read_text()[-2000:] for p in study.path.glob("worker*.txt"))


def training(study: Study, epochs: int = 1, but: tuple = ()) -> list[int]:
    """The numbers of the trials that are in their training, each at least so many epochs."""
    rows = [study._row(t) for t in study._trials()]
    return [r["number"] for r in rows if r["state"] == "running" and r["run"] and r["number"] not in but
            and load_run(r["run"]).status == "running" and len(load_run(r["run"]).history.rows) >= epochs]


def finished(study: Study) -> dict:
    """number → (state, value, run) of what Optuna was told."""
    return {r["number"]: (r["state"], r["values"], r["run"])
            for r in map(study._row, study._trials()) if r["state"] in ("done", "pruned", "failed", "skipped")}


def workers_of(study: Study) -> list[psutil.Process]:
    return psutil.Process(study.info["pid"]).children()


# ---- at once, and steered


def test_two_workers_steered_while_they_run(workspace):
    study = begin(trials=3, workers=2, epochs=30)
    wait_for(lambda: len(training(study)) == 2, 90, "two trainings at once")
    assert len(workers_of(study)) == 2
    assert {p.environ()["OMP_NUM_THREADS"] for p in workers_of(study)} == {os.environ.get("OMP_NUM_THREADS", "1")}
    first, second = training(study)[:2]
    view = load_study("last")  # any process may steer
    view.skip(first)
    added = view.add(lr=0.02, ema=False)
    cloned = view.clone(second, lr=0.05, epochs=1)
    waiting = view.add(lr=0.01)
    view.skip(waiting)
    assert view._row(view._trial(waiting))["state"] == "skipped"
    wait_for(lambda: first in finished(study), 30, "the skipped trial to end")
    assert load_run(study._row(study._trial(first))["run"]).status == "stopped" and study.status == "running"
    load_run(study._row(study._trial(second))["run"]).stop(wait=False, note="its study stops, says Jo")
    wait_for(lambda: added in training(study), 60, "the added trial to be trained")
    view.skip(added)
    view.extend(1)
    rows = {r["number"]: r for r in study.to_dict()["trials"]}
    assert rows[added]["params"] == {"lr": 0.02, "ema": False} and rows[added]["why"]
    assert rows[cloned]["params"] == {"lr": 0.05, "ema": rows[second]["params"]["ema"], "epochs": 1}
    for number in wait_for(lambda: training(study, 1, (added, cloned)), 60, "the others to be trained"):
        view.skip(number)
    while study.status == "running":
        for number in training(study, 1, (cloned,)):
            view.skip(number)
        time.sleep(0.05)
    summary = ended(study)
    assert sum(summary["counts"].values()) == 3 + 3 + 1 == summary["counts"]["skipped"] + 1
    assert summary["best"]["number"] == cloned
    assert study.best_run.status == "done" and study.best_run.config["epochs"] == 1
    runs = list_runs()
    assert len(runs) == len({r.info["pid"] for r in runs}) * len(runs) / 2  # two processes trained them all
    assert all(study.id in r.tags and study.id in r.config["title"] for r in runs)
    assert {r.info["parent"] for r in runs} == {str(study.path)}
    assert [s.id for s in studies()] == [study.id] and not litter(workspace)
    # what is done gets more to do
    with pytest.raises(PodError, match="nothing to go on with"):
        study.resume()
    study.clone(cloned, lr=0.03, epochs=1)
    assert study.status == "stopped" and "resume" in study.info["message"] and study.to_dict()["wanted"] == 8


# ---- killed, stopped, taken up again


def test_killed_and_stopped_at_any_moment(workspace):
    study = begin(trials=3, workers=2, epochs=12, pruner="none")
    wait_for(lambda: len(training(study)) == 2, 90, "two trainings at once")
    doomed = training(study)[0]
    run = load_run(study._row(study._trial(doomed))["run"])
    other = [p for p in workers_of(study) if p.pid != run.info["pid"]]
    os.kill(run.info["pid"], signal.SIGKILL)
    wait_for(lambda: event(study, "trial", number=doomed, state="BACK"), 30, "the trial to be put back")
    wait_for(lambda: run.status == "running" and run.info["attempt"] == 2, 60, "another worker to take it")
    assert other[0].is_running() and event(study, "trial", number=doomed, state="BACK")["killed"]

    # the study's process itself
    workers = workers_of(study)
    told = wait_for(lambda: finished(study), 90, "a finished trial")
    wait_for(lambda: training(study), 60, "another to be trained")
    os.kill(study.info["pid"], signal.SIGKILL)
    wait_for(lambda: study.status == "died", 10, "its death to be seen")
    wait_for(lambda: not any(alive(p.pid) for p in workers), 30, "its workers to end")
    assert all(r.status in ("stopped", "done") for r in list_runs())  # with a checkpoint, not killed
    assert {k: v for k, v in finished(study).items() if k in told} == told
    Job(study.path).resume()  # as `pod resume` does
    wait_for(lambda: training(study), 90, "it to go on")

    # and asked to stop
    assert study.stop() == "stopped" and not [r for r in list_runs() if not r.ended]
    assert "stopped" in study.counts() or study.counts().get("done") == 3
    told = finished(study)
    study.resume()
    assert ended(study)["counts"] == {"done": 3}
    assert {k: v for k, v in finished(study).items() if k in told} == told
    assert len(list_runs()) == 3 and all([x["epoch"] for x in r.history.rows] == [*range(1, 13)] for r in list_runs())
    assert load_run(run.id).info["attempt"] >= 3 and study._row(study._trial(doomed))["run"] == run.id


class Deadly(torch.nn.Module):
    """A net that kills its process."""

    features = 1

    def forward(self, x):
        os.kill(os.getpid(), signal.SIGKILL)


class Small(torch.nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.features = width
        self.net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, width), torch.nn.ReLU())

    def forward(self, x):
        return self.net(x)


def nets(trial):
    """A space whose first trial kills every worker that takes it."""
    width = trial.suggest_int("width", 8, 64, log=True)
    return {"model": Deadly() if trial.number == 0 else Small(width), "lr": trial.suggest_float("lr", 0.01, 0.1)}


def test_a_trial_that_kills_its_workers_is_given_up(workspace):
    import optuna

    sampler = optuna.samplers.RandomSampler(seed=1)
    study = begin(nets, trials=2, epochs=2, sampler=sampler, constraints={"parameters": 10_000})
    assert ended(study)["counts"] == {"done": 1, "failed": 1}
    assert "killed 3 times" in study.trials["why"][0]
    width = study.best_params["width"]
    assert study.best_trial == 1 and study.trials["width"][1] == width and "Small" in study.best_run.config["model"]
    assert study._row(study._trial(1))["metrics"]["parameters"] == 64 * width + width + 10 * width + 10 <= 10_000
    longer = study.train_best(epochs=3)
    assert longer.status == "done" and len(longer.history.rows) == 3 and study.id in longer.config["title"]


# ---- pruned


def test_two_workers_prune(workspace):
    space = {"lr": [0.02, 0.00001], "batch_size": [64, 96]}
    study = begin(space, trials=8, workers=2, epochs=4, sampler="random", pruner="threshold, lower=0.5")
    counts = ended(study)["counts"]
    assert counts["pruned"] >= 1 and counts["done"] >= 1 and sum(counts.values()) == 8
    trials = study.trials
    assert set(trials.query("state == 'pruned'")["epochs"]) <= {1, 2, 3}
    assert set(trials.query("state == 'done'")["epochs"]) == {4}
    assert study.summary()["epochs"] == trials["epochs"].sum() < 32 and study.best_params["lr"] == 0.02
    for run in (load_run(id) for id in trials.query("state == 'pruned'")["run"]):
        assert run.status == "stopped" and run.info["message"].startswith("pruned after epoch")
        assert (run.checkpoints / "last.ckpt").exists()
    # with the images of the trial before it, a trial is what fit makes of its settings
    run, was = study.run_of(trials.query("state == 'done'").index[-1]), torch.get_num_threads()
    torch.set_num_threads(study.config["threads"])
    again = fit(**run.config, progress=False)
    torch.set_num_threads(was)
    assert same_weights(run, again)
    for kind in ("history", "importances", "slices", "timeline", "epochs"):
        assert study.plot(kind).axes


# ---- what can't be


def test_a_metric_that_was_never_logged(workspace):
    with pytest.raises(PodError, match="'valid_ac'. Did you mean 'valid_acc'"):
        begin(objective={"valid_ac": "maximize"}, trials=4, epochs=50)
    assert list_runs() == []  # noticed before the first trial


def test_a_space_that_changed(workspace):
    (workspace / "space.yaml").write_text("lr: {low: 1e-3, high: 0.1, log: true}\nepochs: 1\n")
    study = begin("space.yaml", trials=1)
    assert study.stop() == "stopped"
    (workspace / "space.yaml").write_text("lr: {low: 1e-2, high: 0.1, log: true}\nepochs: 1\n")
    with pytest.raises(PodError, match=r"lr was 0.001 to 0.1 \(log\), and is now 0.01 to 0.1 \(log\).*new study"):
        tune(resume=study, space="space.yaml")
    with pytest.raises(PodError, match="epochs was 1, and is now 2"):
        tune(resume=study, space={"lr": {"low": 1e-3, "high": 0.1, "log": True}, "epochs": 2})
    # a module that somebody edited meanwhile: seen where the next trial is drawn
    module = "def space(trial): return {'lr': trial.suggest_float('lr', 0.01, 0.1), 'epochs': 1}\n"
    (workspace / "myspace.py").write_text(module)
    study = begin("myspace:space", trials=1)
    ended(study)
    study.extend(1)
    (workspace / "myspace.py").write_text(module.replace("0.1)", "0.2)"))
    study.resume()
    assert study.wait(60) == "failed" and "lr was 0.01 to 0.1, and is now 0.01 to 0.2" in study.info["message"]
    # but a file is kept as it was
    (workspace / "file.py").write_text("def space(trial): return {'lr': trial.suggest_float('lr', 0.01, 0.1)}\n")
    space = make_space("file.py:space")
    space.keep(workspace)
    (workspace / "file.py").write_text("broken")
    assert make_space(space.to_dict(), workspace).source == (workspace / "space.py").read_bytes()


@pytest.mark.parametrize("given, said", [
    (dict(trials=0), "trials=0: expected a whole number from 1"),
    (dict(workers=1.5), "workers=1.5"),
    (dict(minutes=-1), "minutes=-1"),
    (dict(objective="wonder"), "is more of it better"),
    (dict(objective=["valid_acc", "ms_per_image"], pruner="median"), "several objectives"),
    (dict(constraints={"parameters": "few"}), "expected a number"),
    (dict(sampler="tpo"), "Did you mean 'tpe'"),
    (dict(pruner="medium"), "Did you mean 'median'"),
    (dict(sampler="grid"), "lr must have some: give it a step"),
    (dict(sampler="bruteforce"), "lr must have some: give it a step"),
    (dict(space={"epochs": [1, 0]}), "space: epochs=0"),
    (dict(space={"trainer": {"gradient_clip_vall": [1, 2]}}), "Did you mean 'gradient_clip_val'"),
    (dict(space="nowhere.yaml"), "no such file"),
    (dict(storage="study.db"), "expected the URL of a database"),
    (dict(storage="mysql://u:secret@127.0.0.1:1/n"), "is the server running"),
    (dict(storage="mysql://u:sec@ret:x/n"), "can't be read"),
    (dict(name="shared"), "storage="),
    (dict(optimiser="adamw"), "Did you mean 'optimizer'"),
])  # fmt: skip
def test_bad_calls_say_what_to_do(workspace, given, said):
    with pytest.raises(PodError, match=said) as e:
        tune("digits", **{"space": SPACE, **given})
    assert "secret" not in str(e.value) and studies() == []


def test_every_sampler_and_pruner_can_be_had():
    from lightning_pod.train.tune import PRUNERS, SAMPLERS, Space

    steps = Space({"lr": [0.01, 0.02], "epochs": {"low": 1, "high": 3}})
    for name, cls in SAMPLERS.items():
        try:
            assert type(make_sampler(name, steps, seed=1)).__name__ == cls
        except PodError as e:
            assert name == "cmaes" and "pip install 'lightning_pod[cmaes]'" in str(e)
    needs = {"percentile": "percentile, percentile=25", "threshold": "threshold, lower=0.5"}
    for name, cls in PRUNERS.items():
        assert type(make_pruner(needs.get(name, name), 9)).__name__ == cls


# ---- many machines


@pytest.fixture(params=["postgresql", "mysql"])  # the second is Debian's mariadb-server
def server(request):
    """The URL of an empty database on a server."""
    import psycopg
    from mysql import execute

    url = request.getfixturevalue("postgres_url" if request.param == "postgresql" else "mysql_url")
    if request.param == "mysql":
        execute(url, "CREATE DATABASE study")
    else:
        with psycopg.connect(url + "postgres", autocommit=True) as c:
            c.execute("CREATE DATABASE study")
    return url + "study"


def test_two_studies_share_a_database(workspace, server):
    given = dict(trials=4, epochs=1, storage=server, name="shared")
    one = begin(**given)
    with pytest.raises(PodError, match="lr was 0.005 to 0.1 .log., and is now 0.01 to 0.1"):
        begin({**SPACE, "lr": {"low": 0.01, "high": 0.1, "log": True}}, **given)
    with pytest.raises(PodError, match="looks for valid_acc, not for valid_loss"):
        begin(**given, objective="valid_loss")
    with pytest.raises(PodError, match="has epochs=1, and here it is 2"):
        begin(**{**given, "epochs": 2})
    with pytest.raises(PodError, match="has constraints="):
        begin(**given, constraints={"parameters": 500_000})
    two = begin(**given)
    ended(one), ended(two)
    assert 4 <= len(one.trials) == len(two.trials) <= 5  # both may take the last one
    mine = [{load_run(r).info["parent"] for r in s.trials["run"]} for s in (one, two)]
    assert mine[0] == mine[1] == {str(one.path), str(two.path)}
    assert one.best_trial == two.best_trial and one.best_run.id == two.best_run.id
    assert "cret" not in (one.path / "config.yaml").read_text()
    assert (one.path / "storage.url").stat().st_mode & 0o077 == 0


def test_a_machine_that_is_gone_loses_its_trial_to_the_others(workspace, postgres_url, monkeypatch):
    """Its heartbeat is old: the trial fails and is queued again."""
    import psycopg

    with psycopg.connect(postgres_url + "postgres", autocommit=True) as c:
        c.execute("CREATE DATABASE gone")
    given = dict(trials=1, epochs=40, storage=postgres_url + "gone", name="shared")
    there = begin(**given)
    wait_for(lambda: training(there), 90, "its training")
    there.kill()
    with psycopg.connect(postgres_url + "gone", autocommit=True) as c:
        c.execute("UPDATE trial_heartbeats SET heartbeat = heartbeat - interval '10 minutes'")
    here = begin(**given)
    assert ended(here)["counts"] == {"done": 1, "failed": 1}
    assert here.trials["epochs"][1] == 40 and here.best_trial == 1


def test_a_study_from_the_command_line(pod, workspace):
    """Started, shown, changed, resumed; its best trained for longer."""
    (workspace / "space.yaml").write_text("lr: {low: 5e-3, high: 0.1, log: true}\nema: [false, true]\n")
    given = ("--space", "space.yaml", "--trials", 2, "--epochs", 1, "--model", "podnet_n", "--loggers", "none")
    id = pod.json("tune", "digits", *given)["id"]
    assert [s["id"] for s in pod.json("tune", "ls")] == [id]
    shown = pod("tune", "show", "last", "--plot", "history", "--to", "h.png").stdout
    assert id in shown and "2 done" in shown and (workspace / "h.png").read_bytes()[1:4] == b"PNG"
    assert pod.json("tune", "add", id, "lr=2e-2")["trial"] == 2
    assert pod.json("tune", "clone", id, 0, "ema=true", "batch_size=64")["trial"] == 3
    assert pod.json("tune", "add", id, "lr=0.03")["trial"] == 4
    assert "is skipped" in pod("tune", "skip", id, 4).stdout
    assert pod.json("tune", "extend", id, 1)["wanted"] == 6
    for args, said in [
        (("show", "nothing"), "nothing"),
        (("add", id, "lr=5"), "tries 0.005 to 0.1"),
        (("add", id, "lr"), "expected NAME=VALUE"),
        (("skip", id, 99), "no trial 99"),
        (("extend", id, 0), "trials=0"),
        (("show", id, "--plot", "historie"), "Did you mean 'history'"),
    ]:
        assert said in pod("tune", *args, code=2).stderr
    pod("resume", id)
    trials = pod.json("tune", "show", id)["trials"]
    assert [t["state"] for t in trials] == ["done", "done", "done", "done", "skipped", "done"]
    assert trials[2]["params"]["lr"] == 0.02
    assert trials[3]["params"] == {**trials[0]["params"], "ema": True, "batch_size": 64}
    best = pod.json("tune", "best", id)
    assert best["id"] in {t["run"] for t in trials}
    assert pod.json("tune", "best", id, "--epochs", 2)["config"]["lr"] == best["config"]["lr"]


def test_what_would_be_searched_in_vain_is_refused(workspace):
    import pytorch_lightning as pl

    class Own(pl.LightningModule):
        pass

    class Batches(pl.LightningDataModule):
        pass

    sizes = dict(data=Batches(), space={"batch_size": [8, 16]})
    for given, said in ((dict(model=Own()), "Own decides lr"), (sizes, "batch_size")):
        with pytest.raises(PodError, match=f"space: .*{said}.*nothing would be searched"):
            tune(**{"space": SPACE, **given})
    assert studies() == []


def test_settings_of_images_given_as_arrays_are_searched(workspace):
    images = torch.zeros(40, 8, 8, 1, dtype=torch.uint8).numpy(), [0, 1] * 20
    more = dict(model="podnet_n", trials=2, epochs=1, sampler="grid", pruner="none", loggers="none", progress=False)
    tune(images, {"batch_size": [8, 16]}, **more)
    assert sorted(run.config["batch_size"] for run in list_runs()) == [8, 16]


def test_a_space_that_fails_for_good_ends_its_study_and_a_skip_meets_a_trial_that_is_being_drawn(workspace):
    (workspace / "slow.py").write_text(
        "import time\ndef space(trial):\n    lr = trial.suggest_float('lr', .01, .1)\n"
        "    if trial.number == 0: time.sleep(3)\n    if trial.number > 1: raise OSError('no licence')\n"
        "    return {'lr': lr}\n"
    )
    study = begin(f"{workspace / 'slow.py'}:space", minutes=5, epochs=1)
    wait_for(lambda: [t for t in study._trials() if t.state.name == "RUNNING"], 60, "a trial")
    study.skip(0)
    assert study.wait(120) == "failed" and "10 trials failed" in study.info["message"]
    assert study.counts() == {"done": 1, "failed": 10, "skipped": 1}


def test_the_best_for_longer_keeps_what_a_trial_drew_for_the_trainer(workspace):
    from pytorch_lightning import Callback

    seen = workspace / "seen.txt"

    class Told(Callback):
        def on_train_start(self, trainer, module):
            with open(seen, "a") as f:
                f.write(f"{trainer.gradient_clip_val}\n")

    given = dict(trials=1, epochs=1, model="podnet_n", loggers="none", progress=False, trainer={"callbacks": [Told()]})
    images = digits().pixels, digits().labels  # which a config can't hold either
    study = tune(images, {"trainer.gradient_clip_val": [0.5, 0.25]}, **given)
    assert study.train_best(epochs=1, loggers="none").status == "done"
    with pytest.raises(PodError, match="epochs=0"):
        study.train_best(epochs=0)
    first, second = seen.read_text().split()
    assert first == second == str(study.best_params["trainer.gradient_clip_val"])
    with pytest.raises(PodError, match="another process can't have"):
        study.train_best(background=True)


def test_a_grid_has_an_end(workspace):
    study = begin({"lr": [0.01, 0.02], "epochs": {"low": 1, "high": 3}}, sampler="grid")
    assert study.stop() == "stopped" and study.to_dict()["wanted"] == 6
