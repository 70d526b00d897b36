"""Looking at masks and scores: what they select, how masks compare, and where they come from.

ranking      documents by toxicity (M3's R), in one pass over scores and mask
pieces       token ids as readable, harmless text
documents    the tokens of a document as text, score, rank and selection
terminal     documents for a terminal
page         documents as one self-contained HTML page
statistics   what a mask selects: by document, position and token; overlap of several masks
mask_stats   those statistics for masks on disk, in words
figures      and as plots
lineage      from any file back to everything that it was made of
replay       the same commands again, into another folder
"""
