"""Which mask hits abuse? Spans drawn at random, labelled by people who see no mask, and what follows for each mask.

sampling   strata of spans, and the draws
drawing    the folder of an audit: its record, the spans, the page to label them on
labels     what people said
estimate   precision, recall and the share of abuse, with intervals; masks compared
verdict    that, for a person
"""
