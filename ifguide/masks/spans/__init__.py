"""Masks of spans.

options     how they are selected
selecting   scores -> what is selected (M3b, M3c)
share       the share of abuse, from which a budget can be taken
share_by_influence  a lower bound of it, without a classifier
arguments   the options of the command line
"""
