"""What tools/benchmark.py and the tests measure with."""
