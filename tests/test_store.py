"""The store, on SQLite and on a real PostgreSQL, by the same tests."""

import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa
from conftest import event, wait_for
from PIL import Image
from postgres import free_port

from lightning_pod.cli import one_line
from lightning_pod.core.config import PodError
from lightning_pod.core.job import find_job, jobs
from lightning_pod.core.sources import load
from lightning_pod.store.database import VERSION_TABLE, Base, Database, heads, shown
from lightning_pod.store.datasets import Store, data_job, pull, push


@pytest.fixture
def store(database):
    s = Store()
    yield s
    s.close()


def photos(folder: Path, n: int = 12, side: int = 16, seed: int = 0) -> Path:
    """A folder of two classes with n images each, every one different."""
    rng = np.random.default_rng(seed)
    for kind in ("cat", "dog"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        for i in range(n):
            Image.fromarray(rng.integers(0, 255, (side, side, 3), dtype=np.uint8)).save(folder / kind / f"{i:05}.png")
    return folder


def counts(store: Store) -> dict[str, int]:
    with store.db.read() as c:
        how_many = {t.name: sa.select(sa.func.count()).select_from(t) for t in Base.metadata.sorted_tables}
        return {name.removeprefix("pod_"): c.scalar(n) for name, n in how_many.items()}


# ---- tables


def test_there_is_one_newest_migration():
    assert len(heads()) == 1


def test_migrations_go_up_and_down_and_make_the_tables_of_the_code(store):
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    def differences():
        with store.db.read() as c:
            return compare_metadata(MigrationContext.configure(c, opts={"version_table": VERSION_TABLE}), Base.metadata)

    assert store.db.revision == heads()[0] and differences() == []
    push("digits", "digits", store=store)
    store.db.migrate("base")
    with store.db.read() as c:
        assert set(sa.inspect(c).get_table_names()) <= {VERSION_TABLE}
    assert store.db.revision is None
    store.db.migrate()
    assert differences() == [] and counts(store)["sample"] == 0
    again, _ = push("digits", "digits", store=store)
    assert again.images == 1797


def test_a_database_of_a_newer_package_is_refused(store, database):
    with store.db.write() as c:
        c.execute(sa.text(f"UPDATE {VERSION_TABLE} SET version_num = '9999'"))
    with pytest.raises(PodError, match="newer version of lightning_pod"):
        Store()


def test_many_processes_may_open_a_new_database_at_once(database):
    code = "from lightning_pod.store.database import Database; print(Database().revision)"
    started = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
               for _ in range(4)]
    told = [p.communicate(timeout=120) for p in started]
    assert [out.strip() for out, _ in told] == heads() * 4, told


# ---- what can be wrong with the way there


def test_a_database_that_can_t_be_reached_is_explained_without_its_password(postgres_url, tmp_path, monkeypatch):
    for url, words in {
        postgres_url.replace("cret", "creep") + "postgres": "the user or the password is wrong",
        postgres_url + "nowhere": "create it first",
        f"postgresql://pod:se%3Acret%401@127.0.0.1:{free_port()}/x": "is the server running",
        "mysql://me:se%3Acret%401@h/x": "'mysql'",
        "postgresql://me:se:cret@1@h:p/x": "can't be read",
    }.items():
        with pytest.raises(PodError, match=words) as told:
            Database(url)
        assert "se:c" not in str(told.value) and "se%3A" not in str(told.value)
    (tmp_path / "letter.db").write_text("Dear database, " * 100)
    with pytest.raises(PodError, match="the file is something else"):
        Database(str(tmp_path / "letter.db"))


def test_the_command_says_it_too_and_keeps_the_password_to_itself(pod, postgres_url, workspace):
    wrong = postgres_url.replace("cret", "creep") + "postgres"
    p = pod("data", "ls", "--database", wrong, code=2)
    assert "the user or the password is wrong" in p.stderr and "Traceback" not in p.stderr and "creep" not in p.stderr


def test_a_job_s_folder_never_holds_the_password(pod, database, workspace):
    pod("data", "push", "digits", "--to", "digits")
    held = b"".join(p.read_bytes() for p in (workspace / ".pod" / "jobs").rglob("*") if p.is_file())
    assert b"se:cret" not in held and b"se%3Acret" not in held
    assert shown(Database().url).encode() in held


# ---- push, versions, labels


