"""A diagnosis says what scikit-learn and Captum say, its page opens offline, its findings can be mended."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Pod, wait_for
from PIL import Image
from sklearn import metrics
from sklearn.calibration import calibration_curve
from torch import nn

from lightning_pod.core.config import PodError, workspace
from lightning_pod.core.data import ImageData
from lightning_pod.core.index import dependents
from lightning_pod.core.job import find_job, jobs
from lightning_pod.core.sources import digits
from lightning_pod.store.datasets import Store, push
from lightning_pod.train.diagnose import diagnose, load_report, look_into, material
from lightning_pod.train.figures import Predictions, at_temperature, calibration, compare, per_class, suspects
from lightning_pod.train.fit import fit
from lightning_pod.train.probes import LIKE_RANDOM, Saliency, agreed, pictures_of, predict, randomisation, subject_of

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ARGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
PLANTED = 29  # of 1,437 training images: 2 %


def flipped(seed: int = 0) -> tuple:
    """Digits with a split of their own and wrong labels in the training part; the keys of these."""
    items, rng = digits(), np.random.default_rng(seed)
    order = rng.permutation(len(items))
    split, labels = np.full(len(items), "train"), items.labels.copy()
    split[order[:180]], split[order[180:360]] = "test", "valid"
    wrong = rng.choice(np.flatnonzero(split == "train"), PLANTED, replace=False)
    labels[wrong] = (labels[wrong] + rng.integers(1, 10, PLANTED)) % 10
    return replace(items, labels=labels, split=split), {f"train/{i:06}.png" for i in wrong}


class Lab:
    """A workspace with two runs and a report, made once for all tests."""

    def __init__(self, folder):
        self.folder, self.pod = folder, Pod(folder)
        settings = {"test": 0.3, "loggers": "none", "progress": False}  # many to be tested on leave mistakes to look at
        self.run = fit("digits", epochs=1, **settings)
        self.longer = fit("digits", epochs=10, **settings)
        items, self.planted = flipped()
        self.wrong_data = ImageData(items).setup()
        self.wrong_run = fit(self.wrong_data, epochs=8, loggers="none", progress=False)
        self.report = diagnose(self.run, self.longer, progress=False)
        self.suspicious = diagnose(self.wrong_run, data=self.wrong_data, train=True, progress=False)


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    folder = tmp_path_factory.mktemp("diagnose")
    with pytest.MonkeyPatch.context() as m:
        m.setenv("POD_WORKSPACE", str(folder))
        m.delenv("POD_JOB", raising=False)
        m.delenv("POD_DATABASE_URL", raising=False)
        m.chdir(folder)
        yield Lab(folder)


# ---- the figures


def test_the_figures_are_scikit_learns(lab):
    p = lab.report.predictions
    assert (lab.report.confusion == metrics.confusion_matrix(p.labels, p.predicted)).all()
    precision, recall, f1, support = metrics.precision_recall_fscore_support(p.labels, p.predicted)
    table = lab.report.per_class
    for name, values in (("precision", precision), ("recall", recall), ("f1", f1), ("support", support)):
        np.testing.assert_allclose(table[name], values, atol=1e-9)
    accuracy, confidence = calibration_curve(p.right, p.confidence, n_bins=15)
    np.testing.assert_allclose(lab.report.calibration.bins.accuracy, accuracy, atol=1e-7)
    np.testing.assert_allclose(lab.report.calibration.bins.confidence, confidence, atol=1e-6)
    share = lab.report.calibration.bins.images / len(p)
    assert lab.report.calibration.ece == pytest.approx((share * abs(accuracy - confidence)).sum(), abs=1e-6)
    assert lab.report.headline["accuracy"][0] == pytest.approx(lab.run.summary["test_acc"], abs=0.012)  # bfloat16
    value, low, high = lab.report.headline["macro F1"]
    assert value == pytest.approx(metrics.f1_score(p.labels, p.predicted, average="macro")) and low < value < high


def test_the_temperature_calibrates_and_changes_no_answer(lab):
    t, p = lab.report.temperature, lab.report.predictions
    valid = lab.report.every.part("valid")
    assert calibration(at_temperature(valid, t["temperature"])).nll < calibration(valid).nll
    assert t["nll"][1] < t["nll"][0] and t["ece"][1] < t["ece"][0]
    assert (at_temperature(p, t["temperature"]).predicted == p.predicted).all()


def test_planted_label_errors_are_found(lab):
    s = lab.suspicious.suspects
    trained = s[s.split == "train"].head(PLANTED)
    assert trained.key[:20].isin(lab.planted).mean() >= 0.8
    true = dict(zip(lab.suspicious.every.keys, digits().labels[lab.suspicious.pictures.rows], strict=True))
    hits = trained[trained.key.isin(lab.planted)]
    assert np.mean([int(r.suggested) == true[r.key] for r in hits.itertuples()]) >= 0.9
    assert any("learnt by heart" in n for n in lab.suspicious.notes)


def test_two_models_are_compared_on_the_same_images(lab):
    c, a = lab.report.comparison, lab.report.predictions
    b = look_into(*material(lab.longer)).predictions
    assert c.broken == [k for k, x, y in zip(a.keys, a.right, b.right, strict=True) if x and not y]
    assert c.difference[0] == pytest.approx(b.right.mean() - a.right.mean())
    assert c.difference[1] <= c.difference[0] <= c.difference[2] and 0 <= c.p <= 1
    n, clear = 400, np.eye(2, dtype=np.float32)
    labels = np.zeros(n, int)
    worse = Predictions(clear[(np.arange(n) < 40).astype(int)], labels, ["a", "b"], name="old")
    better = Predictions(clear[(np.arange(n) < 10).astype(int)], labels, ["a", "b"], name="new")
    change = compare(worse, better)
    assert (len(change.mended), len(change.broken)) == (30, 0) and change.p < 1e-6 and "new is better" in str(change)
    assert change.difference[1] > 0


def test_weak_slices_are_found_by_any_column(lab, tmp_path):
    items, rows = digits(), []
    for n in range(240):
        dark, label = n % 3 == 0, items.labels[n]
        image = Image.fromarray(items.pixels[n, ..., 0] // (9 if dark else 1))
        path = tmp_path / "shots" / str(label) / f"{n}.{'png' if n % 2 else 'bmp'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.resize((8 + 4 * (n % 4),) * 2).save(path)
        rows.append((f"{label}/{path.name}", "night" if dark else "day", n % 4))
    (tmp_path / "more.csv").write_text("key,time,camera\n" + "".join(f"{k},{t},{c}\n" for k, t, c in rows))
    found = look_into(*material(lab.run, tmp_path / "shots"), columns=tmp_path / "more.csv")
    table = found.slices.set_index(["column", "slice"])
    assert set(found.slices.column) == {"brightness", "contrast", "size in pixels", "format", "time", "camera"}
    p = found.predictions
    night = p.columns["time"] == "night"
    assert table.loc[("time", "night"), "accuracy"] == pytest.approx(p.right[night].mean())
    assert table.loc[("time", "night"), "worse"] and not table.loc[("time", "day"), "worse"]
    assert table.loc[("camera", "3"), "images"] == 60 and len(table.loc["size in pixels"]) == 4
    assert found.slices[found.slices.column == "brightness"].worse.iloc[0]
    assert any("has no test split" in n for n in found.notes)


# ---- saliency


def test_saliency_is_what_captum_says(lab):
    import captum.attr as attr

    subject, pictures = material(lab.run)
    x, said = pictures.x(range(16)), torch.arange(16) % 10
    s = Saliency(subject.net, x)
    layer = subject.net.get_submodule(s.name)
    direct = attr.LayerGradientXActivation(subject.net, layer).attribute(x, target=said).sum(1).relu()
    torch.testing.assert_close(s.coarse(x, said), direct.detach())
    last = Saliency(subject.net, x, "encoder.body")  # averaged by the net: there Grad-CAM says the same
    cam = attr.LayerGradCam(subject.net, subject.net.encoder.body).attribute(x, target=said, relu_attributions=True)
    torch.testing.assert_close(last.coarse(x, said), cam[:, 0].detach(), atol=1e-5, rtol=1e-4)
    assert max(lab.report.randomisation.values()) < LIKE_RANDOM


def small_vit():
    """torchvision's vision transformer, small; its head begins with zeros, so that nothing would be seen."""
    from torchvision.models import VisionTransformer

    net = VisionTransformer(64, 16, 2, 2, 32, 64, num_classes=3)
    nn.init.normal_(net.heads.head.weight)
    return net


