"""The store's schema, step by step. `SCHEMA` is the number of steps, kept in SQLite's `user_version`."""

SCHEMA = 3

APPLICATION_ID = 0x4C4F4F50  # "LOOP": lets `file` and `EventLog` tell a store from any other database