def test_a_slip_of_the_finger_makes_no_class(store, pod, tmp_path):
    d = push(photos(tmp_path / "pets"), "pets", store=store)[0].dataset
    (tmp_path / "labels.csv").write_text("key,label\ncat/00001.png,dog\ncat/00002.png,dgo\n")
    calls = [["cat/00001.png=dgo"], ["cat/00001.png=Dog"], ["cat/00001.png=dog", "cat/00002.png=dogs"],
             ["--file", str(tmp_path / "labels.csv")]]
    for call in calls:
        said = pod("data", "label", "pets", *call, code=2).stderr
        assert "Did you mean 'dog'? There are: cat, dog." in said and "--new-class" in said, said
    for wrong in ("dgo", "cat ", 7):
        with pytest.raises(PodError, match=r"cat/00001.png: unknown class of data set 'pets' .*new_class=True"):
            d.relabel({"cat/00001.png": wrong})
    assert d.pending() == 0  # nothing of any of them was kept
    pod("data", "label", "pets", "cat/00001.png=fox", "--new-class")
    assert d.version().classes == ["cat", "dog", "fox"]
    d.relabel({"cat/00002.png": "fox"})  # which it is by now
    d.relabel({"cat/00003.png": "owl"}, new_class=True)
    d.relabel({"cat/00004.png": "owl"})  # before there is a version that has it


def test_what_is_pushed_twice_is_stored_once(store, tmp_path):
    folder = photos(tmp_path / "pets")
    v1, told = push(folder, "pets", store=store)
    assert (told["added"], v1.images, v1.classes) == (24, 24, ["cat", "dog"])
    before = counts(store)
    again, told = push(folder, "pets", store=store)
    assert again.hash == v1.hash and told["added"] == told["changed"] == 0 and counts(store) == before
    push(folder, "other-pets", store=store)  # other samples, the same blobs
    assert counts(store)["blob"] == before["blob"] and counts(store)["sample"] == 2 * before["sample"]


def test_an_old_version_is_rebuilt_exactly(store, tmp_path):
    folder = photos(tmp_path / "pets")
    v1, _ = push(folder, "pets", store=store)
    was = v1.items()
    bytes_were = was.files.read(was.keys)
    d = v1.dataset
    d.relabel({"cat/00001.png": "dog"}, who="ann", why="it barks")
    d.exclude(["dog/00003.png"])
    Image.new("RGB", (9, 9), "red").save(folder / "cat" / "00000.png")
    (folder / "dog" / "00005.png").unlink()
    v2, told = push(folder, "pets", store=store, prune=True)
    assert (told["changed"], told["removed"], told["excluded"], v2.images) == (1, 2, 1, 22)
    assert v2.parent_id == v1.id
    now = load(f"store:pets@{v1.number}")
    assert now.keys == was.keys and np.array_equal(now.labels, was.labels) and now.files.read(now.keys) == bytes_were
    assert load(f"store:pets@{v1.hash[:8]}").keys == was.keys
    labels = {e.key: e.label for e in v2.entries()}
    assert labels["cat/00001.png"] == "dog" and "dog/00003.png" not in labels and "dog/00005.png" not in labels


def test_a_correction_stands_until_the_source_itself_says_otherwise(store, tmp_path):
    rows = [(str(p), p.parent.name) for p in sorted(photos(tmp_path / "pets").rglob("*.png"))]
    v1, _ = push(rows, "pets", store=store)
    key = v1.entries()[0].key
    v1.dataset.relabel({key: "dog"})
    v2, told = push(rows, "pets", store=store)
    assert {e.key: e.label for e in v2.entries()}[key] == "dog" and told["relabelled"] == 0
    v3, told = push([(rows[0][0], "fox"), *rows[1:]], "pets", store=store)
    assert {e.key: e.label for e in v3.entries()}[key] == "fox" and told["relabelled"] == 1
    assert v3.classes == ["cat", "dog", "fox"]


def test_undo_is_an_event_and_brings_the_old_version_back(store, tmp_path):
    v1, _ = push(photos(tmp_path / "pets"), "pets", store=store)
    d = v1.dataset
    first, second = d.relabel({"cat/00001.png": "dog", "cat/00002.png": "dog"}, who="ann")
    v2 = d.freeze()
    assert v2.hash != v1.hash and d.pending() == 0
    d.undo(first, who="bob", why="it purrs")
    d.undo(second, who="bob")
    assert d.freeze().hash == v1.hash
    assert [e["origin"] for e in d.history()] == ["correction", "correction", "undo", "undo"]
    assert [e["undoes"] for e in d.history()] == [None, None, first, second]
    with pytest.raises(PodError, match="no correction to be undone"):
        d.undo()
    assert len(d.history("cat/00001.png", given=True)) == 3