@pytest.mark.parametrize("name, size, places", [("resnet18", 64, 4), ("swin_t", 128, 4), ("convnext_tiny", 128, 4),
                                                ("densenet121", 64, 4), (small_vit, 64, 4),
                                                ("timm/vit_tiny_patch16_224", 224, 14)])
def test_saliency_finds_its_layer_in_any_net(name, size, places):
    torch.manual_seed(0)
    if callable(name):
        net = name()
    elif name.startswith("timm/"):
        net = pytest.importorskip("timm").create_model(name[5:], num_classes=3)
    else:
        from torchvision import models

        net = models.get_model(name, weights=None, num_classes=3)
    x = torch.rand(2, 3, size, size)
    s = Saliency(net, x)
    maps = s(x, [0, 1])
    assert s.coarse(x, torch.tensor([0, 1])).shape[1:] == (places, places)
    assert maps.shape == (2, size, size) and maps.max() == 1 and np.isfinite(maps).all()


def test_a_map_that_shows_nothing_of_the_net_is_called_meaningless(lab):
    class Bright(nn.Module):
        def __init__(self):
            super().__init__()
            self.pool, self.head = nn.AvgPool2d(2), nn.Linear(1, 10)

        def forward(self, x):
            return self.head(self.pool(x).mean((1, 2, 3))[:, None]).abs() + x.mean((1, 2, 3))[:, None] * 0

    pictures = pictures_of(ImageData("digits"), parts=("test",))
    x = pictures.x(range(32))
    like = randomisation(Saliency(Bright(), x), x, np.zeros(32, int))
    assert max(like.values()) > LIKE_RANDOM
    found = look_into(subject_of(Bright(), [str(i) for i in range(10)]), pictures)
    assert any("meaningless" in n for n in found.notes)


