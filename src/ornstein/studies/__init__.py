"""Claims of the field as experiments: each file is one, with `main(out, seeds, quick)`, a table and a figure."""
