"""The training engine: the same again from a config, several processes, others' modules, memory, exact resumes."""

import gc
import inspect
import re
import signal
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import POD, event, processes_in, wait_for
from lightning_user import Data, Net

from lightning_pod.core.config import PodError
from lightning_pod.core.data import ImageData
from lightning_pod.core.sources import Items
from lightning_pod.train.devices import Rank
from lightning_pod.train.fit import fit, read_checkpoint, same_weights
from lightning_pod.train.runs import Run, load_run

QUICK = {"loggers": "none", "progress": False}
TWO = ("--trainer.devices=2", "--trainer.strategy=ddp", "--trainer.accelerator=cpu")


def curve(run: Run):
    return run.metrics.drop(columns="seconds")


# ---- the same again


def test_a_runs_config_gives_the_same_curve(pod):
    settings = ("--epochs", 2, "--seed", 5, "--augment", "shift=0.1, mixup=0.2", "--ema", "true", "--loggers", "csv",
                "--trainer.gradient_clip_val=1.0", "--trainer.accumulate_grad_batches=2", "--find_lr", "true")
    first = load_run(pod.json("fit", "digits", *settings)["id"])
    again = load_run(pod.json("fit", "--config", first.path / "config.yaml")["id"])
    assert again.id != first.id and again.config == first.config
    assert same_weights(first, again) and curve(first).equals(curve(again))
    assert (first.path / "find_lr.json").read_bytes() == (again.path / "find_lr.json").read_bytes()
    assert event(first, "settled")["lr"] != first.config["lr"]


CHANGES = {"ema": True}, {"optimizer": "adamw"}, {"trainer": {"precision": "32-true"}}, {"balance": "sampler"}


@pytest.mark.parametrize("changes", CHANGES, ids=lambda c: next(iter(c)))
def test_a_stop_in_mid_epoch_changes_nothing(workspace, changes):
    settings = {"epochs": 3, "augment": "shift=0.1", **changes, **QUICK}
    import pytorch_lightning as pl

    class Interrupts(pl.Callback):
        def on_train_batch_start(self, trainer, module, batch, i):
            if trainer.global_step == 31:
                signal.raise_signal(signal.SIGINT)

    whole = fit("digits", "podnet_n", **settings)
    trainer = {**changes.get("trainer", {}), "callbacks": [Interrupts()]}
    run = fit("digits", "podnet_n", **{**settings, "trainer": trainer})
    assert run.status == "stopped" and "stopped in epoch 2 at step 32, with a checkpoint" in run.log()
    run = fit(resume=run, progress=False, trainer={"callbacks": [pl.Callback()]})
    assert run.status == "done" and same_weights(run, whole)
    a, b = (read_checkpoint(r.checkpoints / "last.ckpt") for r in (run, whole))
    assert str(a["optimizer_states"]) == str(b["optimizer_states"])
    assert curve(run).drop(columns="train_loss").equals(curve(whole).drop(columns="train_loss"))


def test_a_kill_loses_no_more_than_since_the_last_save_within_an_epoch(pod):
    settings = ("digits", "--model", "podnet_n", "--epochs", 2, "--loggers", "none", "--checkpoint_minutes", 0.0001)
    whole = load_run(pod.json("fit", *settings)["id"])
    p, run = pod.training(*settings, at_step=5)
    wait_for(lambda: (run.checkpoints / "last.ckpt").exists(), 60, "a checkpoint")
    p.kill()
    p.communicate()
    if run.status == "died":
        assert read_checkpoint(run.checkpoints / "last.ckpt")["global_step"] > 0
        pod("resume", run.id)
    assert same_weights(run, whole)


def test_patience_ends_a_training_that_no_longer_gains(workspace):
    run = fit("digits", "podnet_n", epochs=60, patience=2, lr=0.03, **QUICK)
    best = run.metrics["valid_acc"]
    assert run.status == "done" and len(best) < 60
    assert len(best) - best[::-1].idxmax() >= 2 and "no better valid_acc in 2 epochs" in run.log()


# ---- several processes


def test_two_processes_train_one_run(pod, workspace):
    out = pod.json("fit", "digits", "--epochs", 4, *TWO)
    run = load_run(out["id"])
    assert out["metrics"]["test_acc"] > 0.9 and len(run.metrics) == 4 and len(list((workspace / "runs").iterdir())) == 1
    assert event(run, "progress")["total"] == 4 * 12  # 1,438 images, 64 and 64 a step, in whole shares
    assert not (run.path / "rank1.txt").read_text().strip() and not processes_in(workspace)