# ---- the page


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    if CHROMIUM is None:
        pytest.skip("no Chromium: apt-get install chromium")
    with sync_api.sync_playwright() as p:
        b = p.chromium.launch(executable_path=CHROMIUM, args=ARGS)
        yield b
        b.close()


def opened(browser, file, **context):
    """The page of a report. Asking for anything but the file itself is an error, and so is one in the console."""
    c, wrong = browser.new_context(offline=True, accept_downloads=True, **context), []
    p = c.new_page()
    p.set_default_timeout(20_000)
    own = (file.as_uri(), "data:", "blob:")
    p.on("request", lambda r: r.url.startswith(own) or wrong.append(r.url))
    p.on("console", lambda m: m.type == "error" and wrong.append(m.text))
    p.on("pageerror", lambda e: wrong.append(str(e)))
    p.goto(file.as_uri())
    return p, wrong


LOADED = "e => e.complete && e.naturalWidth > 0"
WIDE = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"


def luminance(page, selector: str, what: str) -> float:
    rgb = page.eval_on_selector(selector, f"e => getComputedStyle(e).{what}")
    return sum(float(v) for v in rgb[rgb.index("(") + 1:-1].split(",")[:3]) / 3


def test_the_page_opens_offline_and_cells_open_their_images(lab, browser):
    page, wrong = opened(browser, lab.report.index, viewport={"width": 1200, "height": 800}, color_scheme="light")
    cm = lab.report.confusion
    i, j = max(((a, b) for a in range(10) for b in range(10) if a != b), key=lambda t: cm[t])
    page.click(f'[data-cell="{i},{j}"]')
    images = page.locator("dialog[open] img")
    assert images.count() == cm[i, j] and all(images.nth(k).evaluate(LOADED) for k in range(cm[i, j]))
    assert f"{i}, taken for {j}" in page.locator("dialog h3").inner_text()
    page.keyboard.press("Escape")
    assert page.locator("dialog[open]").count() == 0
    page.click('[data-cell="0,0"]')
    assert page.locator("dialog[open] img").count() > 3
    page.keyboard.press("Escape")
    shown = page.locator("section img[data-i]")
    assert shown.count() > 20 and all(page.eval_on_selector_all("section img[data-i]", f"es => es.map({LOADED})"))
    assert page.locator("section").count() >= 12 and page.locator("svg").count() >= 4
    assert luminance(page, "body", "backgroundColor") > 240
    page.context.close()
    assert not wrong, wrong


