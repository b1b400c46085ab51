"""Measuring a task through every format and on held-out text: ours beside a record at a time.

    python -m benchmarks.evaluation [--quick]

Ours is `measure`, as the workflow calls it. The loop runs every prompt and every passage on its own: one forward, no
padding, no shared prefix, logits at all positions, a softmax over the vocabulary. Both get the same facts and texts,
in turn, a format at a time, in bfloat16 (in which the default study measures) and in float32.

In bfloat16 both round on the way, on a CPU alike. How far each is from the loop's float32 says how much that costs.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks import common
from mechunlearn.config import TaskSettings
from mechunlearn.evaluate.measure import measure
from mechunlearn.facts import MEASURED, Fact, Prompt, roles, sports, text
from mechunlearn.facts.text import Passage
from mechunlearn.models.model import Model
from mechunlearn.registry import load as method

FORMATS = (
    "completion", "question", "profession", "famous", "few-shot", "system-expert", "system-original", "choice-text",
    "choice-letter",
)  # of config.yaml  # fmt: skip
TEXT = "held-out text"
PASSAGES = "src/mechunlearn/resources/text/passages.jsonl"
BAR, BARS = 8, {"bfloat16": 1e-3, "float32": 1e-5}
NUMBERS = ("p_true", "p_new", "p_options", "nll")
VERDICTS = ("rank", "choice", "argmax")

Rows = list[dict[str, Any]]


@dataclass
class Measured:
    """What both made of one format: seconds and rows."""

    ours: float
    loop: float
    mine: Rows
    theirs: Rows


def task(model: Model, count: int) -> list[Fact]:
    """So many known facts in the roles of a task, up to 16 to forget, without those that only an edit sees."""
    known = common.known(model, count)
    rules = TaskSettings(facts="sports", forget=min(16, count // 4), maintain_test=0.4)
    every = roles.assign(known, [True] * len(known), rules, sports.wrong_sport)
    return [fact for fact in every if fact.role in MEASURED]


def ours(model: Model, facts: Sequence[Fact], passages: Sequence[Passage], name: str) -> Rows:
    """One format, or the texts."""
    if name == TEXT:
        return measure(model, (), passages, (), "base", 0)
    return measure(model, facts, (), [name], "base", 0)


def loop(model: Model, facts: Sequence[Fact], passages: Sequence[Passage], name: str) -> Rows:
    """The same, a record at a time."""
    if name == TEXT:
        return [passage_row(model, passage) for passage in passages]
    return [prompt_row(model, prompt) for prompt in asked(facts, name)]


def asked(facts: Sequence[Fact], name: str) -> Iterator[Prompt]:
    """A format's prompts, in the order of `measure`."""
    for fact in (*facts, *(roles.neighbors(facts) if name == "completion" else ())):
        yield from method("elicitation", name)(fact)


@torch.no_grad()
def prompt_row(model: Model, prompt: Prompt) -> dict[str, Any]:
    """One forward."""
    ids = torch.tensor([model.encode(prompt.text)], device=model.device)
    probabilities = model.network(input_ids=ids).logits[0, -1].float().softmax(-1)
    options = [probabilities[model.option(option)].item() for option in prompt.options]
    return {
        "fact": prompt.fact,
        "order": prompt.order,
        "p_true": options[prompt.true],
        "p_new": math.nan if prompt.new is None else options[prompt.new],
        "p_options": sum(options),
        "rank": int((probabilities > options[prompt.true]).sum()) + 1,
        "choice": {prompt.true: "true", prompt.new: "new"}.get(options.index(max(options)), "other"),
        "argmax": model.tokenizer.decode(int(probabilities.argmax())),
        "nll": math.nan,
    }


@torch.no_grad()
def passage_row(model: Model, passage: Passage) -> dict[str, Any]:
    """One forward."""
    ids = torch.tensor([model.encode(passage.text)], device=model.device)
    logits = model.network(input_ids=ids).logits[0, :-1].float()
    nll = torch.nn.functional.cross_entropy(logits, ids[0, 1:]).item()
    return {"fact": passage.id, "order": 0, "rank": 0, "choice": "", "argmax": "", "nll": nll}


def differences(found: Rows, expected: Rows) -> dict[str, torch.Tensor]:
    """By how much each number differs, of those rows that have it. The rows must be of the same records."""
    by_number = {}
    for key in NUMBERS:
        pairs = []
        for row, other in zip(found, expected, strict=True):
            same = (row["fact"], row["order"]) == (other["fact"], other["order"])
            first, second = row.get(key, math.nan), other.get(key, math.nan)  # a text has no probabilities
            if not same or math.isnan(first) != math.isnan(second):
                raise SystemExit(f"the rows of {row['fact']} and {other['fact']} cannot be compared.")
            if not math.isnan(first):
                pairs.append(first - second)
        if pairs:
            by_number[key] = torch.tensor(pairs, dtype=torch.float64)
    return by_number


