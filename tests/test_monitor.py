"""Which epoch is best, what ends a training, and what a training leaves alone."""

import json
import math
import random
import signal

import lightning
import numpy as np
import pytest
import pytorch_lightning as pl
import torch

from lightning_pod.cli import main
from lightning_pod.core.classifier import read_checkpoint
from lightning_pod.core.config import PodError
from lightning_pod.core.data import ImageData
from lightning_pod.train.fit import Diverged, fit
from lightning_pod.train.runs import Run, list_runs

QUICK = {"loggers": "none", "progress": False}
NAN = math.nan
DATA = (np.random.default_rng(0).random((40, 8, 8)) * 255).astype("uint8"), np.arange(40) % 2


def module(framework, **logged):
    """A LightningModule of somebody's that logs these values, one for each epoch; `train_…` in its training step."""

    class Theirs(framework.LightningModule):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(64, 2)

        def tell(self, training: bool):
            for name, values in logged.items():
                if name.startswith("train") == training:
                    value = torch.tensor(values[self.current_epoch])
                    self.log(name.replace("__", "/"), value, on_step=False, on_epoch=True)

        def training_step(self, batch, i):
            self.tell(True)
            return torch.nn.functional.cross_entropy(self.layer(batch[0].flatten(1)), batch[1])

        def validation_step(self, batch, i):
            self.tell(False)

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.01)

    return Theirs()


def epoch_in(run: Run, name: str = "best") -> int:
    return read_checkpoint(run.checkpoints / f"{name}.ckpt")["epoch"] + 1


HALF = {"trainer": {"check_val_every_n_epoch": 2}}
DOWN, UP = [0.9, 0.2, 0.5, 0.8], [0.1, 0.3, 0.7, 0.2]
FORMS = {
    "val_loss": (pl, {"val_loss": DOWN, "train_loss": UP}, {}, 2, "val_loss"),
    "lightning's other package": (lightning, {"valid_loss": DOWN}, {}, 2, "valid_loss"),
    "val/loss": (lightning, {"val__loss": DOWN, "train__loss": UP}, {}, 2, "val/loss"),
    "an accuracy": (pl, {"val_acc": UP, "val_loss": DOWN}, {}, 3, "val_acc"),
    "chosen": (pl, {"val_acc": UP, "val_loss": DOWN}, {"monitor": "val_loss"}, 2, "val_loss"),
    "a direction": (pl, {"val_bleu": UP, "val_loss": DOWN}, {"monitor": "val_bleu", "mode": "max"}, 3, "val_bleu"),
    "against its name": (pl, {"val_loss": DOWN}, {"monitor": "val_loss", "mode": "max"}, 1, "val_loss"),
    "training only": (pl, {"train_loss": DOWN}, {}, 2, "train_loss"),
    "nothing": (pl, {}, {}, 4, None),
    "NaN first": (pl, {"val_loss": [NAN, 0.2, 0.5, 0.8]}, {}, 2, "val_loss"),
    "NaN later": (pl, {"val_loss": [0.5, NAN, 0.6, NAN]}, {}, 1, "val_loss"),
    "always NaN": (pl, {"val_acc": [NAN] * 4}, {}, 4, "val_acc"),
    "not each epoch": (pl, {"val_loss": [0.1, 0.3, 0.1, 0.4]}, HALF, 2, "val_loss"),
}


@pytest.mark.parametrize("form", FORMS)
def test_the_best_epoch_is_that_of_the_metric_that_counts(workspace, form):
    framework, logged, settings, epoch, name = FORMS[form]
    run = fit(DATA, module(framework, **logged), epochs=4, **settings, **QUICK)
    assert run.status == "done" and (epoch_in(run), epoch_in(run, "last")) == (epoch, 4)
    assert (run.info["result"]["best_epoch"], run.info["result"]["monitor"]) == (epoch, name)
    assert f"{name or 'no metric'} decides which epoch is best" in run.log()
    if form == "not each epoch":
        assert run.metrics["val_loss"].isna().tolist() == [True, False, True, False]