def test_the_page_suits_a_phone_and_the_dark(lab, browser):
    page, wrong = opened(browser, lab.report.index, viewport={"width": 390, "height": 800}, color_scheme="dark")
    assert page.evaluate(WIDE) == 0
    assert luminance(page, "body", "backgroundColor") < 40
    assert luminance(page, "body", "color") > 200
    assert luminance(page, "svg text", "fill") > 200  # the plots follow
    page.click('[data-cell="1,1"]')
    assert page.locator("dialog[open]").bounding_box()["width"] <= 390 and page.evaluate(WIDE) == 0
    page.context.close()
    assert not wrong, wrong


def test_corrections_are_chosen_on_the_page_and_land_in_the_store(lab, browser, tmp_path):
    page, wrong = opened(browser, lab.suspicious.index)
    s = lab.suspicious.suspects
    menus = page.locator("select[data-key]")
    menus.nth(0).select_option(label=s.suggested[0])
    menus.nth(1).select_option("out")
    with page.expect_download() as download:
        page.get_by_role("button", name="Save corrections.csv").click()
    download.value.save_as(tmp_path / "corrections.csv")
    page.context.close()
    assert not wrong, wrong
    assert (tmp_path / "corrections.csv").read_text().splitlines() == [
        "key,label", f"{s.key[0]},{s.suggested[0]}", f"{s.key[1]},"]
    store = Store(f"sqlite:///{tmp_path / 'data.db'}")
    v = lab.suspicious.correct(tmp_path / "corrections.csv", name="mended", who="ann", why="seen", store=store)
    events = v.dataset.history()
    assert [(e["key"], e["old"], e["new"], e["who"], e["origin"], e["why"]) for e in events] == [
        (s.key[0], s.label[0], s.suggested[0], "ann", "correction", "seen"),
        (s.key[1], s.label[1], None, "ann", "correction", "seen")]
    labels = {e.key: e.label for e in v.entries()}
    assert labels[s.key[0]] == s.suggested[0] and s.key[1] not in labels and len(labels) == 1796
    store.close()


def test_the_report_of_a_stored_data_set_corrects_that_set(lab):
    store = Store()
    push("digits", "numbers", store=store)
    run = fit("store:numbers", epochs=2, loggers="none", progress=False)
    r = diagnose(run, progress=False)
    key = r.suspects.key[0] if len(r.suspects) else r.predictions.keys[0]
    before = store.dataset("numbers").labels()[key]
    new = next(c for c in r.predictions.classes if c != before)
    assert load_report(run).correct({key: new}).ref == "store:numbers@2"  # a report that is read again does it too
    assert store.dataset("numbers").labels()[key] == new
    store.dataset("numbers").undo()
    assert store.dataset("numbers").labels()[key] == before
    with pytest.raises(PodError, match="unknown class 'cow'"):
        r.correct({key: "cow"})
    with pytest.raises(PodError, match="has no image 'x.png'"):
        r.correct({"x.png": new})
    store.close()


def test_hostile_names_stay_text(lab, browser, tmp_path):
    items = digits()
    names = ["<img src=x onerror=alert(1)>", "</script><script>alert(2)</script>", 'a"b', *map(str, range(3, 10))]
    data = ImageData(replace(items, classes=names))
    found = look_into(*material(lab.run.model(), data, names))
    found.save(tmp_path / "report")
    page, wrong = opened(browser, found.index)
    assert names[0] in page.locator("#classes").inner_text() and page.locator("section script").count() == 0
    page.click('[data-cell="0,0"]')
    assert names[0] in page.locator("dialog h3").inner_text()
    page.context.close()
    assert not wrong, wrong


def test_a_page_keeps_to_its_budget_with_many_classes(tmp_path):
    from lightning_pod.train.diagnose import Report, page
    from lightning_pod.train.figures import headline
    from lightning_pod.train.probes import Pictures

    rng, n, c = np.random.default_rng(0), 3000, 60
    pixels = rng.integers(0, 255, (n, 48, 48, 3), dtype=np.uint8)
    labels = rng.integers(0, c, n)
    every = Predictions(rng.dirichlet(np.full(c, 0.1), n), labels, [f"class {i}" for i in range(c)])
    pictures = Pictures("noise", every.classes, labels, every.keys, every.split, lambda i: pixels[i], None)
    facts = {"model": "m", "run": None, "data": "noise", "data_version": None, "notes": [], "temperature": None,
             "headline": headline(every), "suspects": suspects(every), "numbers": np.arange(n), "seconds": 0.0}
    r = Report(every, "test", facts, None, pictures)
    large, small = len(page(r, budget=500_000)), len(page(r, small=True))
    assert large < 1_500_000 and small < 400_000, (large, small)


