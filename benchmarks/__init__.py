"""Timings, each beside what a user would otherwise pick. From the repository's root: python -m benchmarks.train_step"""
