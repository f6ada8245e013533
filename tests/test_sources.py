"""Each kind of source, given to each verb; and what a source has to say reaches its user, wherever that is."""

import json
import tarfile
import threading
import zipfile
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import last_json
from PIL import Image
from pytorch_lightning import LightningDataModule

from lightning_pod import cli
from lightning_pod.core.config import PodError
from lightning_pod.core.data import ImageData
from lightning_pod.core.sources import load
from lightning_pod.store.datacheck import check
from lightning_pod.store.datasets import push
from lightning_pod.train.diagnose import diagnose
from lightning_pod.train.fit import fit
from lightning_pod.train.tune import tune

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
    assert data.setup().remarks[0] == said == str(data).splitlines()[1]
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


def test_a_study_tells_what_its_images_have_to_say_once(images, workspace):
    Image.fromarray(pixels()[0]).save(images / "cover.png")
    study = tune(images, {"seed": [0, 1]}, model="podnet_n", trials=2, **QUICK)
    said = [e["text"] for e in study.events() if e["kind"] == "message" and e["level"] == "warning"]
    assert sum("lies in no class folder" in text for text in said) == 1


# ---- each kind of source, given to each verb


class Own(LightningDataModule):
    """A DataModule of one's own."""

    classes = ("dark", "light")

    def __init__(self):
        super().__init__()
        x = torch.from_numpy(pixels()).float()[:, None] / 255
        self.set = torch.utils.data.TensorDataset(x, torch.arange(40) % 2)

    def train_dataloader(self):
        return torch.utils.data.DataLoader(self.set, batch_size=16)

    def val_dataloader(self):
        return self.train_dataloader()

    def test_dataloader(self):
        return self.train_dataloader()


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *of):
        pass


@pytest.fixture
def served(images):
    """The URL of a server of the images."""
    handler = partial(Quiet, directory=str(images))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def sources(images: Path, served: str) -> dict:
    """Each kind of source that `fit` and `load` name."""
    paths = sorted(images.rglob("*.png"))
    names, labels, x = [p.relative_to(images).as_posix() for p in paths], [p.parent.name for p in paths], pixels()
    beside, y = images.parent, np.arange(40) % 2
    with zipfile.ZipFile(beside / "images.zip", "w") as z:
        for p, n in zip(paths, names, strict=True):
            z.write(p, n)
    with tarfile.open(beside / "images.tar.gz", "w:gz") as t:
        t.add(images, "images")
    frame = pd.DataFrame({"path": [str(p) for p in paths], "label": labels})
    frame.to_csv(beside / "images.csv", index=False)
    (beside / "images.txt").write_text("\n".join(map(str, paths)))
    push(images, "set")
    return {
        "name": "digits",
        "folder": str(images),
        "Path": images,
        "zip": str(beside / "images.zip"),
        "tar.gz": beside / "images.tar.gz",
        "csv": str(beside / "images.csv"),
        "txt": str(beside / "images.txt"),
        "list of paths": paths,
        "list of pairs": list(zip(map(str, paths), labels, strict=True)),
        "list of URLs": [f"{served}/{n}" for n in names],
        "DataFrame": frame,
        "arrays": (x, y),
        "floats": (x / 255, y),
        "NCHW": (np.repeat(x[:, None], 3, 1), y.tolist()),
        "tensors": (torch.from_numpy(x)[:, None], torch.from_numpy(y)),
        "list of tensors": ([torch.from_numpy(a)[None] / 255 for a in x], list(y)),
        "Items": load(images),
        "ImageData": ImageData(images),
        "ImageData of arrays": ImageData((x, y), valid=0.2, image_size=(8, 10)),
        "ImageData, set up": ImageData((x, y)).setup(),
        "store": "store:set",
        "store version": "store:set@1",
        "DataModule": Own(),
    }