def rms(found: Rows, expected: Rows) -> float:
    """Over all rows and numbers."""
    return torch.cat(list(differences(found, expected).values())).square().mean().sqrt().item()


def other_verdicts(found: Rows, expected: Rows) -> int:
    """How many rows have another rank, choice or likeliest token."""
    return sum(any(row[key] != other[key] for key in VERDICTS) for row, other in zip(found, expected, strict=True))


def beside(model: Model, facts: Sequence[Fact], passages: Sequence[Passage], name: str) -> Measured:
    """Both, one after the other."""
    for run in (ours, loop):
        run(model, facts[:1], passages[:1], name)  # warms up
    mine_in, mine = common.seconds(lambda: ours(model, facts, passages, name))
    theirs_in, theirs = common.seconds(lambda: loop(model, facts, passages, name))
    return Measured(mine_in, theirs_in, mine, theirs)


def line(dtype: str, name: str, each: Measured) -> list[Any]:
    """A format's line of the table."""
    found = differences(each.mine, each.theirs).values()
    return [
        dtype,
        name,
        len(each.mine),
        each.ours,
        each.loop,
        each.loop / each.ours,
        max(gap.abs().max().item() for gap in found),
        rms(each.mine, each.theirs),
        max(gap.mean().abs().item() for gap in found),
        other_verdicts(each.mine, each.theirs),
    ]


def together(each: Sequence[Measured]) -> Measured:
    """Several formats as one."""
    mine, theirs = [row for one in each for row in one.mine], [row for one in each for row in one.theirs]
    return Measured(sum(one.ours for one in each), sum(one.loop for one in each), mine, theirs)


def main() -> None:
    """Measure and print."""
    count, texts = (8, 3) if common.quick(__doc__) else (131, 48)  # 62 facts are measured: the default study
    _, passages = text.split(text.read(PASSAGES), texts)
    facts: list[Fact] = []
    found: dict[str, dict[str, Measured]] = {}
    for dtype in reversed(BARS):
        model = common.model(dtype)
        facts = facts or task(model, count)  # as float32 knows them
        found[dtype] = {}
        for name in (*FORMATS, TEXT):
            found[dtype][name] = beside(model, facts, passages, name)
        del model
    rows, whole, prompts, largest = [], {}, {}, {}
    for dtype, by_name in found.items():
        prompts[dtype] = together([each for name, each in by_name.items() if name != TEXT])
        whole[dtype] = together(list(by_name.values()))
        rows += [line(dtype, name, each) for name, each in by_name.items()]
        rows += [line(dtype, "all formats", prompts[dtype]), line(dtype, "all", whole[dtype])]
        largest[dtype] = max(row[6] for row in rows if row[0] == dtype)
    ratios = {dtype: each.loop / each.ours for dtype, each in whole.items()}
    of_prompts = {dtype: each.loop / each.ours for dtype, each in prompts.items()}
    of_text = {dtype: by_name[TEXT].loop / by_name[TEXT].ours for dtype, by_name in found.items()}
    means = {dtype: max(row[8] for row in rows if row[0] == dtype and row[1] in by) for dtype, by in found.items()}
    exact = whole["float32"].theirs
    off = {
        name: rms(taken, exact)
        for name, taken in (("ours", whole["bfloat16"].mine), ("loop", whole["bfloat16"].theirs))
    }
    notes = [
        f"{dtype}: the loop takes {ratios[dtype]:.1f} times our seconds (bar: {BAR}), {of_prompts[dtype]:.1f} for "
        f"the formats, {of_text[dtype]:.1f} for text, of which both need every logit; largest difference "
        f"{largest[dtype]:.2g} (bar: {bar:.0e}), of a format's means {means[dtype]:.2g}"
        for dtype, bar in BARS.items()
    ]
    common.report(
        "evaluation",
        ["", "", "rows", "s ours", "s loop", "ratio", "largest", "rms", "of means", "other verdicts"],
        rows,
        [
            f"{len(facts)} facts, {texts} passages; differences of {', '.join(NUMBERS)}: largest, root mean square,",
            "largest of a number's means; other verdicts: rows with another rank, choice or likeliest token",
            *notes,
            f"rms distance of bfloat16 from the loop's float32: ours {off['ours']:.2g}, loop {off['loop']:.2g}",
        ],
        ratio=ratios["bfloat16"],
        max_abs_difference=largest["float32"],
        n=len(facts),
        ratios=ratios,
        ratios_formats=of_prompts,
        ratios_text=of_text,
        max_abs_differences=largest,
        rms_differences={dtype: rms(each.mine, each.theirs) for dtype, each in whole.items()},
        max_mean_differences=means,
        rms_from_float32=off,
    )


if __name__ == "__main__":
    main()
