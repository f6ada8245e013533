"""Data sets: blobs, samples, label events, versions."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

Id = sa.BigInteger().with_variant(sa.Integer, "sqlite")
Time = sa.DateTime(timezone=True)


def _c(name, kind, *constraints, null=False, **kw):
    return sa.Column(name, kind, *constraints, nullable=null, **kw)


def upgrade():
    op.create_table(
        "pod_dataset",
        _c("id", Id),
        _c("name", sa.Text),
        _c("version_id", Id, null=True),
        _c("made", Time),
        sa.PrimaryKeyConstraint("id", name="pk_pod_dataset"),
        sa.UniqueConstraint("name", name="uq_pod_dataset_name"),
    )
    op.create_table(
        "pod_blob",
        _c("hash", sa.String(64)),
        _c("size", sa.BigInteger),
        _c("root", sa.Text, null=True),
        _c("data", sa.LargeBinary, null=True),
        sa.PrimaryKeyConstraint("hash", name="pk_pod_blob"),
    )
    op.create_table(
        "pod_sample",
        _c("id", Id),
        _c("dataset_id", Id),
        _c("key", sa.Text),
        _c("blob", sa.String(64)),
        _c("width", sa.Integer),
        _c("height", sa.Integer),
        _c("mode", sa.String(16)),
        sa.PrimaryKeyConstraint("id", name="pk_pod_sample"),
        sa.ForeignKeyConstraint(["dataset_id"], ["pod_dataset.id"], name="fk_pod_sample_dataset_id", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["blob"], ["pod_blob.hash"], name="fk_pod_sample_blob"),
        sa.UniqueConstraint("dataset_id", "key", name="uq_pod_sample_dataset_id_key"),
    )
    op.create_index("ix_pod_sample_blob", "pod_sample", ["blob"])
    op.create_table(
        "pod_label_event",
        _c("id", Id),
        _c("sample_id", Id),
        _c("old", sa.Text, null=True),
        _c("new", sa.Text, null=True),
        _c("who", sa.Text),
        _c("at", Time),
        _c("origin", sa.String(16)),
        _c("why", sa.Text, null=True),
        _c("undoes", Id, null=True),
        sa.PrimaryKeyConstraint("id", name="pk_pod_label_event"),
        sa.ForeignKeyConstraint(["sample_id"], ["pod_sample.id"], name="fk_pod_label_event_sample_id", ondelete="CASCADE"),
    )
    op.create_index("ix_pod_label_event_sample_id", "pod_label_event", ["sample_id"])
    op.create_table(
        "pod_dataset_version",
        _c("id", Id),
        _c("dataset_id", Id),
        _c("number", sa.Integer),
        _c("hash", sa.String(64)),
        _c("parent_id", Id, null=True),
        _c("classes", sa.JSON),
        _c("glyphs", sa.Boolean),
        _c("images", sa.Integer),
        _c("event_id", Id),
        _c("who", sa.Text),
        _c("made", Time),
        _c("message", sa.Text, null=True),
        sa.PrimaryKeyConstraint("id", name="pk_pod_dataset_version"),
        sa.ForeignKeyConstraint(
            ["dataset_id"], ["pod_dataset.id"], name="fk_pod_dataset_version_dataset_id", ondelete="CASCADE"
        ),
        sa.UniqueConstraint("dataset_id", "hash", name="uq_pod_dataset_version_dataset_id_hash"),
        sa.UniqueConstraint("dataset_id", "number", name="uq_pod_dataset_version_dataset_id_number"),
    )
    op.create_table(
        "pod_version_item",
        _c("version_id", Id),
        _c("sample_id", Id),
        _c("blob", sa.String(64)),
        _c("label", sa.Text),
        _c("split", sa.String(8), null=True),
        _c("item_group", sa.Text, null=True),
        sa.PrimaryKeyConstraint("version_id", "sample_id", name="pk_pod_version_item"),
        sa.ForeignKeyConstraint(
            ["version_id"], ["pod_dataset_version.id"], name="fk_pod_version_item_version_id", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["sample_id"], ["pod_sample.id"], name="fk_pod_version_item_sample_id", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["blob"], ["pod_blob.hash"], name="fk_pod_version_item_blob"),
    )


def downgrade():
    for table in ("version_item", "dataset_version", "label_event", "sample", "blob", "dataset"):
        op.drop_table(f"pod_{table}")
