"""Deep grey: which values are black and white is chosen for a data set, told, and the same in training and use."""

import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lightning_pod import ImageData, fit
from lightning_pod.cli import main
from lightning_pod.core.cache import decode
from lightning_pod.core.config import PodError, read_json
from lightning_pod.core.image import ImageSpec
from lightning_pod.core.sources import folder
from lightning_pod.store.datacheck import check
from lightning_pod.store.datasets import push
from lightning_pod.train.runs import list_runs


def deep_set(root: Path, make, high: float, low: float = 0, suffix: str = ".png", n: int = 12) -> Path:
    """Two classes, one bright on the left and one on the right, with values from `low` to `high`."""
    for c in "lr":
        (root / c).mkdir(parents=True, exist_ok=True)
        for i in range(n):
            a = np.tile(np.linspace(low, high, 16), (16, 1))
            make(a if c == "r" else a[:, ::-1]).save(root / c / f"{c}{i}{suffix}")
    return root


def u16(a): return Image.fromarray(a.round().astype(np.uint16))
def big_endian(a): return Image.frombuffer("I;16B", (16, 16), a.round().astype(">u2").tobytes(), "raw", "I;16B", 0, 1)
def i32(a): return Image.fromarray(a.round().astype(np.int32))
def f32(a): return Image.fromarray(a.astype(np.float32))
def u8(a): return Image.fromarray(a.round().astype(np.uint8))


FORMS = {
    "8 bits in a 16-bit PNG": (u16, 255, 0, ".png", (0, 255)),
    "10 bits": (u16, 1023, 0, ".png", (0, 1023)),
    "12 bits": (u16, 4095, 0, ".png", (0, 4095)),
    "12 bits in a TIFF": (u16, 4095, 0, ".tif", (0, 4095)),
    "12 bits, big-endian": (big_endian, 4095, 0, ".tif", (0, 4095)),
    "14 bits": (u16, 16_383, 0, ".png", (0, 16_383)),
    "16 bits": (u16, 65_535, 0, ".png", (0, 65_535)),
    "8 bits in a 32-bit TIFF": (i32, 255, 0, ".tif", (0, 255)),
    "20 bits in a 32-bit TIFF": (i32, 1_048_575, 0, ".tif", (0, 1_048_575)),
    "signed": (i32, 3071, -1024, ".tif", (-1024, 3071)),
    "floats from 0 to 1": (f32, 1, 0, ".tif", (0, 1)),
    "floats of 8 bits": (f32, 255, 0, ".tif", (0, 255)),
    "floats on both sides of 0": (f32, 1, -1, ".tif", (-1, 1)),
}


@pytest.mark.parametrize("form", FORMS)
def test_each_kind_of_deep_grey_fills_the_range_and_is_told(form, tmp_path, workspace):
    make, high, low, suffix, want = FORMS[form]
    root = deep_set(tmp_path / "scans", make, high, low, suffix)
    for _ in range(2):  # the second comes from the cache
        data = ImageData(root).setup()
        assert data.spec.depth == want
        assert (int(data.items.pixels.min()), int(data.items.pixels.max())) == (0, 255)
        assert any(f"is taken as black and {want[1]:g} as white" in r for r in data.remarks)
    spec = ImageSpec(**data.splits()["spec"])
    assert np.array_equal(spec(root / data.items.keys[0]), data.items.pixels[0])
    assert any("more than 8 bits of grey" in note for note in check(root).notes)


def test_a_given_depth_decides_and_is_cached_apart(tmp_path, workspace):
    root = deep_set(tmp_path / "scans", u16, 4095)
    tops = {d: int(decode(folder(root), depth=d)[0].pixels.max()) for d in ("auto", 12, 16, (0, 2047), "auto")}
    assert tops == {"auto": 255, 12: 255, 16: 16, (0, 2047): 255}
    assert sorted(set(decode(folder(root), depth=(2000, 2001))[0].pixels.ravel().tolist())) == [0, 255]
    for wrong in (0, 99, "twelve", (3, 3)):
        with pytest.raises(PodError, match="expected 'auto', a number of bits from 1 to 32"):
            ImageData(root, depth=wrong)


