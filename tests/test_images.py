"""Images from strangers: which formats are opened, what one may take, and that training and use see the same pixels."""

import contextlib
import io
import os
import stat
import struct
import sys
import zlib

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image

from lightning_pod.core.cache import decode
from lightning_pod.core.image import FORMATS, ImageError, ImageSpec, formats, formats_in_words, open_image, peek
from lightning_pod.core.sources import folder
from lightning_pod.store.datacheck import check
from lightning_pod.store.datasets import push

PROGRAM = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n{} loop\n%%EOF\n"
OTHERS = dict.fromkeys(("DDS", "EPS", "ICNS", "ICO", "IM", "JPEG2000", "PCX", "PDF", "PPM", "QOI", "SGI", "TGA"), "RGB")
OTHERS |= {"BLP": "P", "MSP": "1", "XBM": "1", "SPIDER": "F"}  # format that Pillow writes: a mode in which it does
MAGIC = {
    "FITS": b"SIMPLE  =                    T" + bytes(2850),
    "FLI": b"\0\0\0\0\x11\xaf\x01\0" + bytes(120),
    "GRIB": b"GRIB\0\0\0\1" + bytes(60),
    "HDF5": b"\x89HDF\r\n\x1a\n" + bytes(60),
    "MPEG": b"\0\0\1\xb3" + bytes(60),
    "PS": PROGRAM,
    "PSD": b"8BPS\0\1" + bytes(60),
    "SVG": b'<svg xmlns="http://www.w3.org/2000/svg"/>',
    "WMF": b"\xd7\xcd\xc6\x9a\0\0" + bytes(80),
}


def saved(kind: str, image: Image.Image | None = None, **kw) -> bytes:
    out = io.BytesIO()
    formats()  # from then on Pillow writes HEIC
    image = image or Image.new("RGB", (48, 48), "teal").convert(OTHERS.get(kind, "RGB"))
    image.save(out, kind, **kw)
    return out.getvalue()


