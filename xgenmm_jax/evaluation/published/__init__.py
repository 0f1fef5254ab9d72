"""Files of benchmarks as their authors and the toolkits publish them, read into rows."""
