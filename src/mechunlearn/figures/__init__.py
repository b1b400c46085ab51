"""What a study found, drawn: one figure a module, each under `@figure("name")` with its title and caption. Torch-free.

A module of this room holds `TITLE`; `draw(results, metrics)`, which returns a matplotlib figure; and
`caption(results, metrics, level)`, which says in plain words what is found and what is seen, two texts computed from
the same numbers. `results` is the folder of a model and task, `metrics` what `data.read_metrics` returns for them,
`level` the confidence of the metrics' intervals, such as "95%".
"""
