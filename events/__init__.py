"""The log: what happened, in order, for ever.

The vocabulary is `events.catalog`, the store is `events.store.EventLog`; everything else here serves those two.
"""
