"""What a job will take, before it starts.

shape      the model's sizes, from its configuration alone
settings   what decides that
needs      what a job needs of each kind, by its settings
work       operations, windows and padding
memory     peaks of each phase, item by item
disk       files of each job
machine    what there is
advice     what cannot fit, and the flags that make it fit
timing     one batch of the real pass
plan       all of it together
table      for people
"""
