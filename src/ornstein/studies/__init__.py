"""Claims of the field as experiments: each file is one, with `main(out, seed, quick)`, a table and a figure."""
