"""Trainings that are stopped anywhere, under many settings, end with the very weights of an undisturbed one."""

import json
import random
import signal

import numpy as np
import pytest
import pytorch_lightning as pl
import torch

from lightning_pod.core.augment import Augment, auto_augment, make_augment
from lightning_pod.core.classifier import read_checkpoint
from lightning_pod.core.data import ImageData
from lightning_pod.train.fit import fit, same_weights

QUICK = {"loggers": "none", "progress": False}
EPOCHS = 4
PIXELS = (np.random.default_rng(0).random((130, 8, 8, 1)) * 255).astype("uint8")
PIXELS[1::2, :4] //= 2


def data(**settings) -> ImageData:
    return ImageData((PIXELS, np.arange(130) % 2), batch_size=10, **settings)  # 11 batches an epoch


def net() -> torch.nn.Module:
    """An encoder that draws random numbers and counts batches."""
    torch.manual_seed(5)
    layers = torch.nn.Linear(64, 12), torch.nn.BatchNorm1d(12), torch.nn.ReLU(), torch.nn.Dropout(0.3)
    return torch.nn.Sequential(torch.nn.Flatten(), *layers)


class Stops(pl.Callback):
    """Interrupts the training after some batches, each once."""

    def __init__(self, *after: int):
        self.after = set(after)

    def on_train_batch_end(self, trainer, module, outputs, batch, i):
        if (n := trainer.fit_loop.total_batch_idx + 1) in self.after:
            self.after.remove(n)
            signal.raise_signal(signal.SIGINT)


class Loss(pl.LightningModule):
    """Somebody's module."""

    def __init__(self):
        super().__init__()
        self.net = torch.nn.Sequential(net(), torch.nn.Linear(12, 2))

    def training_step(self, batch, i):
        return torch.nn.functional.cross_entropy(self.net(batch[0]), batch[1])

    def validation_step(self, batch, i):
        self.log("val_loss", Loss.training_step(self, batch, i))

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 0.01)


class Plateau(Loss):
    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), 0.5)
        schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=0, threshold=0.2)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "monitor": "val_loss", "strict": False}}


class TwoOptimizers(Loss):
    """Steps by itself: one optimiser after every batch, the other one after every third."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch, i):
        often, seldom = self.optimizers()
        often.zero_grad()
        self.manual_backward(super().training_step(batch, i))
        often.step()
        if (i + 1) % 3 == 0:
            seldom.step()
            seldom.zero_grad()

    def configure_optimizers(self):
        encoder, head = self.net
        return torch.optim.SGD(head.parameters(), 0.1), torch.optim.Adam(encoder.parameters(), 0.01)


class TheirData(pl.LightningDataModule):
    """Loaders that don't know their place, and draw the order of each epoch from the shared generator."""

    def setup(self, stage=None):
        x, y = torch.from_numpy(PIXELS).permute(0, 3, 1, 2) / 255, torch.arange(130) % 2
        self.set = torch.utils.data.TensorDataset(x, y)

    def train_dataloader(self):
        return torch.utils.data.DataLoader(self.set, 12, shuffle=True)

    def val_dataloader(self):
        return torch.utils.data.DataLoader(self.set, 50)


TABLE = {
    "as it is": (data, net, {}, {}),
    "windows": (data, net, {"accumulate_grad_batches": 4}, {}),
    "windows of several sizes": (data, net, {}, {"schedule": {0: 3, 2: 2}}),
    "half epochs": (data, net, {"val_check_interval": 0.5}, {}),
    "validation within windows": (data, net, {"val_check_interval": 3, "accumulate_grad_batches": 2}, {}),
    "validation every 4 batches": (data, net, {"val_check_interval": 4, "check_val_every_n_epoch": None}, {}),
    "every other epoch": (data, net, {"check_val_every_n_epoch": 2}, {}),
    "new loaders": (data, net, {"reload_dataloaders_every_n_epochs": 1}, {}),
    "some batches": (data, net, {"limit_train_batches": 5, "gradient_clip_val": 0.5}, {}),
    "averaged": (lambda: data(balanced=True, augment="mixup=0.3"), net, {}, {"ema": True, "balance": "sampler"}),
    "a schedule that looks": (data, Plateau, {}, {}),
    "a schedule that looks back": (data, Plateau, {"check_val_every_n_epoch": 2}, {}),
    "two optimisers": (data, TwoOptimizers, {}, {}),
    "their loaders": (TheirData, Loss, {"accumulate_grad_batches": 2}, {}),
}


