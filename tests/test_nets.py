"""Nets of every family in every precision: each trains, or is refused before the start in one sentence."""

import typing

import pytest
from lightning_fabric.connector import _PRECISION_INPUT_STR as PRECISIONS  # all that this Lightning knows

from lightning_pod.core.config import PodError
from lightning_pod.core.data import ImageData
from lightning_pod.train.fit import fit
from lightning_pod.train.runs import list_runs

QUICK = {"loggers": "none", "progress": False}


def digits(n: int = 400) -> tuple:
    items = ImageData("digits").setup().items
    return items.pixels[:n], items.labels[:n]


# ---- precisions

AUGMENT = "crop=1, flip, rotate=10, resized_crop=0.5, color=0.2, cutout=2, mixup=0.2, cutmix=1"
KINDS = {
    "plain": {"augment": "none"},
    "everything on": {"augment": AUGMENT, "balance": "weights", "optimizer": "adamw", "ema": True},
    "drawn equally often": {"balance": "sampler"},
    "pretraining": {"task": "pretrain"},
}


@pytest.mark.parametrize("precision", typing.get_args(PRECISIONS))
def test_a_precision_trains_or_is_refused_before_the_start(workspace, precision):
    for kind, settings in KINDS.items():
        known = len(list_runs())
        try:
            run = fit(digits(), "podnet_n", epochs=2, trainer={"precision": precision}, **settings, **QUICK)
        except PodError as e:
            assert precision.startswith("transformer-engine"), f"{kind}: {e}"
            assert "precision='bf16-mixed' needs nothing more" in str(e) and "\n" not in str(e)
            assert len(list_runs()) == known
            continue
        assert run.status == "done" and run.metrics.notna().all(axis=None), kind
        assert run.metrics["train_loss"].is_monotonic_decreasing, kind
        if kind == "plain":
            assert run.summary["test_acc"] > 0.5
            assert run.predict(digits(1)[0][0]).label in set("0123456789")
