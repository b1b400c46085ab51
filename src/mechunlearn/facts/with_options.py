"""Multiple choice, in every cyclic order of the options, so that no answer owes anything to its place.

choice-text     answered with the option's words
choice-letter   answered with a letter, after a worked example that moves with the order
offered         the options a fact is offered: its answer, its new answer, and others of its relation

Athletes are asked in sentences of their own (paper, section 3.1.1), all other facts in their training prompt's.
"""

import random
from dataclasses import replace

from mechunlearn.facts import Fact, Prompt, sports
from mechunlearn.facts.completion import ask
from mechunlearn.registry import elicitation

LETTERS = "ABCD"
EXAMPLE, COLORS = "The color of grass is", ("green", "white", "purple", "black")


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
        listed = "\n".join(f"{letter}. {option}" for letter, option in zip(letters, turned.options, strict=True))
        if fact.options == sports.OPTIONS:
            task, example, shown = "Answer each question", "What sport does Tiger Woods play?", listed
            right = letters[turned.options.index("golf")]
            before, after = "What sport does ", f" play?\n{listed}\nAnswer:"
        else:
            task, example, right = "Complete each sentence", EXAMPLE, letters[-number % len(letters)]
            colors = COLORS[: len(letters)]
            shown = "\n".join(
                f"{letter}. {color}" for letter, color in zip(letters, colors[number:] + colors[:number], strict=True)
            )
            before, _, after = turned.prompt.rpartition("\n")[2].removeprefix("Fact: ").partition("{}")
            after = f"{after}\n{listed}\nAnswer:"
        before = f"{task} with one letter.\n\n{example}\n{shown}\nAnswer: {right}\n\n{before}"
        prompt = ask(turned, before, after)
        prompts.append(replace(prompt, options=tuple(f" {letter}" for letter in letters), order=number))
    return prompts


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