def test_a_metric_that_is_never_logged_is_told_and_the_weights_are_kept(workspace):
    words = "unknown metric to monitor 'val_f2'. Did you mean 'val_f1'.*train_loss, val_f1.*pretrained="
    with pytest.raises(PodError, match=words):
        fit(DATA, module(pl, val_f1=UP, train_loss=UP), epochs=4, monitor="val_f2", mode="max", **QUICK)
    (run,) = list_runs()
    assert run.status == "failed" and epoch_in(run, "last") == 1 and len(run.metrics) == 1


def test_patience_counts_by_the_same_metric_and_no_epoch_that_was_not_measured(workspace):
    def epochs(settings: dict, **logged):
        run = fit(DATA, module(pl, **logged), epochs=8, **settings, **QUICK)
        assert f"after epoch {run.info['result']['best_epoch']}: it ends here" in run.log()
        return len(run.metrics), run.info["result"]["best_epoch"]

    worse = [0.1, 0.5, 0.4, 0.3, 0.3, 0.3, 0.3, 0.3]
    assert epochs({"patience": 2}, val_loss=worse, train_loss=worse[::-1]) == (3, 1)
    assert epochs({"patience": 2}, val_loss=[NAN] * 8) == (2, 2)
    assert epochs({"patience": 3, **HALF}, val_loss=[0, 1, 0, 2, 0, 3, 0, 4]) == (6, 2)


def test_a_training_that_goes_on_has_the_same_best_epoch(workspace):
    class Stops(pl.Callback):
        def on_train_epoch_start(self, trainer, module):
            if trainer.current_epoch == 2:
                signal.raise_signal(signal.SIGINT)

    logged = {"val_loss": [0.2, 0.5, 0.9, 0.3]}
    run = fit(DATA, module(pl, **logged), epochs=4, trainer={"callbacks": [Stops()]}, **QUICK)
    assert run.status == "stopped"
    run = fit(DATA, module(pl, **logged), resume=run, trainer={"callbacks": [pl.Callback()]}, progress=False)
    assert run.info["result"]["best_epoch"] == 1 and run.log().count("decides which epoch is best") == 1


def test_pod_fit_takes_a_metric(workspace, capsys):
    settings = ["--model", "podnet_n", "--epochs", "2", "--loggers", "none"]
    assert main(["fit", "digits", *settings, "--monitor", "valid_loss", "--patience", "1"]) == 0
    (run,) = list_runs()
    assert run.info["result"]["monitor"] == "valid_loss" and run.config["monitor"] == "valid_loss"
    assert main(["fit", "digits", *settings, "--monitor", "valid_los"]) == 2
    assert "Did you mean 'valid_loss'" in capsys.readouterr().err and len(list_runs()) == 1
    pretrained = fit("digits", "podnet_n", task="pretrain", epochs=2, monitor="valid_knn", **QUICK)
    assert pretrained.info["result"]["monitor"] == "valid_knn"


# ---- what isn't a number any more


@pytest.mark.parametrize("settings", [{"lr": 10.0, "optimizer": "adamw"}, {"lr": 0.01}])
def test_a_training_that_became_nan_ends_and_says_what_to_do(workspace, settings):
    class Poison(pl.Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, i):
            if trainer.current_epoch == 1:
                next(module.parameters()).data.fill_(NAN)

    trainer = {"precision": "32-true", "callbacks": [Poison()]}
    with pytest.raises(Diverged, match="weights became NaN in epoch 2 .*a lower lr .*gradient_clip_val.*of epoch 1"):
        fit("digits", "podnet_n", epochs=3, trainer=trainer, **settings, **QUICK)
    (run,) = list_runs()
    assert run.status == "failed" and "a lower lr" in run.info["message"] and len(run.metrics) == 1
    for name in ("best", "last"):
        saved = read_checkpoint(run.checkpoints / f"{name}.ckpt")["state_dict"]
        assert all(torch.isfinite(v.float()).all() for v in saved.values())


# ---- what a training leaves alone


@pytest.mark.parametrize("how", ["done", "wrong", "failed", "stopped"])
def test_the_callers_generators_stand_where_they_stood(workspace, how):
    class Raises(pl.Callback):
        def on_train_batch_end(self, *_):
            if how == "failed":
                raise ZeroDivisionError
            signal.raise_signal(signal.SIGINT)

    def draw():
        return torch.rand(2).tolist(), np.random.rand(2).tolist(), random.random()

    def seed():
        torch.manual_seed(7), np.random.seed(7), random.seed(7)

    seed()
    expected = draw(), draw()
    seed()
    first, trainer = draw(), {"callbacks": [Raises()]} if how in ("failed", "stopped") else {}
    try:
        run = fit("digits", "podnet_n", epochs=0 if how == "wrong" else 1, trainer=trainer, **QUICK)
        assert run.status == how
    except (PodError, ZeroDivisionError):
        assert how in ("wrong", "failed")
    assert (first, draw()) == expected
    assert torch.get_float32_matmul_precision() == "highest"