def test_an_event_that_another_one_builds_on_is_not_undone(store, tmp_path):
    v1, _ = push(photos(tmp_path / "pets"), "pets", store=store)
    first = v1.dataset.relabel({"cat/00001.png": "dog"})[0]
    later = v1.dataset.relabel({"cat/00001.png": "fox"}, new_class=True)[0]
    with pytest.raises(PodError, match=f"before event {later}"):
        v1.dataset.undo(first)


def test_corrections_from_many_hands_at_once_are_all_kept(store, tmp_path):
    v1, _ = push(photos(tmp_path / "pets", n=40), "pets", store=store)
    keys = [e.key for e in v1.entries()]
    failed = []

    def correct(mine):
        try:
            for k in mine:
                Store().dataset("pets").relabel({k: "fox"}, who=k, new_class=True)
        except Exception as e:
            failed.append(e)

    hands = [threading.Thread(target=correct, args=(keys[i::4],)) for i in range(4)]
    [h.start() for h in hands]
    [h.join() for h in hands]
    assert failed == []
    d = v1.dataset
    assert len(d.history()) == len(keys) and set(d.labels().values()) == {"fox"}
    with pytest.raises(PodError, match="at least 2"):
        load("store:pets")  # one class is left


def test_groups_and_splits_survive_the_store(store, tmp_path):
    import pandas as pd

    files = sorted(photos(tmp_path / "pets").rglob("*.png"))
    frame = pd.DataFrame({"path": files, "label": [f.parent.name for f in files],
                          "group": [f"patient {i % 4}" for i in range(len(files))],
                          "split": ["test" if i % 4 == 0 else "train" for i in range(len(files))]})
    v, _ = push(frame, "pets", store=store)
    items = v.items()
    assert set(items.groups) == {f"patient {i}" for i in range(4)} and (items.split == "test").sum() == 6
    told = pull("pets", tmp_path / "back", store=store)
    back = load(tmp_path / "back" / "labels.csv")
    assert told["images"] == 24
    assert sorted(back.groups) == sorted(items.groups) and sorted(back.split) == sorted(items.split)


def test_a_name_that_can_t_be_one_or_isn_t_there(store, pod, workspace):
    push("digits", "digits", store=store)
    for args, words in {
        ("push", "digits", "--to", "my/digits"): "can't be the name",
        ("pull", "digit", "--to", "x"): "Did you mean 'digits'",
        ("show", "digits@7"): "unknown version of 'digits'",
        ("label", "digits", "nope=3"): "has no image 'nope'",
        ("label", "digits", "nope"): "expected KEY=CLASS",
        ("push", "nowhere/at/all", "--to", "x"): "nowhere/at/all",
        ("shove",): "Did you mean",
    }.items():
        p = pod("data", *args, code=2)
        assert words in p.stderr and "Traceback" not in p.stderr, p.stderr
    assert not (workspace / "x").exists()


# ---- large images, elsewhere


def test_large_images_lie_in_the_root_and_are_found_after_it_has_moved(database, tmp_path):
    big = photos(tmp_path / "big", n=2, side=400)  # noise: half a megabyte each
    a, b = Store(blobs=str(tmp_path / "a")), Store(blobs=str(tmp_path / "b"))
    push(big, "big", store=a)
    assert len([p for p in (tmp_path / "a").rglob("*") if p.is_file()]) == 4
    push(photos(tmp_path / "more", n=1, side=401, seed=1), "big", store=b)
    items = b.dataset("big").version().items()
    assert all(isinstance(x, bytes) for x in b.blobs.get(items.hashes).values())
    next(p for p in (tmp_path / "a").rglob("*") if p.is_file()).unlink()
    lost = [x for x in b.blobs.get(items.hashes).values() if not isinstance(x, bytes)]
    assert len(lost) == 1 and "can't be read from" in str(lost[0])


def test_large_images_in_a_bucket(database, tmp_path, monkeypatch):
    pytest.importorskip("s3fs")
    moto = pytest.importorskip("moto.server")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=free_port())
    server.start()
    try:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server._server.port}")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "testing")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        import s3fs

        s3fs.S3FileSystem.clear_instance_cache()
        bucket = f"images-{server._server.port}"  # moto's buckets are those of the process
        s3fs.S3FileSystem().mkdir(bucket)
        monkeypatch.setenv("POD_BLOBS", f"s3://{bucket}/pod")
        s = Store()
        v, _ = push(photos(tmp_path / "big", n=2, side=400), "big", store=s)
        assert len(s3fs.S3FileSystem().find(f"{bucket}/pod")) == 4
        items = v.items()
        assert all(isinstance(x, bytes) for x in items.files.read(items.keys))
        s3fs.S3FileSystem.clear_instance_cache()
        with pytest.raises(PodError, match="nowhere"):
            push(photos(tmp_path / "more", n=1, side=401, seed=1), "big", store=Store(blobs="s3://nowhere/at-all"))
    finally:
        server.stop()


