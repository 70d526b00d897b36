"""What a job will take, before it starts.

shape      the model's sizes, from its configuration alone
needs      the settings of a job, and what it needs of each kind
work       operations, windows and padding
memory     peaks of each phase, item by item
disk       files of each job
machine    what there is
advice     what cannot fit, and the flags that make it fit
timing     one batch of the real pass
plan       all of it together
table      for people
"""
