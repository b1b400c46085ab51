"""Facts in the other wordings that they bring along: facts of your own, and CounterFact's.

paraphrase   the format: one prompt a wording, averaged within a fact
"""

from dataclasses import replace

from mechunlearn.facts import Fact, Prompt
from mechunlearn.facts.completion import ask
from mechunlearn.registry import elicitation


@elicitation("paraphrase")
def paraphrase(fact: Fact) -> list[Prompt]:
    """Every other wording of the fact (paraphrase prompts of Meng et al. 2022, section 3.3); none for one without."""
    halves = [wording.split("{}") for wording in fact.paraphrases]
    return [replace(ask(fact, before, after), order=number) for number, (before, after) in enumerate(halves)]