# ---- as Jobs: progress, stop, kill, resume, at once


def test_push_as_a_command(pod, database, tmp_path):
    folder = photos(tmp_path / "pets")
    first = pod.json("data", "push", folder, "--to", "pets", "--message", "hello")
    assert (first["status"], first["version"], first["added"]) == ("done", "store:pets@1", 24)
    assert pod.json("data", "ls")[0]["images"] == 24
    labelled = pod.json("data", "label", "pets", "cat/00001.png=dog", "--exclude", "cat/00002.png", "--why", "barks")
    assert labelled["version"] == "store:pets@2" and labelled["images"] == 23
    assert pod.json("data", "undo", "pets")["images"] in (23, 24)
    shown_ = pod.json("data", "show", "pets")
    assert [v["message"] for v in shown_["versions"]][0] == "hello" and shown_["events"][0]["why"] == "barks"
    assert "store:pets@" in pod("data", "show", "pets").stdout
    pulled = pod.json("data", "pull", "pets@1", "--to", tmp_path / "back")
    assert pulled["written"] == 24 and len(list((tmp_path / "back").rglob("*.png"))) == 24
    assert "24 images" in pod("data", "pull", "pets@1", "--to", tmp_path / "back").stdout
    again = pod("data", "push", tmp_path / "back", "--to", "copy").stdout
    assert "store:copy@1: 24 images, 2 classes, 24 new" in again
    assert pod.json("data", "push", tmp_path / "back")["version"] == "store:back@1"  # its own name, where none is given


def test_fetch_from_a_published_set(pod, database):
    told = pod.json("data", "fetch", "FakeData", "--to", "fake", timeout=300)
    assert (told["version"], told["images"], told["classes"]) == ("store:fake@1", 1200, 10)


def test_a_training_on_a_stored_set_cites_its_version(pod, database, tmp_path):
    pod("data", "push", photos(tmp_path / "pets", n=30), "--to", "pets")
    run = pod.json("fit", "store:pets", "--epochs", "1", "--loggers", "none")
    pod("data", "label", "pets", "cat/00001.png=dog")
    told = pod.json("runs", "show", run["id"])
    assert told["config"]["data"] == "store:pets@1"
    splits = (Path(told["path"]) / "splits.json").read_text()
    assert '"version": "store:pets@1 ' in splits
    later = pod.json("fit", "store:pets", "--epochs", "1", "--loggers", "none")
    assert pod.json("runs", "show", later["id"])["config"]["data"] == "store:pets@2"
    p = pod("fit", "store:pet", code=2)
    assert "Did you mean 'pets'" in p.stderr


def pushing(pod, folder, name="many", at=300):
    p = pod.start("data", "push", folder, "--to", name)
    job = wait_for(lambda: jobs() and jobs()[0], 60, "the job")
    wait_for(lambda: p.poll() is not None or event(job, "progress").get("done", 0) >= at, 60, "progress")
    assert p.poll() is None, p.communicate()
    return p, job


def test_a_push_that_is_killed_loses_nothing_and_the_next_one_finishes_it(pod, database, tmp_path):
    folder = photos(tmp_path / "many", n=8000, side=12)
    p, job = pushing(pod, folder)
    p.send_signal(signal.SIGKILL)
    p.wait(30)
    wait_for(lambda: job.status == "died", 15, "its death to be noticed")
    kept = counts(Store())
    assert 0 < kept["sample"] < 16_000 and kept["dataset_version"] == 0
    with pytest.raises(PodError, match="has no version yet"):
        load("store:many")
    told = pod.json("resume", job.id, timeout=120)
    assert told["status"] == "done"
    v = Store().dataset("many").version()
    after = counts(Store())
    assert v.images == 16_000 and after["sample"] == after["blob"] == 16_000
    assert find_job(job.id).info["result"]["added"] == 16_000 - kept["sample"]


def test_a_push_can_be_stopped_and_goes_on(pod, database, tmp_path):
    folder = photos(tmp_path / "many", n=8000, side=12)
    p, job = pushing(pod, folder)
    p.send_signal(signal.SIGINT)
    out, err = p.communicate(timeout=60)
    assert p.returncode == 130 and f"pod resume {job.id}" in out and "Traceback" not in err
    assert job.status == "stopped"
    pod("resume", job.id)
    assert Store().dataset("many").version().images == 16_000


