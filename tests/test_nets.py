"""Nets of every family in every precision: each trains, or is refused before the start in one sentence."""

import re
import shutil
import typing

import numpy as np
import pytest
import torch
from lightning_fabric.connector import _PRECISION_INPUT_STR as PRECISIONS  # all that this Lightning knows

from lightning_pod.core.config import PodError
from lightning_pod.core.data import ImageData
from lightning_pod.core.nets import check_takes, named
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


# ---- images that some nets can't take, and batches that some layers can't


def pictures(n: int, height: int, width: int, channels: int = 3) -> tuple:
    pixels = np.random.default_rng(0).integers(0, 256, (n, height, width, channels), dtype=np.uint8)
    return pixels, np.arange(n) % 2


def trained(net: str, images: tuple, **settings):
    own = {"valid": 0.0, "test": 0.0, "batch_size": 2, "trainer": {"precision": "32-true"}}
    return fit(images, net, epochs=1, **{**own, **settings}, **QUICK)


@pytest.mark.parametrize("net, height, width, channels, side", [
    ("inception_v3", 32, 32, 3, 75), ("vit_b_32", 64, 32, 1, 64), ("timm/mixer_s32_224", 48, 40, 3, 48)])
def test_the_refusal_of_a_size_names_one_that_trains(workspace, net, height, width, channels, side):
    images = pictures(2, height, width, channels)
    with pytest.raises(PodError, match=rf"can't take images of {height}x{width} pixels: .* image_size={side}$"):
        trained(net, images)
    assert list_runs() == []
    assert trained(net, images, image_size=side).status == "done"


@pytest.mark.parametrize("net, size", [("googlenet", 64), ("resnet18", 32), ("timm/resnet10t", 32)])
def test_an_epoch_may_end_with_a_batch_of_one_image(workspace, net, size):
    run = trained(net, pictures(5, size, size), batch_size=4)
    assert run.status == "done" and run.metrics.notna().all(axis=None)


# ---- every net

FOR_THE_META_DEVICE = 150e6  # parameters, and more


def timm_families() -> list[str]:
    """A small net of each module of timm."""
    import timm

    small = ("atto", "femto", "pico", "nano", "xxt", "tiny", "xxs", "_t", "xs", "small", "_s", "18", "b0", "base")
    names = {m: timm.list_models(module=m) for m in timm.list_modules()}
    rank = {n: next((i for i, part in enumerate(small) if part in n), len(small)) for ns in names.values() for n in ns}
    return [f"timm/{min(ns, key=lambda n: (rank[n], len(n), n))}" for ns in names.values() if ns]


def torchvision_nets() -> list[str]:
    from torchvision import models

    return models.list_models(module=models)


def own_side(net: str) -> int:
    """The side of the images that a net was made for."""
    if net.startswith("timm/"):
        import timm

        return timm.get_pretrained_cfg(net.removeprefix("timm/")).input_size[-1]
    from torchvision import models

    return models.get_model_weights(net).DEFAULT.transforms().crop_size[0]


def parameters(net: str, side: int) -> float:
    with torch.device("meta"):
        try:
            return sum(p.numel() for p in named(net, False, side).parameters())
        except NotImplementedError:  # RegNets look at values; the largest of torchvision has 644 million parameters
            return 700e6 if "128gf" in net else 84e6 if "32gf" in net else 50e6


def one_step_without_weights(net: str, side: int):
    with torch.device("meta"):
        encoder = named(net, False, side).train()
        encoder(torch.zeros(2, 3, side, side)).mean().backward()


@pytest.mark.slow
@pytest.mark.parametrize("net", [*torchvision_nets(), *timm_families()])
def test_every_net_trains_or_is_refused_in_one_sentence(workspace, net):
    for side in (own_side(net), 64):
        try:
            check_takes(net, 3, side, side)
            if parameters(net, side) > FOR_THE_META_DEVICE:
                one_step_without_weights(net, side)
            else:
                assert trained(net, pictures(2, side, side), image_size=side).status == "done"
        except PodError as e:
            assert "\n" not in str(e) and re.search(r"with image_size=\d+$|can't be used as an encoder", str(e)), e
            assert list_runs() == []
        for run in list_runs():
            shutil.rmtree(run.path)
