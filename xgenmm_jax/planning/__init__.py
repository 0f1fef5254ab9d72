"""A run's step compiled for TPUs that are not there: whether it fits, and how fast it can be."""
