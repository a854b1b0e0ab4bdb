"""What can be wrong around a server, found before it hurts: settings, machine, storage, database, handlers.

Every check looks and judges. What they write is removed again: a few bytes in the data folder, to see how its disk
takes them, and a temporary folder where a package index is asked; uv keeps in its cache what it learns there. All of
them work while a server runs.
"""
