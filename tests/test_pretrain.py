"""The weights that come with the package, and a pre-training that goes through `fit`."""

import numpy as np
import pytest
import torch

from lightning_pod.core.classifier import Classifier
from lightning_pod.core.data import ImageData
from lightning_pod.core.nets import read_weights, shipped
from lightning_pod.core.pretrain import Pretrainer, probe
from lightning_pod.train.fit import fit

WEIGHTS = shipped("podnet_s")


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [8, 28, 32, 64])
def test_shipped_weights_fit_images_of_any_kind(channels, size):
    model = Classifier.from_pretrained("podnet_s", classes=4, channels=channels, size=size)
    assert model.mean.shape == (channels, 1, 1) and 0 < float(model.mean.mean()) < 1 and float(model.std.min()) > 0
    p = model.probabilities(np.random.default_rng(0).integers(0, 256, (5, size, size, channels), dtype=np.uint8))
    assert p.shape == (5, 4) and np.isfinite(p).all()


def test_grey_images_have_the_same_features_as_grey_in_three_channels():
    x = torch.rand(4, 1, 28, 28)
    one, three = (Classifier.from_pretrained("podnet_s", 2, channels=c, size=28).eval() for c in (1, 3))
    same = torch.full((3, 1, 1), float(three.mean.mean())), torch.full((3, 1, 1), float(three.std.mean()))
    three.mean, three.std = same
    with torch.no_grad():
        a, b = one.encoder((x - one.mean) / one.std), three.encoder((x.expand(-1, 3, -1, -1) - three.mean) / three.std)
    torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def test_shipped_weights_are_small_and_say_what_they_are():
    assert WEIGHTS.stat().st_size <= 2_000_000
    _, about = read_weights(WEIGHTS)
    assert about["net"] == "podnet_s" and len(about["stats"][0]) == 3 and about["method"] and about["data"]
    card = WEIGHTS.with_suffix(".md").read_text(encoding="utf-8")
    for word in ("licence", "from_pretrained", "CIFAR-10", "limits"):
        assert word.lower() in card.lower(), f"the card doesn't say anything about {word}"


def test_pretrained_through_fit_and_fine_tuned(tmp_path):
    settings = dict(loggers="none", workspace_path=tmp_path, progress=False)
    run = fit("digits", Pretrainer("podnet_n"), epochs=2, **settings)
    assert run.status == "done"
    row = run.history.rows[-1]
    assert row["train_loss"] > 0 and row["valid_loss"] > 0 and row["valid_knn"] > 0.5 and row["valid_linear"] > 0.5
    model = Classifier.from_pretrained(run, classes=10, channels=1, size=8)
    trained = Pretrainer("podnet_n", channels=1, size=8)
    trained.load_state_dict(torch.load(run.checkpoints / "best.ckpt", weights_only=True)["state_dict"])
    data = ImageData("digits").setup()
    assert probe(model, data) == probe(trained, data)
    assert fit("digits", Classifier.from_pretrained(run), epochs=1, **settings).status == "done"
