"""Decoding once: killed in the middle, by two at once, more than memory holds; and each rank its own share."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import wait_for
from PIL import Image
from test_datacheck import broken, encoded, picture

from lightning_pod.core.cache import decode
from lightning_pod.core.sources import folder
from lightning_pod.train.runs import load_run


def noise(root: Path, n: int, side: int = 64) -> Path:
    """A folder of two classes of n noisy images each, every one with a number in its first pixel."""
    rng = np.random.default_rng(0)
    for i in range(2 * n):
        (root / f"class{i % 2}").mkdir(parents=True, exist_ok=True)
        a = rng.integers(0, 255, (side, side, 3), dtype=np.uint8)
        a[0, 0, 0] = i % 256
        Image.fromarray(a).save(root / f"class{i % 2}" / f"{i:05}.png", compress_level=1)
    return root


def watched(source):
    """Items whose reads are counted."""
    items, reads = folder(source), []
    read = items.files.read
    items.files.read = lambda keys: (reads.extend(keys), read(keys))[1]
    return items, reads


DECODE = """
import sys, time
from lightning_pod.core.cache import decode
from lightning_pod.core.sources import folder
def tell(done, total):
    print(done, total, flush=True)
    if done >= int(sys.argv[2]): time.sleep(600)  # to be killed
items, _ = decode(folder(sys.argv[1]), progress=tell)
print("done", len(items), flush=True)
"""


def decoding(source: Path, until: int = 10**9) -> subprocess.Popen:
    command = [sys.executable, "-c", DECODE, str(source), str(until)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_a_cache_whose_building_is_killed_is_finished_by_the_next_call(workspace, tmp_path):
    source = noise(tmp_path / "images", 1500)
    for at in (1700, 2300):  # twice, at different places
        p = decoding(source, at)
        while int(p.stdout.readline().split()[0]) < at:
            pass
        p.send_signal(signal.SIGKILL)
        p.wait(30)
    items, reads = watched(source)
    done, bad = decode(items)
    assert len(done) == 3000 and bad == [] and 0 < len(reads) < 2700, len(reads)
    for i in (0, 700, 1499, 2999):  # what was copied and what was decoded are both right
        assert np.array_equal(done.pixels[i], np.asarray(Image.open(source / done.keys[i])))
    left = [p.suffix for p in (workspace / ".pod" / "cache").rglob("*") if p.is_file()]
    assert sorted(left) == ["", ".bin", ".json"]  # the lock, one generation
    again, reads = watched(source)
    assert decode(again)[0].digest() == done.digest() and reads == []


def test_two_processes_decode_a_folder_once(workspace, tmp_path):
    source = noise(tmp_path / "images", 1500)
    both = [decoding(source) for _ in range(2)]
    told = [p.communicate(timeout=120)[0].splitlines() for p in both]
    assert [lines[-1] for lines in told] == ["done 3000"] * 2
    waited = [len({line.split()[0] for line in lines[:-1]}) <= 1 for lines in told]  # only ever "0 of 3000"
    assert waited.count(True) >= 1, "both decoded"


def test_a_training_goes_on_without_a_hundred_broken_images_when_told_to(pod, tmp_path):
    source = tmp_path / "pictures"
    for n in range(120):
        path = source / ("cat", "dog")[n % 2] / f"{n:03}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(picture(n), quality=90))
    (source / "cat" / "one-pixel.png").write_bytes(encoded(Image.new("RGB", (1, 1), "red"), "PNG"))
    (source / "dog" / "really-a-png.jpg").write_bytes(encoded(picture(7), "PNG"))
    (source / "dog" / "huge.jpg").write_bytes(encoded(Image.new("RGB", (9000, 6000), "navy")))
    files = broken()
    for name, (data, _) in files.items():
        (source / "cat" / name).write_bytes(data)
    refused = pod("fit", source, "--epochs", "1", code=2).stderr
    assert "100 of 223 images" in refused and "on_bad='skip'" in refused and "Traceback" not in refused
    run = load_run(pod.json("fit", source, "--epochs", "1", "--on_bad", "skip", "--loggers", "none")["id"])
    log = run.log(1 << 20)
    assert [name for name in files if name not in log] == []
    used = json.loads((run.path / "splits.json").read_text())
    assert sum(len(used[s]) for s in ("train", "valid", "test")) == 123 and "huge.jpg" in json.dumps(used)


PEAK = """
import sys, threading, time
import numpy as np, psutil, torch
import pytorch_lightning as pl
from torch import nn
from lightning_pod import ImageData
from lightning_pod.train.fit import quiet

class Module(pl.LightningModule):
    def __init__(self): super().__init__(); self.net = nn.Sequential(nn.AvgPool2d(16), nn.Flatten(), nn.LazyLinear(2))
    def training_step(self, batch, i): return nn.functional.cross_entropy(self.net(batch[0]), batch[1])
    def configure_optimizers(self): return torch.optim.SGD(self.parameters(), lr=.1)

def fit(source, **kw):
    data = ImageData(source, valid=0, test=0, batch_size=32, augment="none", **kw)
    with quiet(): pl.Trainer(max_epochs=2, logger=False, enable_progress_bar=False, enable_checkpointing=False,
                             enable_model_summary=False, accelerator="cpu").fit(Module(), datamodule=data)
    return data

fit(sys.argv[1])
me, over = psutil.Process(), False
base = peak = me.memory_info().rss
def look():
    global peak
    while not over: peak = max(peak, me.memory_info().rss); time.sleep(.002)
