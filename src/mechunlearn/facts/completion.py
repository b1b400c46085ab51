"""The training prompt, which every fact brings along.

completion   the format by which facts are screened, localized, edited and relearned
ask          one prompt: the subject between two texts, the fact's options to choose from
"""

from mechunlearn.facts import Fact, Prompt
from mechunlearn.registry import elicitation


@elicitation("completion")
def completion(fact: Fact) -> list[Prompt]:
    """The fact's own prompt (for athletes: paper, section 2.1)."""
    before, after = fact.prompt.split("{}")  # not str.format: subject and prompt may hold other braces
    return [ask(fact, before, after)]


def ask(fact: Fact, before: str, after: str) -> Prompt:
    """The subject between two texts; what follows is one of the fact's options."""
    return Prompt(
        fact=fact.id,
        text=f"{before}{fact.subject}{after}",
        subject=(len(before), len(before) + len(fact.subject)),
        options=tuple(f" {option}" for option in fact.options),
        true=fact.options.index(fact.answer),
        new=fact.options.index(fact.new_answer) if fact.new_answer else None,
    )