def asked(name: str, source, images: Path):
    """What a run of this source is asked about: an image or more, in the form that it was trained on."""
    if name in ("name", "DataModule"):
        return pixels(1)[0]
    if isinstance(source, tuple):
        return source[0][:3]
    if name == "list of URLs":
        return source[:2]
    return sorted(images.rglob("*.png"))[:2]


def verbs_of(name: str, source, images: Path, verbs: tuple):
    if "fit" in verbs or "predict" in verbs or "diagnose" in verbs:
        run = fit(source, "podnet_n", **QUICK)
        assert run.status == "done" and run.summary["test_acc"] >= 0, name
    if "predict" in verbs and name != "DataModule":
        said = run.predict(asked(name, source, images))
        assert all(0 < p.probability <= 1 for p in (said if isinstance(said, list) else [said])), name
    if "check" in verbs and name != "DataModule":
        assert len(check(source).items) in (40, 1797), name
    if "diagnose" in verbs:
        assert diagnose(run, data=source).index.is_file(), name
    if "tune" in verbs:
        study = tune(source, {"seed": [0, 1]}, model="podnet_n", trials=1, **QUICK)
        assert study.status == "done" and study.best_run.summary["valid_acc"] >= 0, name


def test_fit_check_and_predict_take_each_kind_of_source(images, served):
    for name, source in sources(images, served).items():
        verbs_of(name, source, images, ("fit", "check", "predict"))


def test_tune_and_diagnose_take_each_way_to_give_a_source(images, served):
    every = sources(images, served)
    for name in ("list of pairs", "ImageData"):
        verbs_of(name, every[name], images, ("tune", "diagnose"))


def test_a_study_searches_settings_of_arrays_too(workspace):
    study = tune((pixels(), np.arange(40) % 2), {"image_size": [8, 10]}, model="podnet_n", trials=2, **QUICK)
    assert study.counts() == {"done": 2}
    specs = [json.loads((study.run_of(n).path / "splits.json").read_text())["spec"] for n in range(2)]
    assert {s["height"] for s in specs} == {8, 10}


@pytest.mark.slow
def test_every_verb_takes_each_kind_of_source(images, served):
    for name, source in sources(images, served).items():
        verbs_of(name, source, images, ("tune", "diagnose"))


# ---- what isn't one label an image


def frame_of(images: Path, labels) -> pd.DataFrame:
    paths = sorted(images.rglob("*.png"))
    return pd.DataFrame({"path": [str(p) for p in paths], "label": list(labels)})


def forms_of(images: Path, labels: list) -> dict:
    """The same labels in a folder, an archive, a file, a frame, a list and beside arrays."""
    frame, beside = frame_of(images, labels), images.parent
    frame.to_csv(beside / "labels.csv", index=False)
    for p, label in zip(frame.path, labels, strict=True):
        place = beside / "by label" / str(label).replace("/", "_") / Path(p).name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(Path(p).read_bytes())
    with zipfile.ZipFile(beside / "labels.zip", "w") as z:
        for p in (beside / "by label").rglob("*.png"):
            z.write(p, p.relative_to(beside / "by label").as_posix())
    return {
        "folder": beside / "by label",
        "zip": beside / "labels.zip",
        "csv": beside / "labels.csv",
        "DataFrame": frame,
        "list": list(zip(frame.path, labels, strict=True)),
        "arrays": (pixels(), labels),
    }


@pytest.mark.parametrize(
    "labels, said",
    [
        ([f"{38.46 + i / 7:.2f}" for i in range(40)], "That is regression"),
        (["cat", "dog", "cat;dog", "bird"] * 10, "name several classes"),
        (["cat", "dog", "cat|dog|bird", "cat|bird"] * 10, "name several classes"),
        (["scab", "rust", "scab rust", "none"] * 10, "name several classes"),
        (["['cat', 'dog']", "['cat']"] * 20, "name several classes"),
        (["images", "masks"] * 20, "which is segmentation"),
    ],
)
def test_labels_that_are_no_classes_are_refused_in_every_form(images, labels, said):
    for form, source in forms_of(images, labels).items():
        for verb in (lambda s: fit(s, "podnet_n", **QUICK), check):
            with pytest.raises(PodError, match=said) as e:
                verb(source)
            assert "lightning_pod trains classifiers, which give each image one label" in str(e.value), form