# ---- whatever a classifier is made of


class Conv(nn.Module):
    def __init__(self):
        super().__init__()
        layers = [nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(256, 10)]
        self.net = nn.Sequential(*layers)

    def forward(self, x):
        return self.net(x)


def theirs(lightning):
    """A module and a DataModule of a user, for a Lightning of either name."""

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.conv = Conv()

        def forward(self, x):
            return self.conv(x)

        def training_step(self, batch, i):
            return nn.functional.cross_entropy(self(batch[0]), batch[1])

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters(), 0.01)

    class Data(lightning.LightningDataModule):
        def setup(self, stage=None):
            items = digits()
            x = (torch.from_numpy(items.pixels).permute(0, 3, 1, 2).float() / 255 - 0.3) / 0.4
            y = torch.from_numpy(items.labels)
            self.sets = [torch.utils.data.TensorDataset(x[i::3], y[i::3]) for i in range(3)]

        def train_dataloader(self):
            return torch.utils.data.DataLoader(self.sets[0], 64, shuffle=True)

        def val_dataloader(self):
            return torch.utils.data.DataLoader(self.sets[1], 128)

        def test_dataloader(self):
            return torch.utils.data.DataLoader(self.sets[2], 128)

    return Module(), Data()


@pytest.mark.parametrize("name", ["pytorch_lightning", "lightning"])
def test_a_users_own_module_and_data(lab, name):
    lightning = pytest.importorskip(name)
    torch.manual_seed(0)
    module, data = theirs(lightning)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    lightning.Trainer(max_epochs=8, enable_model_summary=False, accelerator="cpu", **quiet).fit(module, data)
    r = diagnose(module, data=data, progress=False)
    x, y = data.sets[2].tensors
    with torch.no_grad():
        assert r.headline["accuracy"][0] == pytest.approx(float((module.eval()(x).argmax(1) == y).float().mean()))
    assert r.headline["accuracy"][0] > 0.8 and r.temperature and r.map is not None and r.cost.parameters == 2730
    assert r.robustness.accuracy[0] == pytest.approx(r.headline["accuracy"][0], abs=0.01)  # pixels and back
    assert r.saliency.name and r.index.exists() and r.index.is_relative_to(lab.folder)
    assert not any("from 0 to 1" in n for n in r.notes)
    with pytest.raises(PodError, match="DataModule of your own"):
        r.correct({r.predictions.keys[0]: "1"})


def test_a_run_of_a_users_own_module(lab):
    import pytorch_lightning

    module, data = theirs(pytorch_lightning)
    run = fit(data, module, epochs=3, loggers="none", progress=False)
    r = diagnose(run, data=data, net=theirs(pytorch_lightning)[0], progress=False)  # the weights are the run's
    x, y = data.sets[2].tensors
    with torch.no_grad():
        assert r.headline["accuracy"][0] == pytest.approx(float((module.eval().cpu()(x).argmax(1) == y).float().mean()))
    assert r.history is None and (run.path / "report" / "index.html").exists()  # the module has logged nothing
    longer = fit(data, theirs(pytorch_lightning)[0], epochs=6, loggers="none", progress=False)
    both = diagnose(run, longer, data=data, net=theirs(pytorch_lightning)[0], progress=False)  # one module for two runs
    assert both.headline == r.headline and both.comparison.accuracy[0] != both.comparison.accuracy[1]
    assert (run.confusion.to_numpy() == r.confusion).all()
    diagnose(run, data=data, net=module, part="valid", progress=False)
    assert run.confusion is None  # not of the test
    with pytest.raises(PodError, match="give two different ones"):
        diagnose(run, run, data=data, net=module, progress=False)
    with pytest.raises(PodError, match=r"made with your own Module: pass it, diagnose\(run, net="):
        diagnose(run, data=data, progress=False)
    with pytest.raises(PodError, match="weights of run .* don't fit Own"):
        diagnose(run, data=data, net=type("Own", (pytorch_lightning.LightningModule,), {})(), progress=False)
    given = look_into(*material(module, ImageData("digits")))
    assert any("pixels from 0 to 1" in n for n in given.notes)