def test_files_that_have_no_range_in_common_are_refused_and_doubts_told(tmp_path, workspace):
    root = deep_set(tmp_path / "both", u16, 4095)
    deep_set(root, f32, 1, suffix=".tif")
    with pytest.raises(PodError, match="whole numbers from 0 to 4095 and floats from 0 to 1, which can't be"):
        ImageData(root).setup()
    assert any("can't be black and white alike" in note for note in check(root).notes)
    mixed = deep_set(tmp_path / "mixed", u8, 255)
    deep_set(mixed, u16, 4095, suffix=".x.png", n=3)
    said = ImageData(mixed).setup().remarks
    assert any("6 of 30 images have more than 8 bits of grey" in r for r in said)
    deep_set(mixed, u16, 200, suffix=".y.png", n=1)
    assert any("and 2 of them stay below 256" in r for r in ImageData(mixed).setup().remarks)
    hole = deep_set(tmp_path / "hole", f32, 1, suffix=".tif")
    f32(np.full((16, 16), np.nan)).save(hole / "l" / "nan.tif")
    with pytest.raises(PodError, match=r"nan.tif.*NaN"):
        ImageData(hole).setup()


def test_dark_colour_of_16_bits_and_stacks_of_pages_are_told(tmp_path, workspace):
    root = tmp_path / "colour"
    for c in "ab":
        (root / c).mkdir(parents=True)
        pages = [u16(np.full((16, 16), 900.0 * k)) for k in (4, 1)]
        pages[0].save(root / c / "stack.tif", save_all=True, append_images=pages[1:])
        for i in range(4):
            (root / c / f"{i}.tif").write_bytes(colour_tiff(4095))
    for said in (ImageData(root).setup().remarks, check(root).notes):
        assert any("16 bits a channel in colour" in r and "none is brighter than 15 of 255" in r for r in said)
        assert any("2 images hold several frames or pages" in r for r in said)


def colour_tiff(value: int, side: int = 8) -> bytes:
    """16 bits a channel, in colour."""
    tags = [(256, 4, 1, side), (257, 4, 1, side), (258, 3, 3, 200), (259, 3, 1, 1), (262, 3, 1, 2), (273, 4, 1, 206),
            (277, 3, 1, 3), (278, 4, 1, side), (279, 4, 1, side * side * 6)]
    head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + b"".join(struct.pack("<HHII", *t) for t in tags)
    return head.ljust(200, b"\0") + struct.pack("<HHH", 16, 16, 16) + struct.pack("<H", value) * (side * side * 3)


def test_a_run_of_12_bits_sees_in_use_what_it_saw_in_training(tmp_path, workspace, capsys):
    root = deep_set(tmp_path / "scans", u16, 4095, n=40)
    run = fit(str(root), "podnet_n", epochs=1, loggers="none", augment="none")
    assert read_json(run.path / "splits.json")["spec"]["depth"] == [0, 4095]
    assert "0 is taken as black and 4095 as white" in capsys.readouterr().err + (run.path / "log.txt").read_text()
    stored, _ = push(root, "scans")
    assert ImageData(stored.ref).setup().spec == ImageData(root).setup().spec
    data = ImageData(root).setup()
    files = run.predict([str(root / k) for k in data.items.keys[:2]])
    assert [p.probabilities for p in files] == [p.probabilities for p in run.predict(list(data.items.pixels[:2]))]
    opened = [Image.open(root / k) for k in data.items.keys[:3]]
    held = [np.asarray(image) for image in opened]
    stack = np.stack(held)
    for given in (opened, held, stack, stack[..., None], torch.from_numpy(stack.astype(int))):
        assert [p.probabilities for p in run.predict(given)[:2]] == [p.probabilities for p in files]
    assert run.predict(stack)[0].remark.startswith("an array of shape [3, 16, 16] was taken for 3 grey images")
    asked = ["--model", "podnet_n", "--epochs", "1", "--loggers", "none", "--depth", "[0, 8190]"]
    assert main(["fit", str(root), *asked]) == 0
    assert read_json(list_runs()[0].path / "splits.json")["spec"]["depth"] == [0, 8190]
