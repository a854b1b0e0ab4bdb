"""The commands of ``dataset-server``, one module each: ``add_parser(commands)`` and ``run(options)``.

``run`` returns the exit status: 0 all went well, 1 something failed or is not as it should be, 2 wrong usage.
"""
