"""A look at labelled text before it is trained on: `python -m multitask_train inspect SOURCE`.

corpus   sources → splits: located examples and the faults of the records that are none
counts   sentences, labels, entity types; which of them a split lacks; BIO faults
pieces   what the tokenizer makes of the texts: lengths, windows, padding, words it loses
repeats  the same text twice: in a split, across splits, with other annotation
report   all of it for every split, as plain data
advice   report → what to do about each finding
show     report → tables for people
"""
