"""Experiments that a file describes.

plan      what is tried on what, and how all of it is judged
reading   the file -> a plan, or all of its faults
sizes     how much there is to do, from the plan alone
commands  commands of this program as stages
texts     the stages of texts: tokenizers, tokens, what a classifier says of them
judged    the stages that judge a model
recipes   from one thing to be judged to all stages behind it
estimate  how long they will take
results   their numbers over seeds, with intervals
job       all of it
"""
