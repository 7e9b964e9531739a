"""The SQLite ledger: schema, migrations, and every statement that reads or writes it."""
