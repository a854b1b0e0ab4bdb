"""What can be wrong around a server, found before it hurts: settings, machine, storage, database, handlers.

Every check looks and judges; none changes anything but a file of a few bytes in the data folder, which it removes. All
of them work while a server runs.
"""
