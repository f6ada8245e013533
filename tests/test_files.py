"""Files that a source holds: what is read, what is left out and told, and under which class names."""

import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lightning_pod import ImageData, fit
from lightning_pod.core.image import FORMATS, formats
from lightning_pod.core.sources import folder, load
from lightning_pod.store.datacheck import check
from lightning_pod.store.datasets import push

formats()  # Pillow can save HEIC too then
ARCHIVES = ("zip", "tar", "gztar", "bztar", "xztar")


def fill(where: Path, n: int = 4, suffix: str = ".png", kind: str = "PNG", seed: int = 0) -> Path:
    where.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed + len(where.name))
    for i in range(n):
        Image.fromarray(rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(where / f"{i}{suffix}", kind)
    return where


def forms(root: Path, to: Path) -> dict:
    """The same images as a folder, and as an archive of each kind."""
    return {"folder": root, **{k: Path(shutil.make_archive(str(to / root.name), k, root)) for k in ARCHIVES}}


def test_every_suffix_of_a_named_format_is_listed_and_read(tmp_path, workspace):
    root = tmp_path / "all"
    for i, (kind, suffixes) in enumerate(FORMATS.items()):
        for suffix in suffixes:
            fill(root / f"class{i % 2}", 1, suffix if i % 2 else suffix.upper(), kind)
    for form, source in forms(root, tmp_path).items():
        data = ImageData(source).setup()
        assert len(data.items) == sum(map(len, FORMATS.values())), form
        assert data.remarks == [], form


def test_what_is_no_image_is_counted_and_an_empty_class_told_in_every_form_and_verb(tmp_path, workspace, capsys):
    root = tmp_path / "pets"
    fill(root / "cat", 20), fill(root / "dog", 20)
    (root / "wolf").mkdir()
    for i in range(3):
        (root / "cat" / f"{i}.mov").touch()
        (root / "fox").mkdir(exist_ok=True)
        (root / "fox" / f"{i}.cr2").touch()
    for name in ("README.md", "labels.csv", "LICENSE", "cover.psd", ".hidden.xyz", "cat/.DS_Store"):
        (root / name).touch()
    for form, source in forms(root, tmp_path).items():
        for again in range(2):  # what was unpacked is remembered
            remarks = " | ".join(load(source).remarks)
            what = "7 files are left out, which aren't images by their names: 3 .cr2, 3 .mov, 1 .psd"
            assert what in remarks, (form, again)
            assert "no image is in the class folders fox, wolf" in remarks, (form, again)
            assert len(load(source)) == 40
    assert any("3 .mov" in note for note in check(root).notes)
    assert any("fox, wolf" in text for text in push(root, "pets")[1]["remarks"])
    run = fit(str(root), "podnet_n", epochs=1, loggers="none")
    said = capsys.readouterr().err + (run.path / "log.txt").read_text()
    assert "3 .mov" in said
    assert "fox, wolf" in said


def test_an_empty_class_in_one_split_is_told_with_its_split(tmp_path):
    for split in ("train", "test"):
        for c in ("cat", "dog", "fox"):
            fill(tmp_path / "s" / split / c, 0 if (split, c) == ("train", "fox") else 3)
    items = folder(tmp_path / "s")
    assert items.classes == ["cat", "dog", "fox"]
    assert any("no image is in the class folder train/fox" in r for r in items.remarks)


NFC, NFD = (unicodedata.normalize(form, "Äpfel") for form in ("NFC", "NFD"))


PAIRS = [(NFC, NFD), (NFD, NFD), ("Cat", "cat"), ("cat", "cat "), ("ΣΙΓΜΑ", "σιγμα")]


@pytest.mark.parametrize("pair", PAIRS, ids=ascii)
def test_one_class_that_is_written_in_two_ways_is_one_class_in_every_source(pair, tmp_path, workspace):
    want = unicodedata.normalize("NFC", pair[0]).strip()
    root = tmp_path / "split"
    for split, c in zip(("train", "test"), pair, strict=True):
        fill(root / split / c, 6 if split == "train" else 4), fill(root / split / "birne", 4)
    sources = forms(root, tmp_path)
    pairs = [(str(f), f.parent.name) for f in sorted(root.rglob("*.png"))]
    table = tmp_path / "table.csv"
    table.write_text("path,label\n" + "".join(f'{p},"{c}"\n' for p, c in pairs), encoding="utf-8")
    sources |= {"list": pairs, "table": table}
    for form, source in sources.items():
        items = load(source)
        assert sorted(items.classes) == sorted({want, "birne"}), form
        assert np.bincount(items.labels).tolist() == [8, 10] or np.bincount(items.labels).tolist() == [10, 8], form
        blank = form in ("list", "table") and pair[1].strip() == pair[0]  # cells are stripped, as ever
        told = pair[0] != pair[1] and not blank
        assert any("is also written" in r for r in items.remarks) == told, form


def test_letters_are_classes_in_two_cases(tmp_path):
    for c in "AaBb":
        fill(tmp_path / "letters" / c, 2)
    items = folder(tmp_path / "letters")
    assert items.classes == ["A", "B", "a", "b"]
    assert items.remarks == []


def test_class_names_that_are_given_decide_the_spelling(tmp_path):
    files = sorted(fill(tmp_path / "x", 4).glob("*.png"))
    pairs = [(str(f), c) for f, c in zip(files, ("Cat", "cat", "DOG", "dog"), strict=True)]
    items = load(pairs, classes=["dog", "CAT"])
    assert (items.classes, items.labels.tolist()) == (["dog", "CAT"], [1, 1, 0, 0])
    assert len(items.remarks) == 2
