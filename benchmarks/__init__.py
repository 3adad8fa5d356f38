"""Speed of Ornstein beside the usual way of writing the same mathematics, in one run: `python -m benchmarks`."""
