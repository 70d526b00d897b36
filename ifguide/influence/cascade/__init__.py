"""Exact scores where they matter: a cheap pass over everything, the exact one over what can still make the mask.

choice    which ranking units are scored exactly; cheap scores on the scale of exact ones; both combined
head      the cheap pass: a small proxy without its vocabulary
report    what the mask lost, estimated from an audit
run       from files to files
"""