@pytest.mark.parametrize("name", ["Train_png Test_png", "seg_train seg_test", "train2017 val2017", "TrainSet TestSet"])
def test_folders_that_look_like_splits_are_no_classes(tmp_path, workspace, name):
    for top in name.split():
        tree(tmp_path / "images" / top, 6)
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as z:
        for p in (tmp_path / "images").rglob("*.png"):
            z.write(p, p.relative_to(tmp_path).as_posix())
    for source in (tmp_path / "images", tmp_path / "images.zip"):
        with pytest.raises(PodError, match="look like the splits of one data set.*Call them train, valid and test"):
            fit(source, "podnet_n", **QUICK)


def test_an_image_with_two_labels_or_with_columns_of_them_is_refused(images):
    frame = frame_of(images, ["cat", "dog"] * 20)
    twice = pd.concat([frame, frame[:2].assign(label="bird")])
    for source in (twice, list(zip(twice.path, twice.label, strict=True))):
        with pytest.raises(PodError, match="one image has two labels.*trains classifiers"):
            fit(source, "podnet_n", **QUICK)
    bare = frame.drop(columns="label")
    with pytest.raises(PodError, match="Train one classifier for each column"):
        fit(bare.assign(cat=[1, 0] * 20, dog=1), "podnet_n", **QUICK)
    with pytest.raises(PodError, match="Several labels an image can't be learnt"):
        fit((pixels(), np.ones((40, 3), int)), "podnet_n", **QUICK)
    with pytest.raises(PodError, match="look like masks"):
        fit((pixels(), np.ones((40, 8, 8), int)), "podnet_n", **QUICK)


@pytest.mark.parametrize("task", ["regression", "segmentation", "object-detection", "multi_label"])
def test_another_task_is_refused_with_what_to_do(workspace, task, capsys):
    assert cli.main(["fit", "digits", "--task", task]) == 2
    said = capsys.readouterr().err
    assert "trains classifiers" in said and "Did you mean" not in said


def test_fit_says_which_classes_there_are_and_what_is_never_asked(images, workspace):
    run = fit(images, "podnet_n", **QUICK)
    told = "images: 40 images (32 train, 4 valid, 4 test), 8×8 grey, of 2 classes: dark, light"
    assert told in run.log() and not [w for w in warnings_of(run) if "asked" in w or "too few" in w]
    assert warnings_of(run) == ["the test has 4 images: one more right or wrong moves test_acc by 25 points"]
    assert "2 classes: dark, light" in check(images).notes
    many = (np.repeat(pixels(), 3, 0), np.arange(120) % 40)
    run, said = fit(many, "podnet_n", **QUICK), check(many)
    words = " ".join(warnings_of(run))
    assert "classes are in no test image, so test_acc says nothing about them" in words
    assert "classes are in no validation image, so valid_acc says nothing about them" in words
    assert "120 images of 40 classes are 3.0 of each: too few to learn from scratch" in words
    assert "120 images of 40 classes are 3.0 of each" in " ".join(said.notes)
    assert any("classes have no image in test" in f.text for f in said["imbalance"])


def test_one_class_for_each_image_is_refused(images, workspace):
    labels = [f"image {i}" for i in range(40)]
    for form, source in forms_of(images, labels).items():
        with pytest.raises(PodError, match="40 classes for 40 images.*nothing to learn"):
            fit(source, "podnet_n", **QUICK)
        assert "40 classes for 40 images" in " ".join(check(source).notes), form


# ---- what belongs together


