"""A small world made from a seed: scenes with exact ground truth, and the paper's families of records about them.

Record i of a family is a pure function of (seed, family, i), so any host makes any record without the others.
"""
