"""A store in a database that other programs use too, whoever came first, on SQLite and on a real PostgreSQL."""

import os
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.config import Config
from conftest import TESTS

from lightning_pod.core.config import PodError
from lightning_pod.core.sources import digits
from lightning_pod.store.database import UNPREFIXED, VERSION_TABLE, Base, Database, database_url, heads
from lightning_pod.store.datasets import Store, push
from lightning_pod.train.tune import open_storage, tune

OURS = {VERSION_TABLE, *Base.metadata.tables}
MIGRATION = '''
import sqlalchemy as sa
from alembic import op
revision, down_revision = "0001", None  # a common name, and ours too
def upgrade():
    op.create_table("experiments", sa.Column("id", sa.Integer, primary_key=True), sa.Column("name", sa.Text))
    op.create_table("dataset", sa.Column("id", sa.Integer), sa.Column("digest", sa.Text),
                    sa.PrimaryKeyConstraint("id", name="pk_dataset"))
    op.create_index("ix_sample_blob", "dataset", ["digest"])
def downgrade():
    op.drop_table("dataset"); op.drop_table("experiments")
'''
ENV = '''
from alembic import context
context.configure(connection=context.config.attributes["connection"])
with context.begin_transaction(): context.run_migrations()
'''


def engine() -> sa.Engine:
    return sa.create_engine(database_url(os.environ["POD_DATABASE_URL"]))


def tracker(folder: Path):
    """A program with Alembic migrations of its own and a table `dataset`, as MLflow has; it may be opened again."""
    from alembic import command

    (folder / "versions").mkdir(parents=True, exist_ok=True)
    (folder / "versions" / "0001_first.py").write_text(MIGRATION)
    (folder / "env.py").write_text(ENV)
    config = Config()
    config.set_main_option("script_location", str(folder))
    with engine().begin() as c:
        config.attributes["connection"] = c
        command.upgrade(config, "head")
        c.exec_driver_sql("INSERT INTO dataset (digest) VALUES ('theirs')" if c.dialect.name == "sqlite" else
                          "INSERT INTO dataset (id, digest) SELECT count(*) + 1, 'theirs' FROM dataset")
        return c.exec_driver_sql("SELECT digest FROM dataset").all()


def optuna_study(folder: Path):
    import optuna

    storage = open_storage(None, database_url(os.environ["POD_DATABASE_URL"]).render_as_string(False))
    study = optuna.create_study(storage=storage, study_name="theirs", load_if_exists=True)
    study.optimize(lambda t: t.suggest_float("x", 0, 1), n_trials=1)
    return len(study.trials)


def table_called_dataset(folder: Path):
    with engine().begin() as c:
        c.exec_driver_sql("CREATE TABLE IF NOT EXISTS dataset (id INTEGER, name TEXT)")
        c.exec_driver_sql("INSERT INTO dataset VALUES (1, 'theirs')")
        return c.exec_driver_sql("SELECT * FROM dataset").all()


def ours() -> tuple:
    store = Store()
    try:
        v, told = push((digits().pixels[:4], [0, 1, 0, 1]), "digits", store=store)
        assert store.db.revision == heads()[0]
        return v.hash, v.images, [d.name for d in store.datasets()]
    finally:
        store.close()


def tables() -> set[str]:
    e = engine()
    try:
        return set(sa.inspect(e).get_table_names())
    finally:
        e.dispose()


@pytest.mark.parametrize("theirs", [tracker, optuna_study, table_called_dataset])
@pytest.mark.parametrize("first", ["ours", "theirs"])
def test_a_store_lives_beside_another_program_whoever_came_first(database, tmp_path, theirs, first):
    calls = [ours, lambda: theirs(tmp_path / "program")]
    for call in calls if first == "ours" else calls[::-1]:
        call()
    alone = tables() - OURS
    assert tables() >= OURS and alone  # each has its own
    again = ours(), theirs(tmp_path / "program")
    assert again[0][1:] == (4, ["digits"]) and again[1] in (2, [("theirs",)] * 2, [(1, "theirs")] * 2)
    db = Database()
    db.migrate("base")
    db.close()
    assert tables() - {VERSION_TABLE} == alone
    assert theirs(tmp_path / "program")  # and still works without us


def test_a_study_in_another_program_s_database_says_that_it_can_t_be(database, tmp_path):
    tracker(tmp_path / "program")
    with pytest.raises(PodError, match=r"is another program's: .*alembic_version.* is at 0001.*search_path") as e:
        tune("digits", {"lr": [0.1]}, trials=1, storage=os.environ["POD_DATABASE_URL"], progress=False)
    assert "cret" not in str(e.value)
    assert ours()[1] == 4


