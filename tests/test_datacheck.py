"""A check goes on whatever lies in a folder, and a repair makes a version without touching a file."""

import hashlib
import io
import random
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lightning_pod.core.config import PodError
from lightning_pod.core.job import Job
from lightning_pod.core.sources import Items, load
from lightning_pod.store.datacheck import KINDS, Findings, check, check_job, look, near_groups
from lightning_pod.store.datasets import Store, push


def picture(seed: int, side: int = 64) -> Image.Image:
    """Soft blobs, another one for each seed."""
    small = np.random.default_rng(seed).integers(0, 255, (6, 6, 3)).astype(np.uint8)
    return Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str = "JPEG", **kw) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **kw)
    return out.getvalue()


def bomb(side: int = 30_000) -> bytes:
    """A PNG of a hundred bytes that declares a huge image."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(64))) + chunk(b"IEND", b"")


@pytest.fixture
def folder(tmp_path) -> Path:
    """200 good images of two classes."""
    root = tmp_path / "pictures"
    for n in range(200):
        path = root / ("cat", "dog")[n % 2] / f"{n:03}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(picture(n), quality=90))
    return root


def hashes(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
            for p in sorted(folder.rglob("*")) if p.is_file()}


def broken() -> dict[str, tuple[bytes, str]]:
    """A hundred files: name -> (bytes, what the reason must say)."""
    rng, out = random.Random(0), {}
    good = encoded(picture(1000), quality=90)
    png = encoded(picture(1001), "PNG")
    for n in range(25):
        out[f"cut-off-{n:02}.jpg"] = good[: 200 + n * 20], "damaged|not an image"
        out[f"short-{n:02}.png"] = png[: 60 + n * 30], "damaged|not an image"
    for n in range(10):
        out[f"empty-{n}.jpg"] = b"", "0 bytes"
        out[f"text-{n}.jpg"] = f"line {n} of a shopping list".encode(), "text, not an image"
        out[f"noise-{n}.jpg"] = b"\0" + rng.randbytes(500), "not an image"
        out[f"document-{n}.png"] = b"%PDF-1.7\n\xe2\xe3\xcf\xd3" + rng.randbytes(300), "not an image"
        out[f"bomb-{n}.png"] = bomb(30_000 + n), "million pixels"
    assert len(out) == 100
    return out


def test_a_hundred_broken_files_are_named_and_the_check_goes_on(folder):
    files = broken()
    for name, (data, _) in files.items():
        (folder / "cat" / name).write_bytes(data)
    (folder / "dog" / "wrong.jpg").write_bytes(encoded(picture(2000), "PNG"))
    (folder / "dog" / "pixel.png").write_bytes(encoded(Image.new("RGB", (1, 1), "red"), "PNG"))
    (folder / "dog" / "huge.png").write_bytes(encoded(picture(2001).resize((7000, 5000)), "PNG", compress_level=1))
    before, found = hashes(folder), check(folder)
    assert hashes(folder) == before
    reasons = {f.keys[0].removeprefix("cat/"): f.text for f in found["unreadable"]}
    assert reasons.keys() == files.keys()
    for name, (_, words) in files.items():
        assert any(w in reasons[name] for w in words.split("|")), f"{name}: {reasons[name]}"
    assert {f.keys[0] for f in found["odd"]} == {"dog/pixel.png", "dog/huge.png"}
    assert [(f.keys, f.text) for f in found["misnamed"]] == [(["dog/wrong.jpg"], "named .jpg, but it is a PNG")]
    assert "… and 90 more of kind unreadable" in str(found)
    assert len(found._repr_html_()) < 200_000 and len(found.report()) < 1_000_000
    assert str(folder) not in found.report() and str(folder) not in str(found.to_rows())


def test_whatever_a_decoder_raises_is_a_reason(tmp_path):
    rng = random.Random(1)
    kinds = {"JPEG": "jpg", "PNG": "png", "GIF": "gif", "BMP": "bmp", "TIFF": "tif", "WEBP": "webp"}
    for n in range(120):
        kind, ext = list(kinds.items())[n % 6]
        data = bytearray(encoded(picture(n, 24), kind))
        for _ in range(6):
            data[rng.randrange(min(len(data), 200))] = rng.randrange(256)
        path = tmp_path / "fuzz" / ("a", "b")[n % 2] / f"{n}.{ext}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    found = check(tmp_path / "fuzz")
    assert len(found["unreadable"]) > 10 and all(f.text for f in found)


def test_copies_labels_and_splits(tmp_path):
    root = tmp_path / "set"
    for split, count in (("train", 30), ("test", 6)):
        for n in range(count):
            path = root / split / ("cat", "dog")[n % 2] / f"{n}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture(n + 100 * (split == "test")).save(path)
    train = root / "train"
    (train / "cat" / "2 (1).png").write_bytes((train / "cat" / "2.png").read_bytes())
    picture(4).save(train / "cat" / "4.bmp")
    picture(6).save(train / "cat" / "6.jpg", quality=70)
    picture(8).resize((40, 40)).save(train / "dog" / "8 as a dog.png")
    picture(101).save(train / "dog" / "seen.png")
    found = check(root)
    groups = {k: sorted(sorted(f.keys) for f in found[k]) for k in found.kinds()}
    assert groups == {
        "contradictory": [["train/cat/8.png", "train/dog/8 as a dog.png"]],
        "leaks": groups["leaks"],  # some of the training set's copies are in the validation set that is made
        "duplicates": [["test/dog/1.png", "train/dog/seen.png"], ["train/cat/2 (1).png", "train/cat/2.png"],
                       ["train/cat/4.bmp", "train/cat/4.png"]],
        "near": [["train/cat/6.jpg", "train/cat/6.png"]],
    }
    assert ["test/dog/1.png", "train/dog/seen.png"] in groups["leaks"]
    texts = {f.keys[0]: f.text for f in found["duplicates"]}
    assert texts["train/cat/2.png"] == "2 images have the same bytes"
    assert texts["train/cat/4.bmp" if "train/cat/4.bmp" in texts else "train/cat/4.png"].endswith("different files")
    leak = next(f for f in found["leaks"] if "test/dog/1.png" in f.keys)
    assert leak.keys[0] == "test/dog/1.png" and leak.splits == ["test", "train"]


def test_small_drawings_are_not_called_duplicates():
    digits = load("digits")
    assert check("digits").kinds() == {}
    digits.pixels = np.concatenate([digits.pixels, digits.pixels[:1]])
    digits.labels = np.append(digits.labels, (digits.labels[0] + 1) % 10)
    assert [f.keys for f in check(digits)["contradictory"]] == [["000000.png", "001797.png"]]


def test_a_repair_makes_a_version_and_leaves_the_files_alone(folder, database):
    (folder / "cat" / "empty.jpg").write_bytes(b"")
    (folder / "cat" / "copy.jpg").write_bytes((folder / "cat" / "000.jpg").read_bytes())
    (folder / "dog" / "is a cat.jpg").write_bytes((folder / "cat" / "002.jpg").read_bytes())
    before, found = hashes(folder), check(folder)
    v = found.repair("duplicates", who="ann", why="twice")
    assert v.ref == "store:pictures@2" and v.images == 201
    assert hashes(folder) == before
    events = [(e["key"], e["new"], e["who"], e["why"]) for e in v.dataset.history()]
    assert events == [("cat/copy.jpg", None, "ann", "twice")]
    v = found.repair("contradictory", label="cat")
    assert {e.key: e.label for e in v.entries()}["dog/is a cat.jpg"] == "cat"
    v = check(v.ref).repair("duplicates")
    assert v.images == 200 and set(check(v.ref).kinds()) <= {"imbalance"}
    again = check(folder).repair("duplicates")  # another day: corrections stand
    assert again.hash == v.hash
    items = load(v.ref)
    assert len(items) == 200 and len(look(items)[1]) == 0
    assert hashes(folder) == before


def test_all_defaults_at_once_leave_nothing_to_repair(folder, database):
    for n in range(4):
        (folder / "cat" / f"copy{n}.jpg").write_bytes((folder / "cat" / f"00{2 * n}.jpg").read_bytes())
        (folder / "dog" / f"near{n}.png").write_bytes(encoded(picture(2 * n + 1).resize((48, 48)), "PNG"))
        (folder / "dog" / f"wrong{n}.jpg").write_bytes((folder / "cat" / f"01{2 * n}.jpg").read_bytes())
        (folder / "cat" / f"broken{n}.jpg").write_bytes(b"\xff\xd8\xff nothing")
    Image.new("L", (64, 64), 7).save(folder / "cat" / "dark.png")
    picture(9).resize((900, 64)).save(folder / "cat" / "long.png")
    found = check(folder)
    assert found.kinds().keys() >= {"unreadable", "contradictory", "duplicates", "near", "blank", "odd"}
    v = found.repair(*(k for k in found.kinds() if k not in ("imbalance", "misnamed")))
    assert check(v.ref).kinds() == {}
    # one of each group of one label is left, and none of the contradictions
    kept = {e.key for e in v.entries()}
    for f in found:
        if f.kind in ("duplicates", "near"): assert len(kept & set(f.keys)) == 1
        if f.kind == "contradictory": assert not kept & set(f.keys)


def test_findings_of_an_older_version_are_applied_to_the_newest(folder, workspace):
    (folder / "cat" / "copy.jpg").write_bytes((folder / "cat" / "000.jpg").read_bytes())
    v1, _ = push(folder, "set")
    v1.dataset.exclude(["cat/000.jpg"])  # which the repair would have kept
    newest = v1.dataset.freeze()
    found = check("store:set@1")
    with pytest.warns(UserWarning, match="store:set@1 was checked, but store:set@2"):
        v = found.repair("duplicates")
    assert v.hash == newest.hash and "cat/copy.jpg" in {e.key for e in v.entries()}


def test_leaks_keep_what_is_held_out(tmp_path, database):
    root = tmp_path / "set"
    for split in ("train", "valid", "test"):
        for n in range(8):
            path = root / split / ("cat", "dog")[n % 2] / f"{n}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture(n + 100 * len(split)).save(path) if split != "valid" else picture(n + 900).save(path)
    data = (root / "test" / "cat" / "0.png").read_bytes()
    (root / "train" / "cat" / "a.png").write_bytes(data)
    (root / "valid" / "cat" / "b.png").write_bytes(data)
    found = check(root)
    (leak,) = [f for f in found["leaks"]]
    moved = leak.repair(split="train")
    assert {e.key: e.split for e in moved.entries()}["test/cat/0.png"] == "train"
    v = check(root).repair("leaks", name="other")
    assert {"train/cat/a.png", "valid/cat/b.png"}.isdisjoint(e.key for e in v.entries()) and v.images == 24


def test_what_cannot_be_repaired_says_why(folder, workspace):
    for n in range(1, 200, 2):
        if n > 11: (folder / "dog" / f"{n:03}.jpg").unlink()
    found = check(folder)
    assert found["imbalance"][0].text.startswith("cat has 100 images, dog 6")
    for call, words in (
        (lambda: found.repair("imbalance"), "collect more"),
        (lambda: found.repair(), "say what is to be"),
        (lambda: found.repair("odd"), "nothing of kind 'odd'"),
        (lambda: found.repair("leek"), "unknown kind"),
        (lambda: check("store:none"), "unknown stored data set"),
        (lambda: check(folder, valid=2), "valid=2"),
    ):
        with pytest.raises(PodError, match=words):
            call()
    assert not (workspace / ".pod" / "blobs").exists()


def test_a_repair_may_not_leave_one_class(tmp_path, workspace):
    root = tmp_path / "set"
    for n in range(6):
        for kind, image in (("cat", picture(n)), ("blank", Image.new("L", (64, 64), n))):
            (root / kind).mkdir(parents=True, exist_ok=True)
            image.save(root / kind / f"{n}.png")
    with pytest.raises(PodError, match="would leave 6 images of 1 class:"):
        check(root).repair("blank")
    assert len(Store().dataset("set").versions()) == 1


def test_a_check_is_a_job(folder, workspace):
    (folder / "cat" / "empty.jpg").write_bytes(b"")
    job = check_job(str(folder), valid=0.2)
    job.run()
    assert job.status == "done" and job.info["result"]["kinds"]["unreadable"] == 1
    assert job.info["result"]["findings"][0]["keys"] == ["cat/empty.jpg"]
    page = (job.path / "report.html").read_text()
    assert page.startswith("<!doctype html>") and "http" not in page
    push(folder, "stored", on_bad="skip")
    job = check_job("store:stored")
    job.run()
    assert job.status == "done" and "unreadable" not in job.info["result"]["kinds"]
    assert isinstance(job, Job)


def test_a_check_stops_when_asked(folder):
    def stop(done, total):
        if done > 64: raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check(folder, progress=stop)
    seen = []
    check(folder, progress=lambda done, total: seen.append((done, total)))
    assert seen == sorted(seen) and seen[-1][0] == seen[-1][1]


def test_image_data_is_checked_by_its_source(folder):
    class Data:
        source, valid, test, seed, root, download, _classes = folder, 0.3, 0.2, 1, None, True, None

    assert any("valid=0.3, test=0.2, seed=1" in note for note in check(Data()).notes)


def test_thousands_of_copies_are_one_group():
    rng = np.random.default_rng(0)
    pixels = np.stack([np.asarray(picture(5, 32))] * 3000).astype(np.int16)
    pixels = (pixels + rng.integers(-2, 3, pixels.shape)).clip(0, 255).astype(np.uint8)
    found = check(Items("noisy", ["a", "b"], np.arange(3000) % 2, pixels))
    assert [len(f.keys) for f in found["contradictory"]] == [3000]
    assert len(found.report()) < 1_000_000 and isinstance(found, Findings) and set(found.kinds()) <= set(KINDS)


def test_bands_find_what_all_pairs_find(monkeypatch):
    images = [picture(n, 48) for n in range(60)]
    images += [Image.open(io.BytesIO(encoded(p, quality=85))) for p in images[:30]]
    rows = look(Items("x", ["a", "b"], np.arange(90) % 2, np.stack([np.asarray(p) for p in images])))[0]
    plain = near_groups(rows)
    monkeypatch.setattr("lightning_pod.store.datacheck._ALL_PAIRS", 10)
    assert plain == near_groups(rows) == [[n, n + 60] for n in range(30)]


def test_check_and_repair_as_a_command(pod, folder):
    (folder / "cat" / "again.jpg").write_bytes((folder / "cat" / "000.jpg").read_bytes())
    (folder / "dog" / "blank.png").write_bytes(encoded(Image.new("RGB", (64, 64), "white"), "PNG"))
    (folder / "dog" / "empty.jpg").write_bytes(b"")
    before = hashes(folder)
    told = pod.json("data", "check", folder)
    assert told["status"] == "done" and told["kinds"]["duplicates"] == told["kinds"]["unreadable"] == 1
    assert Path(told["report"]).read_text(encoding="utf-8").startswith("<!doctype html>") and "version" not in told
    out = pod("data", "check", folder, "--repair", "all", "--name", "pets").stdout
    version = out.strip().rpartition("repaired: ")[2]
    assert version.startswith("store:pets@") and hashes(folder) == before
    clean = load(version)
    assert len(clean) == 200 and "dog/blank.png" not in clean.keys
    again = pod.json("data", "check", "pets")  # by its name alone
    assert again["source"].startswith("store:pets") and "duplicates" not in again["kinds"]
    assert "Did you mean 'duplicates'" in pod("data", "check", folder, "--repair", "duplicate", code=2).stderr


# ---- copies with other edges


def photograph(seed: int, size: int = 160) -> Image.Image:
    """Something with light and large shapes, as a photograph has: smooth noise of many scales."""
    rng = np.random.default_rng(seed)
    out = np.zeros((size, size, 3))
    for k in (3, 6, 12, 24):
        layer = Image.fromarray(rng.integers(0, 256, (k, k, 3), dtype=np.uint8))
        out += np.asarray(layer.resize((size, size), Image.Resampling.BICUBIC)) / k
    out = 255 * (out - out.min()) / np.ptp(out)
    return Image.fromarray(out.astype(np.uint8))


def cropped(image: Image.Image, share: float, x: float = 0.5, y: float = 0.5) -> Image.Image:
    (w, h), c, d = image.size, x * share, y * share
    return image.crop((round(w * c), round(h * d), round(w * (1 - share + c)), round(h * (1 - share + d))))


def test_copies_with_other_edges_that_leak_into_validation_are_found_and_nothing_else(tmp_path):
    ways = [lambda im: cropped(im, 0.03), lambda im: cropped(im, 0.04, 0.3, 0.8),
            lambda im: cropped(im.rotate(1), 0.03), lambda im: cropped(im, 0.02).point(lambda v: v * 0.8),
            lambda im: cropped(im.resize((90, 100)), 0.03, 0, 0)]
    for n in range(60):
        for split in ("train", "valid", "test"):
            path = tmp_path / "set" / split / ("cat", "dog")[n % 2] / f"{n}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            image = photograph(n + 1000 * ("train", "valid", "test").index(split))
            if split == "valid" and n < 20:
                image = ways[n % len(ways)](photograph(n))
            image.save(path, quality=80)
    found = check(tmp_path / "set")
    leaks = {tuple(sorted(f.keys)) for f in found["leaks"]}
    planted = {tuple(sorted(f"{s}/{('cat', 'dog')[n % 2]}/{n}.jpg" for s in ("train", "valid"))) for n in range(20)}
    assert leaks <= planted, "a pair of different pictures"
    assert len(leaks) >= 19
    assert found.notes == ["2 classes: cat, dog"]


def groups_of(*images: Image.Image) -> list[list[int]]:
    rows, bad = look(load(([np.asarray(im.resize((160, 160))) for im in images], [0, 1])))
    assert not bad
    return near_groups(rows)


def test_what_differs_in_one_place_is_no_copy():
    scratched = []
    for k, height in ((1, 120), (2, 80), (4, 70), (8, 60)):  # of a thumbnail's 32 pixels
        a = np.asarray(photograph(7)).astype(int)
        at = slice(60, 60 + 5 * k)
        a[at, at] += np.where(a[at, at].mean() > 127, -height, height)
        scratched.append(Image.fromarray(a.clip(0, 255).astype(np.uint8)))
    for image in scratched:
        for copy in (photograph(7), cropped(photograph(7), 0.03)):
            assert groups_of(image, copy) == []
    assert groups_of(photograph(7), cropped(photograph(7), 0.03)) == [[0, 1]]


def test_drawings_get_no_such_look_and_it_is_said():
    assert any("copies with other edges were not searched" in n for n in check("digits").notes)