watcher = threading.Thread(target=look); watcher.start()
data = fit(sys.argv[2], image_size=256, memory_gb=float(sys.argv[3]))
over = True; watcher.join()
print(type(data.images).__name__, data.items.pixels.nbytes, peak - base)
"""


def test_a_set_three_times_the_budget_is_trained_within_it(workspace, tmp_path):
    noise(tmp_path / "small", 40)
    noise(tmp_path / "large", 1550, side=16)
    command = [sys.executable, "-c", PEAK, str(tmp_path / "small"), str(tmp_path / "large"), "0.2"]
    out = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True).stdout
    kind, size, peak = out.split()[-3:]
    assert kind == "FileImages" and int(size) == 3100 * 256 * 256 * 3
    assert int(peak) < 200e6, f"{int(peak) / 1e6:.0f} MB for {int(size) / 1e6:.0f} MB of images"


RANKS = """
import json, os, sys
import numpy as np, torch
import pytorch_lightning as pl
from lightning_pod import ImageData

class Module(pl.LightningModule):
    def __init__(self): super().__init__(); self.layer = torch.nn.Linear(4, 2); self.seen = {}
    def note(self, what, x): self.seen.setdefault(what, []).extend((x[:, 0, 0, 0] * 255).round().int().tolist())
    def training_step(self, batch, i):
        self.note(f"train {self.current_epoch}", batch[0])
        return torch.nn.functional.cross_entropy(self.layer(batch[0].flatten(1)), batch[1])
    def validation_step(self, batch, i):
        if not self.trainer.sanity_checking: self.note(f"valid {self.current_epoch}", batch[0])
    def configure_optimizers(self): return torch.optim.SGD(self.parameters(), lr=.1)
    def on_fit_end(self): json.dump(self.seen, open(f"{sys.argv[1]}/{self.global_rank}.json", "w"))

images = np.arange(203, dtype=np.uint8)[:, None, None].repeat(2, 1).repeat(2, 2)
data = ImageData((images, np.arange(203) % 2), batch_size=16, test=0, augment="none")
pl.Trainer(devices=2, accelerator="cpu", strategy="ddp", max_epochs=2, logger=False, enable_progress_bar=False,
           enable_checkpointing=False).fit(Module(), datamodule=data)
"""


def test_each_rank_of_data_parallel_training_has_its_own_share(workspace, tmp_path):
    script = tmp_path / "ranks.py"
    script.write_text(RANKS)
    env = {**os.environ, "PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, script, str(tmp_path)], capture_output=True, text=True, timeout=300, env=env)
    assert done.returncode == 0, done.stderr
    seen = [json.loads(wait_for(lambda r=r: (tmp_path / f"{r}.json").exists() and (tmp_path / f"{r}.json").read_text()))
            for r in range(2)]
    for what in ("train 0", "train 1", "valid 0"):
        a, b = (s[what] for s in seen)
        assert not set(a) & set(b) and len(set(a + b)) == len(a + b)
    assert len(seen[0]["train 0"]) == len(seen[1]["train 0"]) == 91  # of 183; equal, so that nobody waits for the other
    assert len(seen[0]["valid 0"] + seen[1]["valid 0"]) == 20
    assert seen[0]["train 0"] != seen[0]["train 1"]


@pytest.mark.parametrize("kind", ["zip", "tar.gz", "labels.csv", "urls.csv"])
def test_a_training_from_an_archive_a_table_and_urls(pod, tmp_path, kind):
    import shutil
    import threading
    from functools import partial
    from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

    source = noise(tmp_path / "images", 30, side=16)
    files = sorted(source.rglob("*.png"))
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(type("Quiet", (SimpleHTTPRequestHandler,), {
        "log_message": lambda self, *a: None}), directory=str(source)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        if kind in ("zip", "tar.gz"):
            made = shutil.make_archive(str(tmp_path / "packed"), "zip" if kind == "zip" else "gztar", source)
        else:
            made = tmp_path / kind
            base = f"http://127.0.0.1:{server.server_port}/" if kind == "urls.csv" else "images/"
            rows = [f"{base}{f.relative_to(source)},{f.parent.name}" for f in files]
            made.write_text("\n".join(["path,label", *rows]) + "\n")
        env = {"POD_CACHE": str(tmp_path / "downloads")}
        os.environ.update(env)
        run = pod.json("fit", made, "--epochs", "1", "--loggers", "none")
    finally:
        os.environ.pop("POD_CACHE", None)
        server.shutdown()
        server.server_close()
    used = json.loads((load_run(run["id"]).path / "splits.json").read_text())
    assert run["status"] == "done" and sum(len(used[s]) for s in ("train", "valid", "test")) == 60


def test_a_rebuilt_archive_is_noticed_though_times_and_sizes_are_the_same(workspace, tmp_path, monkeypatch):
    import tarfile

    monkeypatch.setenv("POD_CACHE", str(tmp_path / "downloads"))

    def packed(value: int) -> Path:
        for kind in ("a", "b"):
            path = tmp_path / "pack" / kind / "1.bmp"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (8, 8), value).save(path)
            os.utime(path, (1, 1))
        with tarfile.open(tmp_path / "set.tar.gz", "w:gz") as tar:
            tar.add(tmp_path / "pack", "set")
        return tmp_path / "set.tar.gz"

    from lightning_pod.core.sources import load

    assert decode(load(packed(10)))[0].pixels.mean() == 10
    assert decode(load(packed(200)))[0].pixels.mean() == 200


def test_a_folder_of_test_images_alone_is_refused_in_a_sentence(pod, tmp_path):
    noise(tmp_path / "set" / "test", 3, side=8)
    p = pod("fit", tmp_path / "set", code=2)
    assert "no images to train on" in p.stderr and "Traceback" not in p.stderr
