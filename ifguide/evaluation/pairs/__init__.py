"""Pairs of a chosen and a rejected continuation of one prompt.

options  which are taken
near     whether a text is nearly one that was seen before
build    scored continuations, or given pairs -> pairs
"""
