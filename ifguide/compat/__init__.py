"""The parts of dependencies that are not public, or that move: each used in one place, all listed in `registry`.

A module here is named after the library whose parts it uses; the rest of the package imports the module. Nothing heavy
is imported by this package itself or by `registry`, so both work in the base install.
"""
