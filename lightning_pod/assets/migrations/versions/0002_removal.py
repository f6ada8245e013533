"""Which versions use a sample, or a blob: looked up when a data set is removed."""

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade():
    op.create_index("ix_pod_version_item_sample_id", "pod_version_item", ["sample_id"])
    op.create_index("ix_pod_version_item_blob", "pod_version_item", ["blob"])


def downgrade():
    op.drop_index("ix_pod_version_item_blob", "pod_version_item")
    op.drop_index("ix_pod_version_item_sample_id", "pod_version_item")
