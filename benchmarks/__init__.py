"""Side-by-side measurements: ours beside the plain way, on the same inputs, in one run, outputs compared."""