def test_what_modules_and_data_of_ones_own_may_do(lab):
    """One number an image; no gradient; hooks that ask the Trainer; several labels an image; labels that are none."""
    import pytorch_lightning

    module, data = theirs(pytorch_lightning)

    class Frozen(nn.Module):
        def __init__(self):
            super().__init__()
            self.module = module

        @torch.no_grad()
        def forward(self, x):
            return self.module(x)

    class OneNumber(nn.Module):
        def forward(self, x):  # 0.4, but for the brightest image
            return torch.where(x.mean((1, 2, 3)) < brightest, 0.4, 3.0).squeeze()

    class Asks(type(data)):
        def on_after_batch_transfer(self, batch, dataloader_idx):
            return batch if self.trainer.training is False else None

    r = diagnose(Frozen(), data=theirs(pytorch_lightning)[1], progress=False)
    assert any("No saliency maps" in n and "no_grad" in n for n in r.notes)
    data.__class__ = Asks
    pictures = material(module, data)[1]
    assert data.trainer is None
    light = pictures.exact.mean((1, 2, 3))
    brightest, order, subject = light.max() - 1e-6, light.argsort().numpy(), subject_of(OneNumber())
    assert predict(subject, pictures, order[:1])[0][0, 1] == pytest.approx(0.4)  # a probability, as far as is known
    assert predict(subject, pictures, order)[0][0, 1] == pytest.approx(1 / (1 + np.exp(-0.4)))  # 3 can't be one
    with pytest.raises(PodError, match="labels below 0"):
        agreed(["a", "b"], ["b", "a"], np.array([0, -1]), 2)
    data.on_after_batch_transfer = lambda b, i: (b[0], nn.functional.one_hot(b[1], 10) * 2)
    with pytest.raises(PodError, match="name several classes"):
        material(module, data)


def onnx_file(lab, file):
    """The run's model as an ONNX file; skips the test where it can't be made."""
    pytest.importorskip("onnxruntime", reason="pip install onnxruntime")
    model = lab.run.model()
    try:
        torch.onnx.export(model, (torch.zeros(2, 1, 8, 8),), file, input_names=["x"], output_names=["y"],
                          dynamic_shapes=({0: torch.export.Dim("n")},), verbose=False)
    except (ImportError, ModuleNotFoundError) as e:
        pytest.skip(str(e))
    return file


def test_an_onnx_file_with_its_labels(lab, tmp_path):
    file = onnx_file(lab, tmp_path / "model.onnx")
    (tmp_path / "labels.txt").write_text("\n".join(map(str, range(10))))
    r = diagnose(file, data=ImageData("digits", test=0.3), labels=tmp_path / "labels.txt", progress=False)
    np.testing.assert_allclose(r.predictions.probabilities, lab.report.predictions.probabilities, atol=1e-4)
    assert r.saliency is None and r.cost.parameters is None and r.cost.milliseconds and r.robustness is not None
    assert any("ONNX" in n for n in r.notes) and r.index.exists()
    with pytest.raises(PodError, match="tells 10 classes apart, but 2 names were given"):
        diagnose(file, data=ImageData("digits"), labels=["a", "b"], progress=False)


# ---- what can't be


def test_bad_input_gets_a_sentence(lab, tmp_path):
    from lightning_pod.train.runs import Run

    def refused(text, *args, **kw):
        with pytest.raises(PodError, match=text):
            diagnose(*args, progress=False, **kw)

    n = len(jobs())
    empty = Run.create(lab.folder / "runs", "fit", "lightning_pod.train.fit:fit_body", lab.run.config)
    refused("has no checkpoint 'best' yet", empty.id)
    shutil.rmtree(empty.path)
    refused("unknown run 'nothing'", "nothing")
    for name in ("cat", "dog"):
        for k in range(3):
            (tmp_path / "pets" / name).mkdir(parents=True, exist_ok=True)
            from PIL import Image

            Image.new("L", (20, 20), 40 * k).save(tmp_path / "pets" / name / f"{k}.png")
    refused(r"2 classes that the model doesn't know \(cat, dog\); it was trained on 0, 1", lab.run,
            data=tmp_path / "pets")
    refused("can't take the images of pets, which are 1×20×20", Conv(), data=tmp_path / "pets")
    two = ImageData(replace(digits(), labels=digits().labels % 2, classes=["even", "odd"]))
    refused(r"tells 10 classes apart, the data set has 2 \(even, odd\)", Conv(), data=two)
    refused("doesn't say what it was trained on", Conv())
    refused("Did you mean 'test'", lab.run, part="tests")
    refused("no such folder", lab.run, data=tmp_path / "nowhere")
    refused("can't be run by ONNX Runtime|onnxruntime is needed", _junk(tmp_path / "x.onnx"), data="digits")
    refused("expected images", Conv(), data=__import__("lightning_user").Data())
    refused("which isn't kept: pass it again", lab.wrong_run)
    refused("columns", lab.run, columns=_junk(tmp_path / "x.csv"))
    with pytest.raises(PodError, match="has no report yet"):
        load_report(lab.longer)
    made = [j for j in jobs() if j.info["kind"] == "report" and j.status != "done"]
    assert len(jobs()) - n == len(made) <= 1  # what is wrong shows before there is a Job, but for the columns