@pytest.fixture
def ghost(tmp_path, monkeypatch):
    """A file that is written when Ghostscript is started."""
    told, gs = tmp_path / "started", tmp_path / "bin" / "gs"
    gs.parent.mkdir()
    gs.write_text(f'#!/bin/sh\n[ "$1" = --version ] || touch {told}\n')
    gs.chmod(gs.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{gs.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
    return told


def test_pillow_by_itself_would_start_ghostscript(ghost):
    with pytest.raises(Exception):  # noqa: B017, PT011  what it raises is Pillow's matter
        Image.open(io.BytesIO(PROGRAM)).load()
    assert ghost.exists()


def test_what_is_no_named_format_is_refused_under_any_name_wherever_images_are_opened(ghost, tmp_path, workspace):
    others = {**{kind: saved(kind) for kind in OTHERS}, **MAGIC}
    root = tmp_path / "images"
    for kind, data in others.items():
        for suffix in (".png", ".jpg", ".tif", f".{kind.lower()}"):
            file = root / "strange" / f"{kind}{suffix}"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
            for source in (file, str(file), data, bytearray(data), io.BytesIO(data)):
                for see in (open_image, peek, ImageSpec(8, 8)):
                    with pytest.raises(ImageError, match=r"not an image that can be read \(JPEG, PNG|is damaged"):
                        see(source)
    good = root / "good" / "a.png"
    good.parent.mkdir()
    Image.new("RGB", (48, 48), "red").save(good)
    items = folder(root)
    assert len(items) == 3 * len(others) + 1
    decoded, bad = decode(items, on_bad="skip")
    assert (len(decoded), len(bad)) == (1, 3 * len(others))
    assert sum(f.kind == "unreadable" for f in check(root)) == 3 * len(others)
    _, counts = push(root, "strange", on_bad="skip")
    assert (counts["images"], counts["damaged"]) == (1, 3 * len(others))
    assert not ghost.exists()


def test_each_named_format_is_read_by_its_contents_whatever_its_name(tmp_path):
    assert set(formats()) == set(FORMATS)  # for development all of them are there
    a = np.tile(np.linspace(0, 255, 48).astype(np.uint8), (48, 1))
    for kind, suffixes in FORMATS.items():
        data = saved(kind, Image.fromarray(a).convert("RGB"))
        for suffix in (*suffixes, ".upload", ""):
            file = tmp_path / f"{kind}{suffix}"
            file.write_bytes(data)
            for source in (file, data):
                assert peek(source)[:3] == (48, 48, "P" if kind == "GIF" else "RGB")
                assert np.abs(ImageSpec(48, 48, 1)(source)[..., 0].astype(int) - a).mean() < 3, kind


def test_a_heic_that_this_machine_can_t_read_is_told_with_the_command_that_helps(monkeypatch):
    data, avif = saved("HEIF"), saved("AVIF")
    formats.cache_clear()
    monkeypatch.setitem(sys.modules, "pillow_heif", None)  # as where it isn't installed
    monkeypatch.delitem(Image.OPEN, "HEIF")
    monkeypatch.delitem(Image.OPEN, "AVIF")
    try:
        assert not {"HEIF", "AVIF"} & set(formats())
        for what, remedy in ((data, r"HEIC.*pip install 'lightning_pod\[heic\]'"), (avif, "AVIF.*install -U pillow")):
            for see in (open_image, peek):
                with pytest.raises(ImageError, match=remedy):
                    see(what)
    finally:
        formats.cache_clear()


@contextlib.contextmanager
def unreadable(*kinds: str):
    """A machine that doesn't read these formats; afterwards a package for them has been installed."""
    kept = {k: Image.OPEN.pop(k) for k in kinds}
    module, sys.modules["pillow_heif"] = sys.modules.get("pillow_heif"), None  # as where it isn't installed
    formats.cache_clear()
    try:
        yield
    finally:
        sys.modules.pop("pillow_heif") if module is None else sys.modules.update(pillow_heif=module)
        Image.OPEN.update(kept)


@pytest.mark.parametrize("kind", ["HEIF", "AVIF"])
def test_images_of_a_format_that_comes_to_be_read_are_looked_at_again_by_who_remembers_them(kind, tmp_path, workspace):
    root, noise = tmp_path / "photos", np.random.default_rng(0)
    for name in ("cat/0.png", "cat/1.png", "dog/0.png", "dog/1.png", "cat/new.heic", "dog/new.heic"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(noise.integers(0, 255, (64, 64, 3), np.uint8))
        (root / name).write_bytes(saved(kind if "new" in name else "PNG", image))
    (root / "cat" / "torn.heic").write_bytes(saved(kind)[:60])

    def seen() -> dict[str, int]:
        decoded, bad = decode(folder(root), on_bad="skip")
        again = decode(folder(root), on_bad="skip")[0]
        assert again.digest() == decoded.digest()
        _, counts = push(root, "photos", on_bad="skip")
        found = sum(f.kind == "unreadable" for f in check(root))
        return {"decoded": len(decoded), "bad": len(bad), "in store": counts["images"], "damaged": counts["damaged"],
                "found": found}

    with unreadable(kind):
        assert kind not in formats()
        assert formats_in_words() == formats_in_words().replace("HEIC" if kind == "HEIF" else kind, "")
        assert seen() == {"decoded": 4, "bad": 3, "in store": 4, "damaged": 3, "found": 3}
    # in the same process: nobody has asked for the formats anew
    assert seen() == {"decoded": 6, "bad": 1, "in store": 6, "damaged": 1, "found": 1}
    assert kind in formats()


def test_more_pixels_than_pillow_opens_are_told_with_their_number_and_a_remedy_everywhere(tmp_path, workspace):
    root = tmp_path / "scans"
    for c in "ab":
        (root / c).mkdir(parents=True)
        for i in range(6):
            Image.new("L", (8, 8), 20 * i + ord(c)).save(root / c / f"{i}.png")
    wall = root / "a" / "wall.png"
    wall.write_bytes(bare_png(20_000, 20_000))
    words = "400 million pixels, and images of more than 179 million aren't opened: make it smaller first"
    for source in (wall, str(wall), wall.read_bytes(), io.BytesIO(wall.read_bytes())):
        for see in (open_image, peek, ImageSpec(8, 8)):
            with pytest.raises(ImageError, match=words):
                see(source)
    for texts in (decode(folder(root), on_bad="skip")[1], push(root, "scans", on_bad="skip")[1]["bad"]):
        assert len(texts) == 1 and words in str(texts[0]) and str(wall) in str(texts[0])
    assert [words in f.text for f in check(root) if f.kind == "unreadable"] == [True]


# ---- what one image may take


def bare_png(width: int, height: int, colour: int = 2, frames: int = 1) -> bytes:
    """A small file that says it is large."""
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0))
    play = chunk(b"acTL", struct.pack(">II", frames, 0)) if frames > 1 else b""
    return b"\x89PNG\r\n\x1a\n" + head + play + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b"")


def bare_gif(width: int, height: int, frames: int = 1) -> bytes:
    frame = b",\0\0\0\0\1\0\1\0\0\2\2D\1\0"
    return b"GIF89a" + struct.pack("<HH", width, height) + b"\x80\0\0\0\0\0\xff\xff\xff" + frame * frames + b";"


def bare_tiff(width: int, height: int) -> bytes:
    tags = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 8),
            (277, 3, 1, 1), (278, 4, 1, height), (279, 4, 1, 100)]
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + b"".join(struct.pack("<HHII", *t) for t in tags) + bytes(200)


