"""`pod track`: Aim's own page and TensorBoard's, on real runs; each a Job."""

import signal
import urllib.request

import pytest
from conftest import event, processes_in, wait_for

from lightning_pod.core.config import workspace as workspace_at
from lightning_pod.core.job import jobs


@pytest.fixture
def tracked(pod):
    return pod.json("fit", "digits", "--model", "podnet_n", "--epochs", 1, "--loggers", "aim,tensorboard")["id"]


def served(pod, *args):
    """`pod track`, once its page is there; and its Job."""
    p = pod.start("track", "--no-browser", "--port", 0, *args)

    def ready():
        assert p.poll() is None, p.communicate()
        return [j for j in jobs(workspace_at(pod.workspace)) if not j.ended and event(j, "ready")]

    return p, wait_for(ready, 60, "the page")[0]


def get(job, path: str) -> bytes:
    with urllib.request.urlopen(event(job, "ready")["url"] + path, timeout=30) as r:
        return r.read()


def test_a_trackers_page_shows_the_runs(pod, workspace, tracked):
    # Aim, until Ctrl-C
    p, job = served(pod)
    assert job.info["kind"] == "track" and b"<title>Aim</title>" in get(job, "")
    assert tracked.encode() in get(job, "api/runs/search/run?q=&limit=10")
    assert "shows this workspace already" in pod("track", "--no-browser", code=2).stderr
    p.send_signal(signal.SIGINT)
    out, err = p.communicate(timeout=30)
    assert p.returncode == 0 and job.status == "stopped" and event(job, "ready")["url"] in out, (out, err)
    wait_for(lambda: not processes_in(workspace), 10, "the end of its processes")
    # TensorBoard, until it is stopped by another command
    p, job = served(pod, "--tensorboard")
    wait_for(lambda: f"{tracked}/tensorboard".encode() in get(job, "data/runs"), 30, "the run's curves")
    pod("stop", job.id)
    assert p.wait(30) == 0 and job.status == "stopped"
    wait_for(lambda: not processes_in(workspace), 10, "the end of its processes")
    # killed: the server, and what it has started, go too
    p, job = served(pod)
    p.kill()
    p.communicate()
    wait_for(lambda: not processes_in(workspace), 10, "the end of its processes")
    assert job.status == "died"


def test_a_page_that_has_nothing_to_show_is_not_opened(pod):
    assert "nothing is tracked in Aim" in pod("track", code=2).stderr
    assert "--loggers tensorboard" in pod("track", "--tensorboard", code=2).stderr


def test_a_run_that_goes_on_in_aim_is_told_of_no_corruption(workspace, caplog):
    from lightning_pod.train.runs import Run, make_loggers, tracker_of
    from lightning_pod.train.settings import FitConfig

    run, ids = Run.create(workspace / "runs", "fit", "lightning_pod.train.fit:fit_body", FitConfig().to_dict()), {}
    for _ in range(2):
        (logger,), missing = make_loggers(["aim"], run, ids)
        logger.close()
        ids = dict([tracker_of(logger)])
        assert not missing
    assert "orruption" not in caplog.text
