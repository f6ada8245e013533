"""The command line: every verb, what it prints, and the code it exits with."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess

import pytest
from conftest import POD, Pod, event, wait_for

from lightning_pod import __version__
from lightning_pod.cli import VERBS, VERBS_OF_RUNS
from lightning_pod.core.job import Job, jobs
from lightning_pod.train.runs import Run, load_run
from lightning_pod.train.settings import FitConfig

LONG = ("digits", "--epochs", 2000, "--loggers", "none")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A workspace with a run that is done, made once."""
    folder = tmp_path_factory.mktemp("trained")
    Pod(folder)("fit", "digits", "--epochs", 3, "--title", "first")
    return folder


@pytest.fixture
def done(trained, workspace, pod):
    """`pod` in a copy of that workspace."""
    shutil.copytree(trained / "runs", workspace / "runs")
    return pod


def small_job(workspace, body: str = "lightning_pod.core.job:count_body", **config) -> Job:
    return Job.create(workspace / ".pod" / "jobs", "count", body, config, "a small job")


# ---- help and version


def test_help_names_every_verb(pod):
    for args in ([], ["--help"], ["-h"], ["help"]):
        out = pod(*args).stdout
        assert all(verb in out for verb in VERBS)
    assert pod("--version").stdout == f"lightning_pod {__version__}\n"


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(pod, verb):
    out = pod(verb, "--help").stdout
    assert f"usage: pod {verb}" in out and VERBS[verb].__doc__.partition(":")[0] in " ".join(out.split())


def test_every_setting_of_a_fit_is_an_option_with_help(pod):
    from lightning_pod.train.settings import FitConfig

    out = pod("fit", "--help").stdout
    assert all(f"--{name}" in out for name in FitConfig.__dataclass_fields__)
    assert "passes over the training images" in out


def test_wrong_verbs_and_options_are_answered_with_the_nearest(pod):
    assert "Did you mean 'predict'?" in pod("predit", code=2).stderr
    assert "Did you mean '--epochs'?" in pod("fit", "digits", "--epoch", 3, code=2).stderr
    assert "Did you mean 'podnet_s'?" in pod("fit", "digits", "--model", "podnet_x", code=2).stderr
    assert "Did you mean 'precision'?" in pod("fit", "digits", "--trainer.precison=32", code=2).stderr


# ---- fit


def test_fit_json_keeps_its_contract(pod, workspace):
    p = pod("fit", "digits", "--epochs=1", "--trainer.limit_train_batches=5", "--json")
    out = json.loads(p.stdout)  # the only thing on stdout
    assert out["id"] == load_run("last").id and out["status"] == "done" and out["seconds"] > 0
    assert {"test_acc", "test_loss", "valid_acc"} <= set(out["metrics"])
    assert all(isinstance(v, float) for v in out["metrics"].values())
    assert "epoch 1" in p.stderr and "valid_acc" in p.stderr
    assert [r["step"] for r in load_run("last").history.rows] == [5]


def test_fit_tells_people_what_to_do_next(pod):
    out = pod("fit", "digits", "--epochs", 1, "--loggers", "none").stdout
    id = load_run("last").id
    assert f"Run({id}: done, valid_acc" in out and f"pod predict {id}" in out


def test_a_runs_config_makes_the_same_run_again(done):
    first = load_run("last")
    again = done.json("fit", "--config", first.path / "config.yaml", "--loggers", "none", "--title", "second")
    assert again["metrics"] == first.summary and again["title"] == "second"
    assert load_run(again["id"]).config | {"loggers": "aim", "title": "first"} == first.config


def test_a_fit_that_breaks_exits_with_1(pod, workspace):
    job = small_job(workspace, "bodies:failing_body")
    assert job.start().wait(30) == "failed"
    assert pod("resume", job.id, code=1).stderr.strip().endswith("is failed: RuntimeError: the body failed")


# ---- runs


def test_runs_lists_the_newest_first(done):
    assert "first" in done("runs").stdout
    second = done.json("fit", "digits", "--epochs", 1, "--loggers", "none")
    rows = done.json("runs", "ls")
    assert [r["id"] for r in rows] == [second["id"], load_run(rows[1]["id"]).id] and len(rows) == 2
    assert rows == sorted(rows, key=lambda r: r["created"], reverse=True)
    assert all({"id", "status", "metrics"} <= set(r) for r in rows)
    assert rows[0]["metrics"] == second["metrics"]
    assert done.json("runs") == rows
    head, *lines = done("runs").stdout.splitlines()
    assert head.split()[:4] == ["run", "status", "valid_acc", "test_acc"]
    assert [line.split()[0] for line in lines] == [r["id"] for r in rows]


