"""What a wrong name is told: the nearest right one."""

import difflib
from collections.abc import Collection


def unknown(value: str, known: list[str]) -> str:
    """'unknown name ...' with the nearest known one."""
    near = difflib.get_close_matches(value, known, n=1, cutoff=0.4)
    hint = f" - did you mean '{near[0]}'?" if near else "."
    return f"unknown name '{value}'{hint} Known: {', '.join(dict.fromkeys(known))}."


def unknown_benchmark(name: str, known: Collection[str]) -> str:
    """'unknown name ...' with the nearest ones; there are too many to list."""
    near = difflib.get_close_matches(name.lower(), {each.lower(): each for each in known}, n=3)
    spelled = [f"'{each}'" for each in known if each.lower() in near]
    hint = f" - did you mean {' or '.join(spelled[:3])}?" if spelled else "."
    return (
        f"unknown name '{name}'{hint} Known: the {len(known)} tasks and groups of lm-eval (`lm-eval ls tasks`), such "
        "as mmlu, sciq and tinyMMLU, and those in evaluate.benchmark_tasks."
    )
