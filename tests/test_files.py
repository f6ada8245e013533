"""Files that a source holds: what is read, what is left out and told, and under which class names."""

import bz2
import gzip
import lzma
import os
import shutil
import struct
import tarfile
import tracemalloc
import unicodedata
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lightning_pod import ImageData, fit
from lightning_pod.core.cache import decode
from lightning_pod.core.config import PodError
from lightning_pod.core.image import FORMATS, ImageError, formats
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
        assert [r for r in data.remarks if not r.startswith("the test has")] == [], form  # which is small here


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
    arrays = np.zeros((len(pairs), 4, 4), np.uint8), [c for _, c in pairs]
    sources |= {"list": pairs, "table": table, "arrays": arrays}
    for form, source in sources.items():
        items = load(source)
        assert sorted(items.classes) == sorted({want, "birne"}), form
        assert np.bincount(items.labels).tolist() == [8, 10] or np.bincount(items.labels).tolist() == [10, 8], form
        blank = form in ("list", "table", "arrays") and pair[1].strip() == pair[0]  # cells are stripped, as ever
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


# ---- archives and files that lie


def lying_zip(file: Path, method: int = zipfile.ZIP_DEFLATED, says: int = 1000, holds: int = 64 << 20) -> Path:
    """A zip whose member unpacks to more than it says."""
    with zipfile.ZipFile(file, "w", method) as z:
        for name in ("a/1.png", "b/1.png"):
            z.writestr(name, bytes(holds))
    data = file.read_bytes().replace(struct.pack("<I", holds), struct.pack("<I", says))
    file.write_bytes(data)
    return file


def lying_tar(file: Path, kind: bytes, holds: int = 64 << 20) -> Path:
    """A tar whose header of names is as long as a film."""
    header = tarfile.TarInfo("names")
    header.type, header.size = kind, holds
    open_ = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}.get(file.suffix, open)
    with open_(file, "wb") as f:
        f.write(header.tobuf(tarfile.USTAR_FORMAT))
        for _ in range(64):
            f.write(bytes(holds // 64))
    return file


def peak_of(call) -> int:
    """The most bytes that Python held during a call."""
    tracemalloc.start()
    try:
        call()
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return peak


def test_a_zip_that_lies_about_its_sizes_is_read_to_what_it_says_and_refused(tmp_path, workspace):
    items = load(lying_zip(tmp_path / "lies.zip"))
    found = []
    assert peak_of(lambda: found.extend(items.files.read(items.keys))) < 2_000_000
    assert all(isinstance(x, ImageError) and "damaged" in str(x) for x in found)
    with pytest.raises(PodError, match=r"(?s)can't be used.*damaged: Bad CRC-32"):
        decode(items)
    for method in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        with pytest.raises(PodError, match="compressed by what can't be unpacked piece by piece"):
            load(lying_zip(tmp_path / f"{method}.zip", method))


@pytest.mark.parametrize("suffix", ["", ".gz", ".bz2", ".xz"])
def test_a_tar_whose_headers_are_longer_than_names_are_is_refused_before_they_are_read(suffix, tmp_path, workspace):
    for kind in (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME):
        file = lying_tar(tmp_path / f"lies.tar{suffix}", kind)

        def refused(file=file):
            with pytest.raises(PodError, match=r"can't be read as an archive \(a header says that it has 67,1"):
                load(file)

        assert peak_of(refused) < 20_000_000


def test_what_is_no_regular_file_or_too_large_is_named_and_not_read(tmp_path, workspace):
    root = tmp_path / "odd"
    fill(root / "a"), fill(root / "b")
    os.mkfifo(root / "a" / "pipe.png")
    with open(root / "b" / "film.png", "wb") as f:
        f.truncate(300 << 20)
    items, bad = decode(folder(root), on_bad="skip")
    assert len(items) == 8
    assert sorted(b.rpartition("/")[2] for b in bad) == ["film.png' has 300 MB: an image has at most 256 MB",
                                                         "pipe.png' is no regular file"]


def test_a_push_takes_a_class_for_that_of_the_data_set_however_it_is_written(tmp_path, workspace):
    fill(tmp_path / "one" / "cat"), fill(tmp_path / "one" / NFC)
    for seed, c in enumerate(("Cat", NFD, "dog"), 7):
        fill(tmp_path / "two" / c, seed=10 * seed)
    push(tmp_path / "one", "pets")
    version, counts = push(tmp_path / "two", "pets")
    assert sorted(version.classes) == sorted(["cat", NFC, "dog"])
    assert any("the class 'cat' is also written 'Cat'" in r for r in counts["remarks"])
    assert np.bincount(load("store:pets").labels).sum() == len(load("store:pets"))