def test_two_processes_that_push_the_same_folder_store_every_image_once(pod, database, tmp_path):
    folder = photos(tmp_path / "many", n=700, side=24)
    both = [pod.start("data", "push", folder, "--to", "many", "--json") for _ in range(2)]
    told = [p.communicate(timeout=240) for p in both]
    assert [p.returncode for p in both] == [0, 0], told
    now = counts(Store())
    assert now["blob"] == now["sample"] == now["version_item"] == 1400 and now["dataset_version"] == 1
    assert now["label_event"] == 1400


def test_a_job_does_not_go_on_in_another_database(pod, database, workspace, monkeypatch):
    job = data_job("push", source="digits", name="digits")
    monkeypatch.setenv("POD_DATABASE_URL", f"sqlite:///{workspace / 'other.db'}")
    job.start().wait(60)
    assert job.status == "failed" and "was made for the database" in job.info["message"]


def test_a_push_of_damaged_images_names_them_all_and_goes_on_when_told_to(pod, database, tmp_path):
    folder = photos(tmp_path / "pets")
    for i in range(3):
        (folder / "cat" / f"bad{i}.png").write_bytes(b"not a picture")
    p = pod("data", "push", folder, "--to", "pets", code=2)
    assert all(f"bad{i}.png" in p.stderr for i in range(3)) and "on_bad='skip'" in p.stderr
    assert Store().datasets()[0].versions() == []
    told = pod.json("data", "push", folder, "--to", "pets", "--on_bad", "skip")
    assert (told["images"], told["damaged"]) == (24, 3)


@pytest.mark.parametrize("verb", ["pull", "push"])
def test_disk_that_is_full_is_said_and_harms_nothing(pod, database, tmp_path, small_disk, verb):
    from conftest import fill

    folder = photos(tmp_path / "big", n=4, side=400)
    disk = small_disk(4000)
    push(folder, "big")
    if verb == "pull":
        fill(disk, leave=700_000)
        p = pod("data", "pull", "big", "--to", disk / "out", code=None)
    else:
        fill(disk, leave=700_000)
        os.environ["POD_BLOBS"] = str(disk / "blobs")
        try:
            p = pod("data", "push", photos(tmp_path / "more", n=4, side=400, seed=1), "--to", "big", code=None)
        finally:
            del os.environ["POD_BLOBS"]
    assert p.returncode in (1, 2) and "disk is full" in p.stderr and "Traceback" not in p.stderr
    assert Store().dataset("big").version().images == 8


# ---- what corrections, pushes and versions do to one another


def test_what_was_pruned_stays_out(store, tmp_path):
    folder = photos(tmp_path / "pets", n=3)
    v1, _ = push(folder, "pets", store=store)
    Image.new("RGB", (9, 9), "red").save(folder / "cat" / "red.png")
    v2, _ = push(folder, "pets", store=store)
    (folder / "cat" / "red.png").unlink()
    back, _ = push(folder, "pets", store=store, prune=True)
    assert back.id == v1.id != v2.id
    assert v1.dataset.freeze().id == v1.id and v1.dataset.pending() == 0
    assert len(load("store:pets")) == 6


def test_an_image_that_comes_back_is_in_its_old_split_and_group(store, tmp_path):
    import pandas as pd

    files = sorted(photos(tmp_path / "pets").rglob("*.png"))
    frame = pd.DataFrame({"path": files, "label": [f.parent.name for f in files], "group": [f"g{i}" for i in range(24)],
                          "split": ["test" if i % 4 == 0 else "train" for i in range(24)]})
    v1, _ = push(frame, "pets", store=store)
    d, key = v1.dataset, v1.entries()[0].key
    d.exclude([key])
    assert d.freeze().images == 23
    d.undo()
    more = photos(tmp_path / "more", n=1, seed=9)
    v3, _ = push([(str(p), p.parent.name) for p in sorted(more.rglob("*.png"))], "pets", store=store)
    entry = {e.key: e for e in v3.entries()}[key]  # a push brings it back, too
    assert (v3.images, entry.split, entry.group, d.pending()) == (26, "test", "g0", 0)


def test_an_old_version_keeps_the_size_of_its_images(store, tmp_path):
    v1, _ = push(photos(tmp_path / "pets", side=8), "pets", store=store)
    push(photos(tmp_path / "pets", side=40), "pets", store=store)
    items = v1.items()
    assert items.files.head(items.keys[0])[:3] == (8, 8, "RGB")
    assert load("store:pets").files.head(items.keys[0])[:3] == (40, 40, "RGB")