def _junk(file):
    file.write_text("a,b\nc,d\n")
    return file


def test_a_class_that_never_occurs_is_named(lab):
    items = digits()
    keep = np.flatnonzero((items.labels != 7) | (np.arange(len(items)) % 50 == 0))
    data = ImageData(replace(items, labels=items.labels[keep], pixels=items.pixels[keep],
                             split=np.where(items.labels[keep] == 7, "train", "test")))
    found = look_into(*material(lab.run, data))
    assert np.isnan(found.per_class.loc["7", "recall"]) and found.per_class.loc["7", "support"] == 0
    assert any("'7' has no image here: recall can't be known" in n for n in found.notes)
    json.dumps(found.to_dict(), allow_nan=False)
    assert len(per_class(found.predictions)) == 10


# ---- as a Job


def test_a_report_is_a_job_that_names_its_parents(lab):
    reports = [j for j in jobs() if j.info["kind"] == "report"]
    job = next(j for j in reports if j.config["run"] == lab.run.id and j.config["other"] == lab.longer.id)
    assert job.status == "done" and lab.run.data_version in job.config["data_version"]
    assert lab.report.index == job.path / "report" / "index.html"
    assert (lab.run.path / "report" / "index.html").samefile(lab.report.index)
    assert any(job.id in d for d in dependents(lab.run, workspace()))
    again = load_report(lab.run)
    assert (again.confusion == lab.report.confusion).all() and again.headline == lab.report.headline
    np.testing.assert_allclose(again.predictions.probabilities, lab.report.predictions.probabilities)


def test_a_report_that_is_stopped_leaves_the_one_before(lab, monkeypatch):
    from lightning_pod.train import diagnose as module

    before, drawn = (lab.run.path / "report").resolve(), []

    def stopped(p):
        drawn.append(next(j for j in jobs() if j.info["kind"] == "report"))
        drawn[0].stop(wait=False)
        wait_for(lambda: drawn[0].status == "stopping")
        return None

    monkeypatch.setattr(module, "embedding_map", stopped)
    with pytest.raises(PodError, match=r"was stopped before it was done \(\d+"):
        diagnose(lab.run, progress=False)
    assert drawn[0].status == "stopped" and (lab.run.path / "report").resolve() == before


def test_the_command_and_a_process_of_its_own(lab, tmp_path):
    job = find_job(lab.pod.json("diagnose", lab.longer.id, lab.run.id, "--detach")["id"])
    assert job.wait(240) == "done", job.log()
    said = job.info["result"]
    assert said["page"].endswith("report/index.html") and said["bytes"] < 8e6
    assert "McNemar" in said["text"] and json.loads(Path(said["report"]).read_text())["comparison"]["images"] == 539
    again = load_report(lab.longer)
    assert again.headline["accuracy"][0] == pytest.approx(lab.longer.summary["test_acc"], abs=0.012)  # bfloat16
    key = load_report(lab.longer).predictions.keys[0]
    (tmp_path / "mine.csv").write_text(f"key,label\n{key},3\n")
    mended = lab.pod.json("diagnose", lab.longer.id, "--correct", tmp_path / "mine.csv", "--name", "by-command")
    assert mended["version"] == "store:by-command@2" and mended["changes"] == 1
    assert lab.pod("diagnose", "nothing", "--no-browser", code=2).stderr.startswith("pod diagnose: unknown run")