def test_images_of_one_patient_are_never_in_two_splits(images, workspace, capsys):
    frame = frame_of(images, ["dark"] * 20 + ["light"] * 20).assign(Patient_ID=[f"p{i % 8}" for i in range(40)], age=3)
    frame.to_csv(images.parent / "patients.csv", index=False)
    table, paths = images.parent / "patients.csv", sorted(images.rglob("*.png"))
    forms = [  # the source, what to say, whether it is said that a column was noticed
        (frame, {}, True),
        (table, {}, True),
        (str(table), {"group": "patient_id"}, False),
        (images, {"group": r"(\d)\.png"}, False),
        ([str(p) for p in paths], {"group": r"(\d)\.png"}, False),
        ((pixels(), np.arange(40) % 2), {"group": np.arange(40) // 5}, False),
        (load(images), {"group": [str(i // 5) for i in range(40)]}, False),
    ]
    for source, asked_for, noticed in forms:
        data = ImageData(source, valid=0.2, test=0.2, **asked_for).setup()
        held = [set(data.items.groups[data.parts[s]]) for s in ("train", "valid", "test")]
        assert all(held) and not held[0] & held[1] and not held[0] & held[2] and not held[1] & held[2]
        assert any("was taken for what belongs together" in r for r in data.remarks) == noticed
    assert any("the column age is not used" in r for r in ImageData(frame).remarks)
    assert ImageData(frame, group="none").setup().items.groups is None
    run = fit(str(table), "podnet_n", **{**QUICK, "group": "Patient_ID"}, valid=0.2, test=0.2)
    assert run.status == "done" and run.config["group"] == "Patient_ID"
    run = fit(ImageData((pixels(), np.arange(40) % 2), group=np.arange(40) // 5), "podnet_n", **QUICK)
    assert run.status == "done" and run.config["group"] is None
    assert cli.main(["fit", str(table), "--group", "patient"]) == 2
    assert "unknown column 'patient'. Did you mean 'Patient_ID'" in capsys.readouterr().err
    assert len(set(check(table, group="patient_id").items.groups)) == 8
    assert cli.main(["data", "push", str(table), "--to", "patients", "--group", "patient_id"]) == 0
    assert len(set(load("store:patients").groups)) == 8


def test_an_image_without_a_group_may_be_in_any_split(images, workspace):
    """Half of the images are in four groups, of the others nothing is known."""
    paths = sorted(images.rglob("*.png"))
    labels = [p.parent.name for p in paths]

    def named(nothing) -> list:
        return [f"g{i % 4}" if i % 2 else nothing for i in range(40)]

    def frame(nothing, column: str = "group") -> pd.DataFrame:
        return pd.DataFrame({"path": paths, "label": labels, column: named(nothing)})

    def csv(column: str) -> Path:
        frame(None, column).to_csv(images.parent / f"{column}.csv", index=False)
        return images.parent / f"{column}.csv"

    push(frame(None), "some")
    push(csv("group"), "table")
    numbers = [float(i % 8) if i % 2 else np.nan for i in range(40)]
    items = load(images)
    forms = [  # the source, what to say, whether it is said that some are in no group
        *((frame(nothing), {}, True) for nothing in (None, np.nan, "", "  ", pd.NA)),
        (csv("group"), {}, True),
        (csv("film"), {"group": "film"}, True),
        (frame(None, "old").assign(Patient_ID=[f"{i % 6}" if i % 2 or i < 12 else None for i in range(40)]), {}, True),
        (images, {"group": named(None)}, True),
        (images, {"group": r"(\d[1379])?\.png"}, True),
        ((pixels(), np.arange(40) % 2), {"group": numbers}, True),
        (replace(items, groups=np.array(named(None), object)), {}, False),
        (replace(items, groups=np.array(numbers)), {}, False),
        ("store:some", {}, False),
        ("store:table", {}, False),
    ]
    for source, asked_for, told in forms:
        for seed in range(3):
            data = ImageData(source, valid=0.2, test=0.2, seed=seed, **asked_for).setup()
            groups = [data.items.groups[data.parts[s]] for s in ("train", "valid", "test")]
            held = [set(g) - {""} for g in groups]
            assert all("" in g for g in groups) and sum(map(len, held)) == len(set().union(*held)), (source, groups)
            assert [len(g) for g in groups][1:] == pytest.approx([8, 8], abs=2), (source, groups)
        assert any("images are in no group: each stands for itself" in r for r in data.remarks) == told, data.remarks
    assert load(frame("").assign(group="")).groups is None
    assert load((pixels(), np.arange(40) % 2), group=[None] * 40).groups is None
    given = frame("").assign(group=["g"] + [""] * 39, split=["train"] + ["test", "train", "train"] * 13)
    assert not [f for f in check(given) if "of group" in f.text]


# ---- asking about images


def test_a_net_of_colours_says_when_it_is_asked_about_grey_images(workspace, capsys):
    x = np.stack([pixels(), 255 - pixels(), pixels() // 2], -1)
    y = np.arange(40) % 2
    without = np.repeat(pixels()[..., None], 3, -1)
    every = x, without, np.concatenate([x[:20], without[:20]])
    of_colours, of_grey, of_both = (fit((images, y), "podnet_n", **QUICK) for images in every)
    grey = [pixels()[0], np.repeat(pixels()[:1, None], 3, 1)[0], Image.fromarray(pixels()[0]).convert("RGBA")]
    for image in grey:
        assert "no colour" in of_colours.predict(image).remark and "no colour" in repr(of_colours.predict(image))
        assert all("no colour" not in net.predict(image).remark for net in (of_grey, of_both))
    assert not of_colours.predict(x[0]).remark and not of_colours.predict(Image.fromarray(x[0]).convert("RGBA")).remark
    Image.fromarray(pixels()[0]).save(workspace / "grey.png")
    assert cli.main(["predict", of_colours.id, str(workspace / "grey.png"), "--json"]) == 0
    told = capsys.readouterr()
    assert "1 of 1 image: the image has no colour" in told.err and "no colour" in last_json(told.out)[0]["remark"]


def test_a_run_takes_the_forms_that_it_was_trained_on(workspace):
    x = np.stack([pixels(), 255 - pixels(), pixels() // 2], -1)
    run = fit((x, np.arange(40) % 2), "podnet_n", **QUICK)
    t = torch.from_numpy(x)
    said = [p.probabilities for p in run.predict(x[:4])]
    first = t[:4].permute(0, 3, 1, 2)
    pictures = [Image.fromarray(a) for a in x[:4]]
    for form in (x[:4] / 255, t[:4], first, first / 255, list(x[:4]), list(first / 255), pictures):
        assert [p.probabilities for p in run.predict(form)] == said
        assert not any(p.remark for p in run.predict(form))
    for stack in (x[:3, ..., 0], t[:4, ..., 1]):  # three or four pictures, or one whose channels come first?
        n = len(stack)
        one = run.predict(stack)
        assert f"an array of shape [{n}, 8, 8] was taken for one colour image, its channels first" in one.remark
        assert not run.predict(stack[None])[0].remark
        assert run.predict(stack[None])[0].probabilities == one.probabilities
        assert len(run.predict(stack[..., None])) == n
        assert not any("was taken for" in p.remark for p in run.predict(stack[..., None]))
    for one in (x[0], x[0] / 255, first[0], first[0] / 255, first[0].numpy() / 255, Image.fromarray(x[0])):
        assert run.predict(one).probabilities.keys() == said[0].keys()
        assert all(abs(run.predict(one).probabilities[k] - v) < 1e-4 for k, v in said[0].items())
    with pytest.raises(PodError, match="image values run from -1"):
        run.predict(x[0] / 127.5 - 1)