def test_a_correction_isn_t_undone_over_what_the_source_said_later(store, tmp_path):
    rows = [(str(p), p.parent.name) for p in sorted(photos(tmp_path / "pets").rglob("*.png"))]
    v1, _ = push(rows, "pets", store=store)
    event_ = v1.dataset.relabel({v1.entries()[0].key: "fox"}, new_class=True)[0]
    push([(rows[0][0], "owl"), *rows[1:]], "pets", store=store)
    with pytest.raises(PodError, match="changed .* again"):
        v1.dataset.undo(event_)


def test_a_pull_never_takes_what_is_the_user_s(store, tmp_path):
    v1, _ = push(photos(tmp_path / "pets"), "pets", store=store)
    v1.dataset.exclude(["cat/00001.png"])
    v1.dataset.freeze()
    out = tmp_path / "out"
    pull("pets@1", out, store=store)
    (out / "notes.txt").write_text("mine")
    (out / "cat" / "new.png").write_bytes(b"also mine")
    assert pull("pets@2", out, store=store)["images"] == 23
    assert (out / "notes.txt").exists() and (out / "cat" / "new.png").exists()
    assert not (out / "cat" / "00001.png").exists()
    (out / "labels.csv").write_text("key,label\ncat/00002.png,dog\n")
    with pytest.raises(PodError, match="pod data label pets --file"):
        pull("pets@1", out, store=store)


def test_names_of_files_that_are_hard_to_write(store, tmp_path):
    source, out = tmp_path / "odd", tmp_path / "out"
    for n, name in enumerate(["photo", "a.jpg?w=3", "x" * 230 + ".png", "Ünïcode 猫.png", "photo.v1"]):
        for kind in ("v1.0", "dog"):
            rng = np.random.default_rng(n * 2 + (kind == "dog"))
            (source / kind).mkdir(parents=True, exist_ok=True)
            image = Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8))
            image.save(source / kind / name, "PNG")
    rows = [(str(p), p.parent.name) for p in sorted(source.rglob("*")) if p.is_file()]
    v, _ = push(rows, "odd", store=store)
    assert pull("odd", out, store=store)["images"] == 10
    back = load(out)
    assert len(back) == 10 and back.classes == ["dog", "v1.0"] and len(load(out / "labels.csv")) == 10
    assert push(out, "again", store=store)[0].images == 10


def test_a_table_of_corrections_must_be_whole(store, pod, tmp_path):
    push(photos(tmp_path / "pets"), "pets", store=store)
    file = tmp_path / "fix.csv"
    for text, words in {"key,label\ncat/00001.png\n": "line 2", "key,label\ncat/00001.png,a,b\n": "line 2",
                        "path,label\ncat/00001.png,dog\n": "columns path, label"}.items():
        file.write_text(text)
        p = pod("data", "label", "pets", "--file", file, code=2)
        assert words in p.stderr and "Traceback" not in p.stderr
    file.write_text("key,label\ncat/00001.png, dog\n")
    assert pod.json("data", "label", "pets", "--file", file)["images"] == 24
    assert Store().dataset("pets").labels()["cat/00001.png"] == "dog"


def test_a_workspace_can_be_renamed(workspace, tmp_path, monkeypatch):
    home = tmp_path / "first"
    home.mkdir()
    monkeypatch.setenv("POD_WORKSPACE", str(home))
    push(photos(tmp_path / "big", n=2, side=400), "big", store=Store())
    home.rename(tmp_path / "second")
    monkeypatch.setenv("POD_WORKSPACE", str(tmp_path / "second"))
    items = load("store:big")
    assert all(isinstance(b, bytes) for b in items.files.read(items.keys))


def test_a_large_image_that_was_lost_is_brought_back_by_a_push(store, workspace, tmp_path):
    folder = photos(tmp_path / "big", n=2, side=400)
    v, _ = push(folder, "big", store=store)
    for p in (workspace / ".pod" / "blobs").rglob("*"):
        if p.is_file():
            p.unlink()
    push(folder, "big", store=store)
    items = v.items()
    assert all(isinstance(b, bytes) for b in items.files.read(items.keys))