def test_a_schema_of_its_own_takes_what_can_t_be_shared(postgres_url, workspace, monkeypatch, tmp_path):
    import psycopg

    with psycopg.connect(postgres_url + "postgres", autocommit=True) as c:
        c.execute("CREATE DATABASE shared")
    monkeypatch.setenv("POD_DATABASE_URL", postgres_url + "shared")
    tracker(tmp_path / "program")
    with engine().begin() as c:
        c.exec_driver_sql("CREATE SCHEMA optuna; CREATE SCHEMA images; CREATE TABLE pod_blob (x int)")
    with pytest.raises(PodError, match="another program has something of this name: .*search_path"):
        Database()
    monkeypatch.setenv("POD_DATABASE_URL", postgres_url + "shared?options=--search_path%3Dimages")
    assert ours()[1] == 4
    monkeypatch.setenv("POD_DATABASE_URL", postgres_url + "shared?options=--search_path%3Doptuna")
    assert optuna_study(tmp_path) == 1
    assert set(sa.inspect(engine()).get_table_names(schema="images")) == OURS


def test_who_may_make_no_tables_is_told_so(postgres_url, workspace, monkeypatch):
    import psycopg

    with psycopg.connect(postgres_url + "postgres", autocommit=True) as c:
        c.execute("CREATE DATABASE closed")
        c.execute("CREATE ROLE guest LOGIN PASSWORD 'guest'")
    with psycopg.connect(postgres_url + "closed", autocommit=True) as c:
        c.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    host = postgres_url.rpartition("@")[2]
    with pytest.raises(PodError, match="lacks the right to make tables there: GRANT USAGE, CREATE ON SCHEMA") as e:
        Database(f"postgresql://guest:guest@{host}closed")
    assert "search_path" in str(e.value)


# ---- databases from before


def restore(database: str):
    """What a store was when its tables had no prefix: made by the commit before they got one."""
    kind = "sqlite" if database.startswith("sqlite") else "postgresql"
    text = (TESTS / "before" / f"{kind}.sql").read_text()
    e = engine()
    with e.begin() as c:
        if kind == "sqlite":
            c.connection.executescript(text)
        else:
            c.exec_driver_sql(text.replace("%", "%%"))
    e.dispose()


VERSIONS = ["6718e876c393584aee0a632501946d53ffffecaa07453c37193c2327eb796b77",
            "88a5542d1bb5e7e9db7337e5ef661d77a1e47de0a0d847deca7db17b9935990c"]


@pytest.mark.parametrize("beside", [None, "program", "study"])
def test_a_store_from_before_the_prefix_is_taken_over_as_it_is(database, tmp_path, beside):
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    restore(database)
    if beside:  # two programs in one version table: ours were there first, theirs came by hand
        with engine().begin() as c:
            c.exec_driver_sql("INSERT INTO alembic_version VALUES ('v3.2.0.a')")
    store = Store()
    d = store.dataset("photos")
    assert [v.hash for v in d.versions()] == VERSIONS
    assert [(e["old"], e["new"], e["who"]) for e in d.history()][-1] == ("cat", "dog", "bob")
    assert len(d.version().items().files.read([e.key for e in d.version().entries()])) == 6
    assert tables() == (OURS | {"alembic_version"} if beside else OURS)
    with store.db.read() as c:
        context = MigrationContext.configure(c, opts={"version_table": VERSION_TABLE})
        differences = [x for x in compare_metadata(context, Base.metadata) if "alembic_version" not in str(x)]
        names = {i["name"] for t in Base.metadata.tables for i in sa.inspect(c).get_indexes(t)}
    assert differences == [] and not [n for n in names if "_pod_" not in n]
    d.relabel({"cat/3.png": "dog"})  # the counters of ids go on
    assert d.freeze("again").images == 6
    store.close()
    if not beside:
        tracker(tmp_path / "program")  # nothing is left in the way of another program
    if beside == "study":
        assert optuna_study(tmp_path) == 1
    assert Database().revision == heads()[0]


def test_tables_of_the_same_names_that_are_somebody_else_s_are_left_alone(database, tmp_path):
    with engine().begin() as c:
        c.exec_driver_sql("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
        c.exec_driver_sql("INSERT INTO alembic_version VALUES ('0001')")
        for name in UNPREFIXED:
            c.exec_driver_sql(f"CREATE TABLE {name} (id INTEGER, theirs TEXT)")
    assert ours()[1] == 4
    assert tables() == OURS | set(UNPREFIXED) | {"alembic_version"}


def test_a_store_from_before_is_taken_over_once_by_processes_that_open_it_together(database):
    import subprocess
    import sys

    restore(database)
    code = "from lightning_pod.store.datasets import Store; print(len(Store().dataset('photos').versions()))"
    started = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
               for _ in range(3)]
    told = [p.communicate(timeout=120) for p in started]
    assert [out.strip() for out, _ in told] == ["2"] * 3, told


def test_a_taking_over_that_fails_leaves_everything_as_it_was(database, monkeypatch):
    from lightning_pod.store import database as room

    restore(database)
    before = tables()

    def broken(c, config):
        real(c, config)
        raise RuntimeError("the power is gone")

    real = room.take_over
    monkeypatch.setattr(room, "take_over", broken)
    with pytest.raises(RuntimeError, match="the power is gone"):
        Database()
    assert tables() == before
    monkeypatch.undo()
    os.environ["POD_DATABASE_URL"] = database
    db = Database()
    assert db.revision == heads()[0] and tables() == OURS
    db.close()
