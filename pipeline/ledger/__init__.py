"""The SQLite ledger: schema, migrations, and every statement that reads or writes it."""

from pipeline.ledger.database import reading, writing

__all__ = ["reading", "writing"]