def test_two_hands_push_and_freeze_at_once_and_nothing_is_reverted(store, tmp_path):
    folder = photos(tmp_path / "pets", n=20)
    v1, _ = push(folder, "pets", store=store)
    failed = []

    def freezing():
        try:
            for i in range(15):
                d = Store().dataset("pets")
                d.relabel({f"cat/{i:05}.png": "dog"})
                d.freeze()
        except Exception as e:
            failed.append(e)

    hand = threading.Thread(target=freezing)
    hand.start()
    for n in range(21, 26):
        push(photos(folder, n=n), "pets", store=store)
    hand.join()
    assert failed == []
    last = v1.dataset.freeze()
    labels = {e.key: e.label for e in last.entries()}
    assert last.images == 50 and all(labels[f"cat/{i:05}.png"] == "dog" for i in range(15))


# ---- what is damaged, and removing


@pytest.fixture
def here(capsys):
    """The command `pod` in this process: what it wrote."""
    from lightning_pod.cli import main

    def call(*args, code: int | None = 0):
        capsys.readouterr()
        ended = main([str(a) for a in args])
        told = capsys.readouterr()
        assert code is None or ended == code, told
        return told

    return call


@contextmanager
def by_hand(store: Store):
    """A cursor that breaks what foreign keys forbid, as half a backup does."""
    off = {"sqlite": "PRAGMA foreign_keys=OFF", "postgresql": "SET session_replication_role = replica"}[store.db.kind]
    connection = store.db.engine.raw_connection()
    cursor = connection.cursor()
    cursor.execute(off)
    yield cursor
    connection.commit()
    connection.detach()  # so that nobody gets it from the pool as it is now
    connection.close()


OF = "dataset_id = (SELECT id FROM pod_dataset WHERE name = '{}')"
NEWEST = "version_id IN (SELECT id FROM pod_dataset_version WHERE " + OF + ")"
DAMAGES = {  # what is done to a data set -> what its line says
    "UPDATE pod_dataset SET version_id = 999999 WHERE name = '{}'": "row 999999",
    "UPDATE pod_dataset SET version_id = NULL WHERE name = '{}'": "no newest version",
    "DELETE FROM pod_dataset_version WHERE " + OF: "isn't there",
    "DELETE FROM pod_version_item WHERE " + NEWEST: "version 1: it has 0 of its 4 images",
    "DELETE FROM pod_sample WHERE key LIKE 'cat%' AND " + OF: "2 of its images have no sample",
    "DELETE FROM pod_blob WHERE hash IN (SELECT blob FROM pod_sample WHERE " + OF + ")": "bytes of 4",
    "UPDATE pod_blob SET data = NULL WHERE hash IN (SELECT blob FROM pod_sample WHERE " + OF + ")": "bytes of 4",
    "UPDATE pod_blob SET size = 1 WHERE hash IN (SELECT blob FROM pod_sample WHERE " + OF + ")": "bytes of 4",
    "UPDATE pod_version_item SET label = 'owl' WHERE label = 'cat' AND " + NEWEST: "none of its classes: 'owl'",
    "UPDATE pod_version_item SET split = 'dev' WHERE " + NEWEST: "splits that are none: 'dev'",
    "UPDATE pod_dataset_version SET classes = '5' WHERE " + OF: "classes are '5'",
    "UPDATE pod_dataset_version SET images = -4 WHERE " + OF: "images is -4",
    "UPDATE pod_dataset_version SET hash = 'none' WHERE " + OF: "hash is 'none'",
    "UPDATE pod_dataset SET name = 'a / b' WHERE name = '{}'": "its name 'a / b' can't be one",
}
LOOSE = {  # what only SQLite's columns take
    "UPDATE pod_dataset_version SET classes = '[' WHERE " + OF: "classes are '['",
    "UPDATE pod_dataset_version SET images = 'many' WHERE " + OF: "images is 'many'",
    "UPDATE pod_dataset_version SET made = 'yesterday' WHERE " + OF: "made is 'yesterday'",
    "UPDATE pod_dataset_version SET glyphs = 'perhaps' WHERE " + OF: "glyphs is 'perhaps'",
    "UPDATE pod_dataset_version SET who = CAST(x'ff' AS TEXT) WHERE " + OF: "its rows can't be read",
    "UPDATE pod_dataset SET made = 'yesterday', name = x'ff00' WHERE name = '{}'": "can't be one",
}