def test_runs_show(done):
    run = load_run("last")
    for name in ("last", run.id, run.id[:15], run.id[-4:]):
        assert done.json("runs", "show", name)["id"] == run.id
    shown = done.json("runs", "show")
    assert shown["config"]["epochs"] == 3 and shown["path"] == str(run.path) and shown["attempts"] == 1
    assert len(shown["data_version"]) == 12 and shown["seconds"] > 0 and shown["ended"] > shown["started"]
    assert [r["epoch"] for r in shown["epochs"]] == [1, 2, 3]
    assert {"config.yaml", "events.jsonl", "checkpoints/best.ckpt"} <= {f["file"] for f in shown["files"]}
    assert shown["checkpoints"] == ["checkpoints/best.ckpt", "checkpoints/last.ckpt"] and shown["bytes"] > 1_000_000
    text = done("runs", "show").stdout
    assert all(word in text for word in ("valid_loss", "data_version", "best.ckpt", "weight_decay", "in all"))


def plain(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


@pytest.fixture
def three(workspace, pod):
    """Three runs that were never trained: good, better, failed; their ids from old to new."""
    made = []
    for acc, state, settings in ((0.9, "done", {}), (0.95, "done", {"lr": 0.003}), (None, "failed", {"data": "MNIST"})):
        config = FitConfig(loggers="none", **settings).to_dict()
        run = Run.create(workspace / "runs", "fit", "nowhere:nothing", config)
        result = {"metrics": {"test_acc": acc, "test_loss": 1 - acc}, "seconds": 2.0} if acc else None
        run._write(state=state, result=result)
        made.append(run.id)
    return made


def test_runs_ls_filters_and_sorts(three, pod):
    def ids(*args):
        return [r["id"] for r in pod.json("runs", "ls", *args)]

    good, better, failed = three
    assert ids() == [failed, better, good]
    assert ids("--status", "done") == [better, good] and ids("--status", "done", "--status", "failed") == ids()
    assert ids("--data", "MNIST") == [failed] and ids("--data", "digits") == [better, good]
    assert ids("--sort", "test_acc") == [better, good, failed] == ids("--sort", "test_loss")
    assert ids("--sort", "lr")[-1] == better and ids("--sort", "created") == ids()
    assert ids("--sort", "test_acc", "--most", 1) == [better]
    pod("runs", "tag", good, "old", "paper")
    assert ids("--tag", "paper") == [good] == ids("--tag", "paper", "--tag", "old")
    assert "old,paper" in pod("runs").stdout and pod.json("runs", "show", good)["tags"] == ["old", "paper"]
    assert pod("runs", "tag", good, "old", "--remove").stdout == f"{good}: paper\n"
    assert "no such run" in pod("runs", "ls", "--tag", "paper", "--status", "failed").stdout
    assert "test_acc" in pod("runs", "ls", "--sort", "test_loss").stdout
    for args, words in ((["--status", "dead"], "unknown status 'dead'"), (["--tag", "papr"], "Did you mean 'paper'?"),
                        (["--sort", "tst_acc"], "Did you mean 'test_acc'?"),
                        (["--data", "mnst"], "Did you mean 'MNIST'?"),
                        (["--most", "0"], "most=0: expected 1 or more")):
        said = pod("runs", "ls", *args, code=2).stderr
        assert words in said and "Traceback" not in said, said


def test_runs_compare(three, pod):
    good, better, failed = three
    c = pod.json("runs", "compare", good, better)
    assert c["runs"] == [good, better] and c["settings"] == {"lr": [FitConfig.lr, 0.003]}
    assert c["metrics"]["test_acc"] == [0.9, 0.95]
    assert c["best"] == {"test_acc": [better], "test_loss": [better], "seconds": []}
    lines = {line[0]: line for line in plain(pod("runs", "compare", *three).stdout) if line}
    assert lines["test_acc"] == ["test_acc", "0.9000", "0.9500", "*"]
    assert lines["data"][1:] == ["digits", "digits", "MNIST"]
    assert "give two or more" in pod("runs", "compare", good, code=2).stderr
    assert "unknown run 'nope'" in pod("runs", "compare", good, "nope", code=2).stderr


def test_runs_rm_and_reindex(three, pod, workspace):
    (workspace / "runs" / three[0] / "checkpoints").mkdir()
    (workspace / "runs" / three[0] / "checkpoints" / "last.ckpt").write_bytes(bytes(1_000_000))
    p = pod("runs", "rm", three[0], three[2])
    assert "removed 2 runs, 1.0 MB freed" in p.stdout and not p.stderr
    assert [r["id"] for r in pod.json("runs")] == [three[1]]
    assert "unknown run" in pod("runs", "rm", three[0], code=2).stderr
    (workspace / ".pod" / "index.db").unlink()
    assert pod("runs", "reindex").stdout == "1 run\n"
    assert (workspace / ".pod" / "index.db").exists()


def test_the_verbs_of_runs_have_help(pod):
    out = pod("runs", "--help").stdout
    assert all(f"  {verb} " in out for verb in VERBS_OF_RUNS)
    for verb in VERBS_OF_RUNS:
        assert f"usage: pod runs {verb}" in pod("runs", verb, "--help").stdout
    assert "Did you mean 'compare'?" in pod("runs", "compere", code=2).stderr


def test_runs_of_an_empty_workspace(pod):
    assert "pod fit digits" in pod("runs").stdout
    assert pod.json("runs") == []


def test_a_pipe_that_is_closed_early_is_no_error(done):
    p = subprocess.run(f"set -o pipefail; {POD} runs | head -1", shell=True, executable="/bin/bash", env=done.env,
                       capture_output=True, text=True)
    assert p.returncode == 0 and p.stdout.startswith("run") and not p.stderr
    p = done.start("runs")
    p.stdout.close()  # before anything was written
    assert p.wait(30) == 0 and not p.stderr.read()


# ---- predict


@pytest.fixture(scope="module")
def pngs(tmp_path_factory):
    """Twelve digits that the network did not train on, as PNG files, and what they show."""
    from PIL import Image

    from lightning_pod.core.data import ImageData

    data, folder = ImageData("digits").setup(), tmp_path_factory.mktemp("pngs")
    files = []
    for i in data.parts["test"][:12]:
        files.append((folder / f"{i}.png", str(data.items.labels[i])))
        Image.fromarray(data.items.pixels[i, :, :, 0]).save(files[-1][0])
    return files


def test_predict_images(done, pngs):
    rows = done.json("predict", "last", *[f for f, _ in pngs])
    assert [r["image"] for r in rows] == [str(f) for f, _ in pngs]
    assert sum(r["label"] == label for r, (_, label) in zip(rows, pngs, strict=True)) >= 10
    for r in rows:
        assert r["version"] == load_run("last").id
        assert len(r["probabilities"]) == 10 and abs(sum(r["probabilities"].values()) - 1) < 1e-4
        assert r["label"] == next(iter(r["probabilities"])) and r["probability"] == max(r["probabilities"].values())
    text = done("predict", "last", pngs[0][0]).stdout
    assert text.startswith(f"{pngs[0][0]}: {rows[0]['label']} ") and "%" in text


def test_predict_takes_images_of_any_size_and_mode(done, pngs, tmp_path):
    from PIL import Image

    files = []
    for mode in ("RGB", "RGBA", "P", "CMYK", "I;16"):
        image = Image.open(pngs[0][0]).resize((97, 97))
        image = image.point(lambda v: v * 257, "I").convert("I;16") if mode == "I;16" else image.convert(mode)
        files.append(tmp_path / f"{mode.replace(';', '')}.{'tif' if mode in ('CMYK', 'I;16') else 'png'}")
        image.save(files[-1])
    assert {r["label"] for r in done.json("predict", "last", *files)} == {pngs[0][1]}


def in_terminal(pod, columns: int, *args) -> str:
    """What a command shows in a terminal that is so wide."""
    import fcntl
    import pty
    import struct
    import termios

    mine, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    p = subprocess.Popen([pod.command, *args], cwd=pod.workspace, env=pod.env, stdin=subprocess.DEVNULL, stdout=its,
                         stderr=its, start_new_session=True)
    os.close(its)
    shown = b""
    with contextlib.suppress(OSError):  # the end of a terminal reads as an error
        while part := os.read(mine, 65536):
            shown += part
    os.close(mine)
    assert p.wait(60) == 0, shown.decode()
    return shown.decode()


def test_a_narrow_terminal_shows_whole_words_and_something_at_once(pod):
    args = ["fit", "digits", "--model", "podnet_n", "--epochs", "2", "--loggers", "none"]
    lines = re.split(r"[\r\n]+", in_terminal(pod, 44, *args))
    assert lines[0] == "digits · podnet_n: loading PyTorch …" and "getting ready …" in lines[1]
    shown = [line.strip() for line in lines if re.search("[━─]", line)]
    assert len(shown) > 2 and max(map(len, shown)) <= 43
    part = r"getting ready …|epoch \d+/2|\d+ %|\w+_(loss|acc) \d\.\d{4}|[\d:]+ (s|min) left"
    assert [s for s in shown if not all(re.fullmatch(part, p) for p in s.lstrip("━─ ").split(" · "))] == []


# ---- what runs: ps, logs, stop, resume


def test_ps_shows_progress_and_stop_ends_it(pod, workspace):
    started = pod.json("fit", *LONG, "--detach")
    run = load_run(started["id"])
    assert started["status"] in ("starting", "running")
    wait_for(lambda: event(run, "progress").get("left_s"), 60, "progress")
    [row] = pod.json("ps")
    assert row["id"] == run.id and row["status"] == "running" and row["pid"] == run.info["pid"]
    assert row["progress"].endswith(" %") and row["left"]
    assert run.id in pod("ps").stdout and "running" in pod("runs").stdout
    [stopped] = pod.json("stop", run.id)
    assert stopped["status"] == "stopped" == run.status and stopped["was"] == "running"
    assert "so already" in pod("stop", "last").stdout
    assert pod.json("ps") == [] and "nothing is running" in pod("ps").stdout
    assert [r["status"] for r in pod.json("ps", "--all")] == ["stopped"]


def test_stop_from_another_process_ends_a_fit_in_a_terminal(pod):
    p, run = pod.training(*LONG)
    pod("stop", run.id)
    out, err = p.communicate(timeout=30)
    assert p.returncode == 130 and "Traceback" not in err
    assert f"pod resume {run.id}" in out and run.status == "stopped"


def test_stop_takes_several_jobs_and_kills_what_does_not_listen(pod, workspace):
    stubborn = small_job(workspace, "bodies:stubborn_body").start()
    others = [small_job(workspace, n=10_000, pause=0.05).start() for _ in range(2)]
    for j in [stubborn, *others]:
        wait_for(lambda j=j: event(j, "metrics"), what="the first event")
    rows = pod.json("stop", "--grace", 1, *[j.id for j in [stubborn, *others]])
    assert [r["status"] for r in rows] == ["stopped"] * 3 and "killed" in rows[0]["message"]


def test_logs_follow_a_job_to_its_end(pod, workspace):
    job = small_job(workspace, n=20, pause=0.05).start()
    p = pod("logs", "-f", job.id)
    assert f"{job.id} is done" in p.stderr
    failed = small_job(workspace, "bodies:failing_body").start()
    assert "RuntimeError: the body failed" in pod("logs", failed.id, "-f", code=1).stderr
    assert "Traceback" in pod("logs", failed.id).stdout
    stopped = small_job(workspace, n=10_000, pause=0.05).start()
    p = pod.start("logs", "-f", stopped.id)
    wait_for(lambda: event(stopped, "metrics"), what="the first event")
    pod("stop", stopped.id)
    assert "is stopped" in p.communicate(timeout=30)[1] and p.returncode == 130


def test_ctrl_c_ends_the_watching_and_not_the_job(pod, workspace):
    run = load_run(pod.json("fit", *LONG, "--detach")["id"])
    p = pod.start("logs", run.id, "-f")
    assert any("epoch 1" in line for line in iter(p.stderr.readline, ""))  # it is watching
    p.send_signal(signal.SIGINT)
    assert p.wait(30) == 130 and "Traceback" not in p.stderr.read()
    assert run.status == "running"
    pod("stop", run.id)
    assert "with a checkpoint" in pod("logs", run.id).stdout  # in an epoch or just after one


def test_resume_follows_and_ctrl_c_stops_the_job(pod, workspace):
    job = small_job(workspace, n=400, pause=0.05)
    pod("stop", job.id)
    p = pod.start("resume", job.id)
    wait_for(lambda: event(job, "metrics"), what="the first event")
    p.send_signal(signal.SIGINT)
    assert "is stopped" in p.communicate(timeout=30)[1] and p.returncode == 130
    assert job.status == "stopped" and job.info["message"] == "interrupted (Ctrl-C)"
    pod("resume", job.id, "--detach")
    wait_for(lambda: event(job, "metrics")["step"] > 3, what="its going on")
    assert pod.json("stop", job.id)[0]["status"] == "stopped"
    assert [j.id for j in jobs()] == [job.id]


def test_a_run_that_is_done_is_not_resumed(done):
    run = load_run("last")
    assert f"{run.id} is done" in done("resume", run.id, code=2).stderr
