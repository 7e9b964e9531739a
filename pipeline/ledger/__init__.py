"""The SQLite ledger: schema, migrations, and every statement that reads or writes it."""

from pipeline.ledger.database import is_absent, reading, writing

__all__ = ["is_absent", "reading", "writing"]
