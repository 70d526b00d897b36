"""A GPU that is not there: tensors say ``cuda`` and hold numbers of the CPU.

Work that runs on it shows three things that no CPU run does: operations that mix devices raise as on a GPU, the places
where the host would wait for the device are counted, and so are the bytes that lie on the device at once. It shows
nothing of CUDA's kernels.

`build` makes the small extension that torch needs to believe in the device; `device` has the tensors and the ledger.
A process that has loaded the extension believes in a GPU for good, so tests do this in a process of their own.
"""
