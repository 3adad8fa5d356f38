"""The bench: systems x data sets x seeds, one row for each, and the statistics by which they are compared."""
