"""Text that a user gives us, whatever it is stored in: every command reads it here, record by record, in one order.

names         what an input's name means: a file, a pattern, a folder, or `dataset:NAME#split`
records       a batch of records, where each stands, and the text under its keys
reading       inputs -> batches, for long work; inputs -> rows, for short files
compression   the bytes of a file     lines: of text     parquet: rows     hugging_face: rows of a data set
sampling      a share of the texts, the same ones every time
"""