def test_two_processes_stop_together_within_a_window_and_go_on(pod, workspace):
    settings = ("digits", "--epochs", 8, "--loggers", "none", *TWO, "--trainer.accumulate_grad_batches=5",
                "--trainer.precision=32-true")  # 12 batches an epoch, the last window is shorter
    p, run = pod.training(*settings, at_step=4)
    p.send_signal(signal.SIGINT)
    out, err = p.communicate(timeout=60)
    assert p.returncode == 130 and "Traceback" not in err and run.status == "stopped", err
    at = event(run, "progress")["done"]
    assert not processes_in(workspace) and "Traceback" not in (run.path / "rank1.txt").read_text()
    assert pod.json("resume", run.id)["status"] == "done"
    assert event(run, "rewind")["step"] >= at and len(run.metrics) == 8
    whole = load_run(pod.json("fit", *settings)["id"])
    assert same_weights(run, whole)
    assert curve(run).drop(columns="train_loss").equals(curve(whole).drop(columns="train_loss"))


def test_a_process_that_is_not_the_first_knows_what_a_training_asks_of_its_context():
    asked = set(re.findall(r"\bctx\.(\w+)", Path(inspect.getfile(fit)).read_text(encoding="utf-8")))
    of_the_first = {"job", "listeners"}
    assert [name for name in asked - of_the_first if not hasattr(Rank("run", {}, False), name)] == []


def test_no_process_outlives_a_killed_training(pod, workspace):
    p, run = pod.training("digits", "--epochs", 200, "--loggers", "none", *TWO, at_step=20)
    assert len(processes_in(workspace)) >= 2
    p.kill()
    p.communicate()
    wait_for(lambda: not processes_in(workspace), 20, "the end of its processes")
    assert run.status == "died"


def test_torchrun_starts_the_processes_of_one_run(workspace):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", f"--master-port={port}"]
    command = [*torchrun, "--no-python", POD, "fit", "digits", "--epochs=2", "--loggers=none", *TWO]
    p = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert p.returncode == 0, p.stderr
    (path,) = (workspace / "runs").iterdir()
    assert Run(path).status == "done" and len(Run(path).metrics) == 2


def test_what_another_process_can_not_find_is_told(workspace):
    class Local(Net):
        pass

    with pytest.raises(PodError, match="can't be pickled"):
        fit(Data(), Local(), epochs=1, trainer={"devices": 2, "accelerator": "cpu"}, **QUICK)
    run = fit(Data(), Net(), epochs=2, trainer={"devices": 2, "accelerator": "cpu"}, **QUICK)
    assert run.status == "done" and issubclass(Rank, object)


# ---- others' modules


def test_modules_of_the_package_lightning(workspace):
    run = fit(Data(), Net(), epochs=4, **QUICK)
    assert run.status == "done" and run.summary["test_acc"] > 0.6 and (run.checkpoints / "best.ckpt").exists()
    with pytest.raises(PodError, match="Net decides that itself"):
        fit(Data(), Net(), epochs=1, lr=0.1, **QUICK)


def test_a_module_of_lightning_with_data_of_pytorch_lightning_and_the_reverse(workspace):
    class Flat(Net):
        def training_step(self, batch, i):
            return super().training_step((batch[0].flatten(1)[:, :5], batch[1] % 2), i)

        def validation_step(self, batch, i):
            self.log("valid_acc", 0.5)

        test_step = None

    del Flat.test_step
    Flat.test_step = Flat.validation_step
    assert fit(ImageData("digits"), Flat(), epochs=1, **QUICK).status == "done"

    class Images(Data):
        classes = 2

        def setup(self, stage=None):
            super().setup(stage)
            import torch

            x, y = self.set.tensors
            self.set = torch.utils.data.TensorDataset(x[:, :1, None, None].expand(-1, 1, 8, 8).contiguous(), y)

    run = fit(Images(), "podnet_n", epochs=3, **QUICK)
    assert run.status == "done" and run.summary["valid_acc"] > 0.9