def bare_bmp(width: int, height: int) -> bytes:
    return b"BM" + struct.pack("<IHHIIiiHHI20x", 154, 0, 0, 54, 40, width, height, 1, 24, 0) + bytes(100)


@pytest.mark.parametrize("side", [8200, 13_000, 40_000])
def test_more_pixels_than_are_decoded_are_refused_before_memory_is_taken_for_them(side):
    refusal = "million are decoded: make it smaller first|million aren.t opened: make it smaller first"
    for data in (bare_png(side, side), bare_gif(side, side), bare_tiff(side, side), bare_bmp(side, side)):
        for see in (open_image, ImageSpec(64, 64)):
            made = Image.core.get_stats()["new_count"]  # pictures that Pillow took memory for
            with pytest.raises(ImageError, match=refusal):
                see(data)
            assert Image.core.get_stats()["new_count"] == made
    assert ImageSpec(8, 8)(saved("PNG")).shape == (8, 8, 3)
    assert Image.core.get_stats()["new_count"] > made  # it counts at all


def test_a_large_jpeg_is_reduced_while_it_is_read_and_a_progressive_one_refused():
    grey = Image.linear_gradient("L").resize((9000, 8000))
    plain = saved("JPEG", grey)
    assert peek(plain)[:2] == (9000, 8000)
    assert open_image(plain).size == (4500, 4000)
    assert open_image(plain, (64, 64)).size == (1125, 1000)
    want = np.asarray(Image.linear_gradient("L").resize((64, 64), Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(ImageSpec(64, 64, 1, fit="stretch")(plain)[..., 0] - want).mean() < 2
    with pytest.raises(ImageError, match="9,000 × 8,000 pixels, 72 million.*isn't progressive"):
        open_image(saved("JPEG", grey, progressive=True))


def test_conversions_of_a_large_image_take_a_strip_at_a_time(monkeypatch):
    """In each mode a file can have; the largest piece that is converted is told by Pillow itself."""
    side, pieces, convert = 3000, [], Image.Image.convert

    def counted(self, *args, **kw):
        pieces.append(self.width * self.height)
        return convert(self, *args, **kw)

    monkeypatch.setattr(Image.Image, "convert", counted)
    ramp = Image.linear_gradient("L").resize((side, side))
    deep = Image.fromarray(np.asarray(ramp).astype(np.uint16) * 16)
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"):
        data = saved("PNG", deep if mode == "I;16" else convert(ramp, mode))
        pieces.clear()
        a = ImageSpec(32, 32, 1, depth=(0, 4080))(data)[..., 0].astype(int)
        assert pieces and max(pieces) <= 2 << 20, mode
        assert np.abs(a - np.asarray(ramp.resize((32, 32), Image.Resampling.BILINEAR))).mean() < 2, mode


def test_of_many_frames_only_the_first_is_decoded():
    more = {"save_all": True, "append_images": [Image.new("RGB", (48, 48), c) for c in ("red", "blue")] * 20}
    lots = {kind: saved(kind, **more) for kind in ("GIF", "WEBP", "PNG", "TIFF", "AVIF")}
    lots["GIF of many"] = bare_gif(8, 8, 100_000)
    for kind, data in lots.items():
        assert peek(data).several, kind
        image = open_image(data)
        assert image.tell() == 0
        assert np.abs(ImageSpec(1, 1)(data).astype(int) - ImageSpec(1, 1)(image)).max() <= 1
        assert kind == "GIF of many" or not peek(saved(kind)).several, kind


def test_every_orientation_of_every_format_that_has_one_stands_upright():
    a = np.zeros((16, 24, 3), np.uint8)
    a[:8, :12], a[:8, 12:], a[8:, :12] = 255, 128, 64  # each corner another grey
    for kind, kw in (("JPEG", {"quality": 100}), ("PNG", {}), ("TIFF", {}), ("WEBP", {"lossless": True})):
        for turn, back in ((1, None), (2, 0), (3, 3), (4, 1), (5, 5), (6, 2), (7, 6), (8, 4)):
            stored = Image.fromarray(a) if back is None else Image.fromarray(a).transpose(Image.Transpose(back))
            exif = Image.Exif()
            exif[0x0112] = turn
            data = saved(kind, stored, exif=exif, **kw)
            assert peek(data)[:2] == (24, 16), (kind, turn)
            assert np.abs(ImageSpec(16, 24)(data).astype(int) - a).mean() < 3, (kind, turn)
            large = stored.resize((stored.width * 32, stored.height * 32), 0)
            small = ImageSpec(4, 6)(saved(kind, large, exif=exif, **kw))[::3, ::5, 0].astype(int)  # its corners
            assert np.abs(small - a[::15, ::23, 0]).max() < 3, (kind, turn)
