"""What a source has to say reaches its user, wherever that is."""

from pathlib import Path

import numpy as np
import pytest
from conftest import last_json
from PIL import Image

from lightning_pod import cli
from lightning_pod.core.data import ImageData
from lightning_pod.core.sources import load
from lightning_pod.store.datacheck import check
from lightning_pod.store.datasets import push
from lightning_pod.train.fit import fit

QUICK = {"epochs": 1, "loggers": "none", "progress": False, "trainer": {"precision": "32-true"}}


def pixels(n: int = 40) -> np.ndarray:
    """Grey images of 8x8, the odd ones bright."""
    rng = np.random.default_rng(0)
    return (rng.random((n, 8, 8)) * 100 + 140 * (np.arange(n) % 2)[:, None, None]).astype("uint8")


def tree(root: Path, n: int = 40, classes=("dark", "light")) -> Path:
    """A folder of class folders."""
    for i, a in enumerate(pixels(n)):
        path = root / classes[i % len(classes)] / f"{i:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(a).save(path)
    return root


@pytest.fixture
def images(tmp_path, workspace) -> Path:
    return tree(tmp_path / "images")


def warnings_of(run) -> list[str]:
    return [e["text"] for e in run.events() if e["kind"] == "message" and e["level"] == "warning"]


# ---- what a source has to say


def test_what_a_source_has_to_say_reaches_its_user(images, workspace, capfd):
    Image.fromarray(pixels()[0]).save(images / "cover.png")
    said = f"'{images}': 1 image lies in no class folder and is left out: cover.png"
    assert load(images).remarks == [said]
    data = ImageData(images)
    assert "not loaded" in str(data) and said not in repr(data)
    assert data.setup().remarks == [said] == str(data).splitlines()[1:]
    assert "lies in no class folder" in data._repr_html_()
    for source in (data, str(images)):
        capfd.readouterr()
        run = fit(source, "podnet_n", **{**QUICK, "progress": True})
        assert warnings_of(run).count(said) == run.log().count(said) == capfd.readouterr().err.count(said) == 1
    assert said in check(images).notes and said in str(check(data))
    assert "lies in no class folder" in check(images).report()
    assert push(images, "set")[1]["remarks"] == [said]
    capfd.readouterr()
    assert cli.main(["data", "push", str(images), "--to", "other", "--json"]) == 0
    told = capfd.readouterr()
    assert said in told.err and last_json(told.out)["remarks"] == [said]


def test_the_train_panel_shows_what_a_source_has_to_say(images, workspace):
    from lightning_pod.panels.train import TrainPanel

    Image.fromarray(pixels()[0]).save(images / "co<b>ver.png")
    run = fit(images, "podnet_n", **QUICK)
    panel = TrainPanel(workspace, watch=False)
    assert panel.view.run.id == run.id
    assert "1 image lies in no class folder and is left out: co&lt;b&gt;ver.png" in panel.view.warned.value
    panel.view.show(None)
    assert panel.view.warned.value == ""

