"""The options of a parser, of which argparse has no public list."""

from __future__ import annotations

import argparse


def options(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """In the order in which they were added."""
    return parser._actions