def test_a_damaged_data_set_is_listed_with_its_reason_and_can_be_removed(store, here, tmp_path):
    push(photos(tmp_path / "good", n=2), "good", store=store)
    store.dataset("begun", make=True)
    damages = {**DAMAGES, **(LOOSE if store.db.kind == "sqlite" else {})}
    for i, statement in enumerate(damages):
        push(photos(tmp_path / f"n{i}", n=2, seed=i + 1), f"set{i}", store=store)
        with by_hand(store) as c:
            c.execute(statement.format(f"set{i}"))
            assert c.rowcount > 0, statement
    with store.db.read() as c:
        ids = c.scalars(sa.text("SELECT id FROM pod_dataset ORDER BY id")).all()[2:]
    rows = {r["name"]: r for r in json.loads(here("data", "ls", "--json").out)}
    assert len(rows) == len(damages) + 2 and sorted(rows) == [r["name"] for r in store.rows()]
    table = here("data", "ls").out
    assert all(one_line(r["damage"] or "") in table for r in rows.values())
    assert (rows["good"]["status"], rows["good"]["damage"], rows["good"]["images"]) == ("whole", None, 4)
    assert rows["begun"]["status"] == "unfinished"
    for i, (statement, words) in enumerate(damages.items()):
        name = f"set{i}" if f"set{i}" in rows else f"id:{ids[i]}"
        assert rows[name]["status"] == "damaged" and words in rows[name]["damage"], (statement, rows[name])
        told = here("data", "show", name, code=None)  # a sentence, if not all of it
        assert "damaged" in told.out + told.err or name.startswith("id:"), (statement, told)
        assert store.remove(name)["removed"] == [name], statement
    assert [(r["name"], r["status"]) for r in store.rows()] == [("begun", "unfinished"), ("good", "whole")]
    assert counts(store)["sample"] == counts(store)["version_item"] == counts(store)["blob"] == 4
    assert all(isinstance(b, bytes) for b in load("store:good").files.read(load("store:good").keys))


def test_removing_takes_what_no_other_data_set_uses_and_nothing_else(store, here, workspace, tmp_path):
    def files():
        return [p for p in (workspace / ".pod" / "blobs").rglob("*") if p.is_file()]

    photos(tmp_path / "a", n=3)
    photos(tmp_path / "a", n=1, side=400, seed=7)  # two large ones in place of two small
    photos(tmp_path / "b", n=1, side=400, seed=7)
    d = push(tmp_path / "a", "a", store=store)[0].dataset
    push(tmp_path / "b", "b", store=store)
    d.relabel({"cat/00001.png": "dog"})
    d.freeze()
    before = counts(store)
    assert before["blob"] == 6 and len(files()) == 2
    assert "Did you mean 'a'" in here("data", "rm", "b", "A", code=2).err and counts(store) == before
    assert "removed a: 2 versions, 6 images" in here("data", "rm", "a").out
    assert counts(store) == {**dict.fromkeys(before, 0), "dataset": 1, "dataset_version": 1, "sample": 2, "blob": 2,
                             "version_item": 2, "label_event": 2}
    assert len(files()) == 2 and [r["status"] for r in store.rows()] == ["whole"]
    files()[0].write_bytes(b"half")
    assert "1 of 2 large images are gone" in store.rows()[0]["damage"]
    push(tmp_path / "b", "b", store=store)
    assert store.rows()[0]["damage"] is None
    done = json.loads(here("data", "rm", "b", "--json").out)
    assert (done["removed"], done["blobs"], done["notes"], files()) == (["b"], 2, [], [])
    assert not any(counts(store).values())
    said = here("data", "rm", "b", code=2).err
    assert "unknown stored data set 'b'" in said and "There are none yet" in said


def test_a_run_says_that_the_version_it_cites_is_gone(store, here, tmp_path):
    from lightning_pod.train.fit import fit

    push(photos(tmp_path / "pets", n=10), "pets", store=store)
    run = fit("store:pets", "podnet_n", epochs=1, loggers="none")
    splits = (run.path / "splits.json").read_text()
    assert f"1 run trained on it, such as {run.id}" in here("data", "rm", "pets").err
    assert (run.path / "splits.json").read_text() == splits
    for args in (("diagnose", run.id, "--no-browser"), ("fit", "store:pets@1")):
        assert "store:pets@1 is gone, or was never here" in here(*args, code=2).err
    assert run.details()["data_version"] == "pets@1"
    push(photos(tmp_path / "others", n=10, seed=9), "pets", store=store)  # what has its name and number now
    assert "pod diagnose: " in here("diagnose", run.id, "--no-browser", code=2).err


def test_a_push_whose_data_set_is_removed_meanwhile_says_so(store, tmp_path):
    removed = []

    def at_once(done, total):
        if not removed:
            removed.append(Store().remove("pets"))

    with pytest.raises(PodError, match="were removed meanwhile: push again"):
        push(photos(tmp_path / "pets", n=2), "pets", store=store, progress=at_once)
    v, _ = push(tmp_path / "pets", "pets", store=store)
    assert v.images == 4 and store.rows()[0]["status"] == "whole"