def test_others_data_begin_the_broken_epoch_again_and_say_so(workspace):
    def interrupted(module, batch, i):
        if module.trainer.global_step == 50:
            signal.raise_signal(signal.SIGINT)

    class Stops(Net):
        on_train_batch_start = interrupted

    run = fit(Data(), Stops(), epochs=3, **QUICK)
    assert run.status == "stopped" and "in epoch 2 at step 51, whose beginning it goes on from" in run.log()
    module = Net()
    again = fit(Data(), module, resume=run, progress=False)
    assert again.status == "done" and module.seen == 2 * list(range(40)) and event(again, "rewind")["step"] == 40


# ---- memory


def test_out_of_memory_is_named(workspace):
    module = Net()
    module.huge = True
    with pytest.raises(PodError, match="out of memory in a step: try smaller batches"):
        fit(Data(), module, epochs=1, **QUICK)


# ---- pre-trained


def test_a_run_begins_with_another_runs_weights(pod):
    first = pod.json("fit", "digits", "--model", "podnet_n", "--epochs", 4, "--loggers", "none")["id"]
    for how in ("whole", "gradual", "frozen"):
        options = ("--pretrained", first, "--finetune", how, "--layer_decay", 0.7, "--seed", 2, "--loggers", "none")
        run = load_run(pod.json("fit", "digits", "--model", "podnet_n", "--epochs", 2, *options)["id"])
        assert run.summary["test_acc"] > 0.9
    a, b = (read_checkpoint(r.checkpoints / "last.ckpt")["state_dict"] for r in (run, load_run(first)))
    best = read_checkpoint(load_run(first).checkpoints / "best.ckpt")["state_dict"]
    assert all((a[k] == best[k]).all() for k in b if k.startswith("encoder.")), "a frozen encoder has changed"
    assert yaml.safe_load((run.path / "config.yaml").read_text())["pretrained"].endswith(first)
    wrong = pod("fit", "digits", "--model", "podnet_s", "--pretrained", first, code=None)
    assert wrong.returncode and "those of another net" in wrong.stderr


# ---- rare classes


@pytest.mark.parametrize("augment", ["none", "mixup=0.2", "mixup=0.2, cutmix=1.0"])
def test_weights_make_a_rare_class_count_and_never_win(workspace, augment):
    draw = np.random.default_rng(0)
    labels = np.repeat([0, 1, 0, 1], [400, 8, 100, 100])
    pixels = (draw.random((len(labels), 8, 8, 1)) * 90).astype("uint8") + 60
    pixels[labels == 1, 2:6, 2:6] += 60  # plainly different
    split = np.repeat(["train", "test"], [408, 200])
    items = Items("skewed", ["common", "rare", "absent"], labels, pixels=pixels, split=split)
    data = ImageData(items, valid=0.0, augment=augment)
    trainer = {"precision": "32-true"}
    run = fit(data, "podnet_n", epochs=10, balance="weights", label_smoothing=0.1, trainer=trainer, **QUICK)
    matrix = run.confusion.to_numpy()
    assert matrix[0, 0] >= 95 and matrix[1, 1] >= 90 and not matrix[:, 2].any(), matrix
    assert "1 of 3 classes have no training image, so the model can't learn them: absent" in run.log()
    assert "an image of rare counts for 10 of common" in run.log()


def kept_alive() -> Counter:
    """How many objects there are of each class that a training makes."""
    gc.collect()
    kinds = "lightning_pod", "pytorch_lightning", "torch.nn", "torch.optim", "torchmetrics", "sqlalchemy", "aim"
    classes = (type(o) for o in gc.get_objects())
    names = (f"{c.__module__}.{c.__qualname__}" for c in classes if isinstance(c.__module__, str))
    return Counter(n for n in names if n.startswith(kinds))


def test_nothing_of_a_training_stays_alive_in_a_long_process(workspace):
    data = (np.random.default_rng(0).random((60, 8, 8, 1)) * 255).astype("uint8"), np.arange(60) % 2

    def train():
        trainer = {"precision": "32-true"}
        assert fit(data, "podnet_n", epochs=1, loggers="aim,csv", progress=False, trainer=trainer).status == "done"

    for _ in range(2):  # what is made once
        train()
    before = kept_alive()
    for _ in range(4):
        train()
    assert not {k: n for k, n in (kept_alive() - before).items() if n >= 4}