def test_a_training_goes_back_to_its_last_good_checkpoint_where_asked(workspace):
    class Poison(pl.Callback):
        def __init__(self, times: int):
            self.times, self.rates = times, []

        def on_train_epoch_start(self, trainer, module):
            self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])

        def on_train_batch_end(self, trainer, module, outputs, batch, i):
            if trainer.current_epoch == 1 and self.times:
                self.times -= 1
                next(module.parameters()).data.fill_(NAN)

    theirs = module(pl, val_loss=DOWN)
    poison = Poison(2)
    trainer = {"callbacks": [poison]}
    data = ImageData(DATA, batch_size=64)  # a batch an epoch
    run = fit(data, theirs, epochs=4, on_nan="back", trainer=trainer, **QUICK)
    assert run.status == "done" and list(run.metrics.index) == [1, 2, 3, 4]
    assert poison.rates == [0.01, 0.01, 0.005, 0.0025, 0.0025, 0.0025] and run.log().count("back to step 1") == 2
    assert epoch_in(run) == 2 and all(torch.isfinite(p).all() for p in theirs.parameters())
    with pytest.raises(Diverged):
        fit(data, module(pl, val_loss=DOWN), epochs=4, on_nan="back", trainer={"callbacks": [Poison(9)]}, **QUICK)


# ---- no name of a metric decides what it belongs to


class Own(pl.LightningModule):
    """Logs the names of `validates` in its validation, and those of `tests` in its test."""

    def __init__(self, validates, tests):
        super().__init__()
        self.layer, self.names = torch.nn.Linear(64, 2), {"validation": validates, "test": tests}

    def training_step(self, batch, i):
        return torch.nn.functional.cross_entropy(self.layer(batch[0].flatten(1)), batch[1])

    def told(self, part: str, value: float):
        for name in self.names[part]:
            self.log(name, torch.tensor(value))

    def validation_step(self, batch, i):
        self.told("validation", 0.25 * (self.current_epoch + 1))

    def test_step(self, batch, i):
        self.told("test", 0.9)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.01)


NAMES = {
    "ours": (["valid_acc"], ["test_acc"]),
    "a test without accuracy": (["val_loss"], ["test_loss"]),
    "the same names in both": (["accuracy"], ["accuracy"]),
    "names of the test in the validation": (["test_acc"], ["acc"]),
    "nothing told of the test": (["val_f1"], []),
    "names of the run's own columns": (["epoch", "kind", "val_f1"], ["epoch", "step", "t", "test_f1"]),
}


@pytest.mark.parametrize("form", NAMES)
def test_what_is_of_the_test_is_told_by_the_event_and_not_by_a_name(workspace, form):
    validates, tests = NAMES[form]
    run = fit(ImageData(DATA), Own(validates, tests), epochs=2, **QUICK)
    assert run.status == "done"
    rows = run.metrics
    assert list(rows.index) == [1, 2] == [r["epoch"] for r in run.history.rows]
    shown = [n for n in validates if n not in ("epoch", "kind")]
    assert [list(rows[n]) for n in shown] == [[0.25, 0.5]] * len(shown)
    final = run.history.final
    assert [round(v, 6) for v in final.values()] == [0.9] * len(tests)
    best = run.history.rows[run.to_dict()["best_epoch"] - 1]
    assert all(run.summary[n] == best[n] for n in shown) and final.items() <= run.summary.items()
    # while it trains there is no result, and its newest epoch stands for it; the test is none
    end = json.loads((run.path / "status.json").read_text())
    (run.path / "status.json").write_text(json.dumps({**end, "state": "running", "result": None}))
    assert [Run(run.path).to_dict()["metrics"][n] for n in shown] == [0.5] * len(shown)
    assert "loss" in repr(run) or "acc" in repr(run) or "f1" in repr(run)