@pytest.mark.parametrize("name", TABLE)
def test_a_stop_anywhere_changes_nothing(workspace, name):
    make_data, make_model, arguments, settings = TABLE[name]
    settings = dict(settings)
    schedule = settings.pop("schedule", None)

    def go(*stops: int, **more):
        windows = [pl.callbacks.GradientAccumulationScheduler(schedule)] if schedule else []
        trainer = {"callbacks": [Stops(*stops), *windows]}
        if "resume" in more:
            return fit(make_data(), make_model(), trainer=trainer, progress=False, **more)
        trainer |= {"precision": "32-true", **arguments}
        return fit(make_data(), make_model(), trainer=trainer, epochs=EPOCHS, **settings, **QUICK)

    whole = go()
    assert whole.status == "done", whole.info
    loops = read_checkpoint(whole.checkpoints / "last.ckpt")["loops"]["fit_loop"]
    batches = loops["epoch_loop.batch_progress"]["total"]["ready"]
    stops = sorted([11, *random.sample(range(1, batches - 2), 2)])  # one after an epoch
    print("stopped after", stops)  # shown where it fails
    run = go(stops[0])
    for stop in (*stops[1:], None):
        if run.status == "stopped":  # the last one may have come too late
            run = go(stop, resume=run)
    assert run.status == "done", run.log()
    assert same_weights(run, whole), "the weights differ"
    a, b = (read_checkpoint(r.checkpoints / "last.ckpt") for r in (run, whole))
    assert all(str(a[k]) == str(b[k]) for k in ("optimizer_states", "lr_schedulers"))
    a, b = (r.metrics.drop(columns=["seconds", "train_loss"], errors="ignore") for r in (run, whole))
    assert a.equals(b), f"{a}\n{b}"
    assert run.info["result"]["best_epoch"] == whole.info["result"]["best_epoch"]


# ---- another version of the package may mean something else by "auto"

COLOURS = (np.random.default_rng(1).random((330, 8, 8, 3)) * 255).astype("uint8")
COLOURS[1::2, :4] //= 2


def colours(**settings) -> ImageData:
    return ImageData((COLOURS, np.arange(330) % 2), **settings)


def new_rules(monkeypatch):
    """From now on every "auto" stands for something else than before."""
    for name, value in {
        "core.augment.AUTO": {9: (Augment(rotate=90), Augment(rotate=90))},
        "core.data._auto_batch": lambda n: 64,
        "core.classifier.auto_tta": lambda augmentation: "shift",
        "train.fit.auto_tta": lambda augmentation: "shift",
        "core.pretrain.view_augment": lambda glyphs, channels: Augment(rotate=90),
        "train.fit.view_augment": lambda glyphs, channels: Augment(rotate=90),
        "train.fit.fastest_precision": lambda *a: ("bf16-mixed", 2.0),
        "train.fit.find_lr": lambda *a, **k: pytest.fail("the learning rate is looked for again"),
    }.items():
        monkeypatch.setattr(f"lightning_pod.{name}", value)


AUTO_SETTINGS = {
    "classify": {},
    "an encoder of one's own, a listed augmentation": {"model": net, "augment": "auto, mixup=0.2"},
    "a rate that is found": {"find_lr": True},
    "pretrain": {"task": "pretrain", "model": "podnet_n"},
}


@pytest.mark.parametrize("name", AUTO_SETTINGS)
def test_a_run_goes_on_with_what_auto_meant_when_it_began(workspace, monkeypatch, name):
    monkeypatch.setattr("lightning_pod.train.fit.fastest_precision", lambda *a: ("32-true", 1.0))
    settings = {"model": "podnet_n", "epochs": 2, "lr": 0.01, **AUTO_SETTINGS[name]}
    make = settings.pop("model")
    how = {"augment": settings.pop("augment", "auto")}

    def model():
        if make is not net:
            return make
        encoder = make()
        encoder[1] = torch.nn.Linear(192, 12)
        return encoder

    whole = fit(colours(**how), model(), **settings, **QUICK)
    run = fit(colours(**how), model(), trainer={"callbacks": [Stops(5)]}, **settings, **QUICK)
    assert run.status == "stopped"
    new_rules(monkeypatch)
    trainer = {"callbacks": [Stops()]}
    run = fit(colours(**how), *([model()] if make is net else []), resume=run, trainer=trainer, progress=False)
    assert run.status == "done" and same_weights(run, whole) and run.settled == whole.settled
    assert run.summary == whole.summary and make_augment(run.settled["augment"], False)
    known = [read_checkpoint(r.checkpoints / "best.ckpt")["hyper_parameters"] for r in (run, whole)]
    assert known[0] == known[1] and "auto" not in map(str, known[0].values())


def without_text(run, grey: bool):
    """Take from a run what earlier versions didn't put down."""
    lines = [json.loads(line) for line in (run.path / "events.jsonl").read_text().splitlines()]
    for event in (e for e in lines if e["kind"] == "settled"):
        del event["augment"], event["tta"], event["held_out"]
    (run.path / "events.jsonl").write_text("".join(json.dumps(e) + "\n" for e in lines))
    splits = json.loads((run.path / "splits.json").read_text())
    if not grey:
        del splits["colourless"]
    (run.path / "splits.json").write_text(json.dumps(splits))


@pytest.mark.parametrize("grey", [False, True])
def test_a_run_of_before_goes_on_with_what_auto_meant_then(workspace, grey):
    meant = str(auto_augment(False, 2 if grey else 1))
    settings = {"epochs": 2, **QUICK}
    trainer = {"precision": "32-true"}
    whole = fit(colours(augment=meant), "podnet_n", trainer=trainer, **settings)
    how = {"augment": "auto" if grey else meant}
    run = fit(colours(**how), "podnet_n", trainer={**trainer, "callbacks": [Stops(12)]}, **settings)
    without_text(run, grey)
    run = fit(colours(), resume=run, trainer={"callbacks": [Stops()]}, progress=False)
    assert same_weights(run, whole) and run.settled["augment"] == meant
    assert run.settled["held_out"] == ["val", "valid", "validation", "eval"]
    assert f"wasn't put down when the run began: it goes on with {meant}, which it meant then" in run.log()
