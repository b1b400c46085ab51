"""Multiple choice, in every cyclic order of the options, so that no answer owes anything to its place.

choice-text     answered with the option's words
choice-letter   answered with a letter, after a worked example that stays as it is
offered         the options a fact is offered: its answer, its new answer, and others of its relation

Athletes are asked in sentences of their own (paper, section 3.1.1), all other facts in their training prompt's. The
example's letter does not turn with the options, so each of them stands at the letter that a model may copy once. In the
paper's order golf is D, and D the example's answer: a model edited to say golf need only copy.
"""

import random
from collections.abc import Sequence
from dataclasses import replace

from mechunlearn.facts import Fact, Prompt, sports
from mechunlearn.facts.completion import ask
from mechunlearn.registry import elicitation

LETTERS = "ABCD"
COLORS, RIGHT = ("white", "green", "purple", "black"), "B"  # grass is green


@elicitation("choice-text")
def choice_text(fact: Fact) -> list[Prompt]:
    """Multiple choice answered with the option's words."""
    prompts = []
    for number, turned in enumerate(_orders(fact)):
        *others, last = turned.options
        listed = f"Options: {', '.join(others)} or {last}.\n"
        if fact.options == sports.OPTIONS:
            before, after = f"{listed}Which of these sports does {fact.subject} play? ", " plays"
        else:
            whole, after = turned.prompt.split("{}")
            head, line, sentence = whole.rpartition("\n")
            before = f"{head}{line}{listed}{sentence}"
        prompts.append(replace(ask(turned, before, after), order=number))
    return prompts


@elicitation("choice-letter")
def choice_letter(fact: Fact) -> list[Prompt]:
    """Multiple choice answered with a letter."""
    prompts = []
    for number, turned in enumerate(_orders(fact)):
        letters = LETTERS[: len(turned.options)]
        if fact.options == sports.OPTIONS:
            task, example = "Answer each question", "What color is grass?"
            before, after = "What sport does ", " play?"
        else:
            task, example = "Complete each sentence", "The color of grass is"
            before, after = turned.prompt.split("{}")
            before = before.rpartition("\n")[2].removeprefix("Fact: ")
        shown = f"{example}\n{_listed(letters, COLORS)}\nAnswer: {RIGHT}"
        before = f"{task} with one letter.\n\n{shown}\n\n{before}"
        prompt = ask(turned, before, f"{after}\n{_listed(letters, turned.options)}\nAnswer:")
        prompts.append(replace(prompt, options=tuple(f" {letter}" for letter in letters), order=number))
    return prompts


def _listed(letters: str, options: Sequence[str]) -> str:
    return "\n".join(f"{letter}. {option}" for letter, option in zip(letters, options, strict=False))


def offered(fact: Fact) -> tuple[str, ...]:
    """Up to four options in the relation's order: true and new answer, and others drawn by the fact's id."""
    needed = [option for option in (fact.answer, fact.new_answer) if option]
    others = [option for option in fact.options if option not in needed]
    drawn = random.Random(f"options-{fact.id}").sample(others, min(len(others), len(LETTERS) - len(needed)))
    return tuple(option for option in fact.options if option in {*needed, *drawn})


def _orders(fact: Fact) -> list[Fact]:
    """The fact with the options it is offered, in every cyclic order."""
    options = offered(fact)
    return [replace(fact, options=options[shift:] + options[:shift]) for shift in range(len(options))]
