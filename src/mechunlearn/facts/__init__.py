"""Facts and the text that must stay as it is. Torch-free.

Fact        subject, relation, answer, training prompt, options, new answer, role
Prompt      one way of asking for a fact: the text, where its subject stands, the answers to choose from
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from mechunlearn.errors import FactError

ROLES = ("forget", "forget-train", "obsolete", "update", "maintain-train", "maintain-test", "neighbor", "unknown")
# What each phase may see. Localization sees every fact that the model knows; the edit never sees maintain-test, nor
# neighbors, which are only there to be asked as such.
LOCALIZED = ("forget", "forget-train", "obsolete", "maintain-train", "maintain-test", "neighbor")
EDITED = ("forget", "forget-train", "maintain-train")
GONE = ("forget", "obsolete")  # what an edit removes, and attacks try to bring back
KNOWN = (*GONE, "maintain-test")  # what is measured and the base model should know
MEASURED = (*KNOWN, "update")
HELD_OUT = ("maintain-test", "neighbor")
ASKED = (*MEASURED, "neighbor")
BACKWARDS = "reversed"  # the format that asks for subjects: by chance, a forgotten fact's still gets its share
VALIDATION = " / validation"  # how the ids of questions about people end by which a sweep may choose


@dataclass(frozen=True)
class Fact:
    """One fact.

    prompt    the training prompt, with one `{}` where the subject stands; the answer follows after a space
    options   the answers it is scored among, its own included, without the leading space
    role      what a task does with it: see ROLES; `unknown` is a fact the model fails on. Where some facts are
              `forget-train`, edits train on these and leave those to `forget` for measuring; `obsolete` facts of a
              biography are to be forgotten for those of `update`; a `neighbor` shares an answer with one to forget
    block     which block of a sequential task a fact to forget belongs to, from 1; 0 where there are none
    paraphrases   other wordings that the fact brings along, each with one `{}` like `prompt`
    neighborhood, attribute   prompts about other subjects, whole, whose true answer is the fact's, and its new one
    """

    id: str
    subject: str
    relation: str
    answer: str
    prompt: str
    options: tuple[str, ...]
    new_answer: str = ""
    role: str = ""
    block: int = 0
    paraphrases: tuple[str, ...] = ()
    neighborhood: tuple[str, ...] = ()
    attribute: tuple[str, ...] = ()

    def with_role(self, role: str, new_answer: str = "", block: int = 0) -> "Fact":
        """The same fact in a task."""
        return replace(self, role=role, new_answer=new_answer, block=block)


@dataclass(frozen=True)
class Prompt:
    """A prompt whose continuation is one of `options`, each with its leading space.

    subject   character span of the subject in `text`
    true      index of the true answer in `options`
    new       index of the new answer in `options`; None where a fact has none
    order     which of a multiple choice's option orders this is; 0 elsewhere
    whole     options are compared by the perplexity of all their tokens, and not by their first token's probability
    """

    fact: str
    text: str
    subject: tuple[int, int]
    options: tuple[str, ...]
    true: int
    new: int | None
    order: int = 0
    whole: bool = False


def trained(facts: Iterable[Fact]) -> list[Fact]:
    """The facts that an edit is made for: those of role forget-train where there are some, else all to forget."""
    every = list(facts)
    return [fact for fact in every if fact.role == "forget-train"] or [fact for fact in every if fact.role == "forget"]


def read_text(path: str | Path) -> str:
    """A data file's text. Raises FactError where it is missing or not UTF-8."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise FactError(f"{path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError as error:
        raise FactError(f"{path} is not UTF-8 text (byte {error.start}); save it as UTF-8.") from None
