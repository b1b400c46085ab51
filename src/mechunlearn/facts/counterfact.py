"""Facts of many relations in the manner of CounterFact (Meng et al. 2022), written for this project.

read            data/counterfact/facts.csv -> facts
RELATIONS       how each relation is asked for: the training prompt first, then paraphrases of it
Relation        a worked example and four wordings
other_answer    the new answer of a task: another answer of the relation
paraphrase-1    and -2, -3: the elicitations that ask in the relation's other wordings
"""

import csv
import io
import random
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from mechunlearn.errors import FactError
from mechunlearn.facts import Fact, Prompt, read_text
from mechunlearn.facts.completion import ask
from mechunlearn.registry import elicitation


@dataclass(frozen=True)
class Relation:
    """How a relation is asked for: by a worked example, and in so many wordings, the training prompt's first.

    The example, as with athletes, tells a small model what kind of answer is wanted; neither its subject nor its
    answer is in the data, so that it favours none.
    """

    example: tuple[str, str]
    wordings: tuple[str, str, str, str]

    def prompt(self, wording: int = 0) -> str:
        """The example and, with one `{}`, the fact in one wording."""
        subject, answer = self.example
        return f"Fact: {self.wordings[wording].replace('{}', subject)} {answer}\nFact: {self.wordings[wording]}"


RELATIONS = {
    "animal-class": Relation(
        ("starfish", "echinoderms"),
        (
            "The animal called {} belongs to the class of",
            "Zoologists count the {} among the",
            "In biology, the {} is grouped with the",
            "Like its relatives, the {} is one of the",
        ),
    ),
    "author": Relation(
        ("Don Quixote", "Cervantes"),
        (
            "{} was written by",
            "The author of {} is",
            "Readers know {} as a work of",
            "The person who wrote {} was",
        ),
    ),
    "birth-city": Relation(
        ("Wolfgang Amadeus Mozart", "Salzburg"),
        (
            "{} was born in the city of",
            "{} is a native of",
            "The birthplace of {} is",
            "{} first saw the light of day in",
        ),
    ),
    "capital": Relation(
        ("Latvia", "Riga"),
        (
            "The capital of {} is",
            "The seat of the government of {} is the city of",
            "{} is a country whose capital city is called",
            "Embassies to {} are found in its capital,",
        ),
    ),
    "citizenship": Relation(
        ("Nelson Mandela", "South Africa"),
        (
            "{} is a citizen of",
            "The country of citizenship of {} is",
            "{} holds the nationality of",
            "The home country of {} is",
        ),
    ),
    "city-country": Relation(
        ("Sydney", "Australia"),
        (
            "The city of {} is located in the country of",
            "{} is a city in",
            "The country in which you find {} is",
            "People who live in {} live in",
        ),
    ),
    "company-country": Relation(
        ("Heineken", "the Netherlands"),
        (
            "The company {} was founded in the country of",
            "The home country of the company {} is",
            "{} is a company from",
            "The business of {} was started in",
        ),
    ),
    "composer": Relation(
        ("The Four Seasons", "Vivaldi"),
        (
            "{} was composed by",
            "The composer of {} is",
            "The music of {} is by",
            "The person who composed {} was",
        ),
    ),
    "continent": Relation(
        ("Fiji", "Oceania"),
        (
            "{} is located on the continent of",
            "{} is a part of the continent called",
            "The continent on which {} lies is",
            "On a map, {} is found in",
        ),
    ),
    "currency": Relation(
        ("Sweden", "krona"),
        (
            "The currency of {} is called the",
            "In {}, people pay with the",
            "Prices in {} are given in the national currency, the",
            "The money that is used in {} is the",
        ),
    ),
    "developer": Relation(
        ("Minecraft", "Mojang"),
        (
            "{} was developed by",
            "The developer of {} is",
            "{} is a product of the developers at",
            "The company that created {} is",
        ),
    ),
    "director": Relation(
        ("Gladiator", "Scott"),
        (
            "The film {} was directed by",
            "The director of {} is",
            "{} is a movie by the director",
            "The person who directed {} was",
        ),
    ),
    "dish-country": Relation(
        ("kimchi", "Korea"),
        (
            "The dish {} comes from",
            "The country of origin of {} is",
            "{} is a specialty of",
            "Cooks first made {} in",
        ),
    ),
    "field-of-work": Relation(
        ("Charles Darwin", "biology"),
        (
            "{} is famous for work in the field of",
            "The field in which {} worked is",
            "{} is remembered as an expert in",
            "The main subject of the research of {} was",
        ),
    ),
    "genre": Relation(
        ("Bill Monroe", "bluegrass"),
        (
            "The music of {} is best described as",
            "The genre of music that {} plays is",
            "{} is a well-known name in the world of",
            "If you listen to {}, you hear",
        ),
    ),
    "headquarters": Relation(
        ("Spotify", "Stockholm"),
        (
            "The headquarters of {} is in",
            "{} is based in the city of",
            "The head office of {} stands in",
            "The city from which {} is run is",
        ),
    ),
    "instrument": Relation(
        ("Earl Scruggs", "banjo"),
        (
            "The instrument that {} is best known for playing is the",
            "On stage, {} plays the",
            "{} became a famous musician by playing the",
            "{} is a master of the",
        ),
    ),
    "landmark-city": Relation(
        ("The Burj Khalifa", "Dubai"),
        (
            "{} can be found in the city of",
            "To see {}, tourists travel to",
            "{} is a famous sight in",
            "The city in which {} stands is",
        ),
    ),
    "manufacturer": Relation(
        ("The Galaxy S9", "Samsung"),
        (
            "{} is produced by",
            "The manufacturer of {} is",
            "{} is a product made by",
            "The company that makes {} is",
        ),
    ),
    "mother-tongue": Relation(
        ("Orhan Pamuk", "Turkish"),
        (
            "The mother tongue of {} is",
            "The native language of {} is",
            "{} grew up speaking",
            "As a child, {} learned to speak",
        ),
    ),
    "network": Relation(
        ("Doctor Who", "BBC"),
        (
            "{} was originally aired on",
            "The television network that first showed {} is",
            "{} premiered on",
            "Viewers first saw {} on",
        ),
    ),
    "occupation": Relation(
        ("Ludwig van Beethoven", "composer"),
        (
            "{} became famous as a",
            "{} is best known as a",
            "By profession, {} was a",
            "People remember {} as a great",
        ),
    ),
    "official-language": Relation(
        ("Iran", "Persian"),
        (
            "The official language of {} is",
            "The laws of {} are written in its official language,",
            "In the schools and offices of {}, people speak",
            "The government of {} uses the language",
        ),
    ),
    "original-language": Relation(
        ("One Thousand and One Nights", "Arabic"),
        (
            "The original language of {} is",
            "{} was first made in the language",
            "The language in which {} was created is",
            "Without translation, {} is in",
        ),
    ),
    "painter": Relation(
        ("The Scream", "Edvard Munch"),
        (
            "{} was painted by",
            "The painter of {} is",
            "{} is a painting by",
            "The artist who painted {} was",
        ),
    ),
    "position": Relation(
        ("Shaquille O'Neal", "center"),
        (
            "The position that {} plays on the field is",
            "In sports, {} is known as a player in the position of",
            "{} played the position of",
            "On the team, {} had the role of",
        ),
    ),
    "religion": Relation(
        ("Bob Marley", "Rastafari"),
        (
            "The religion of {} is",
            "{} is associated with the religion of",
            "The faith of {} is",
            "{} belongs to the religion called",
        ),
    ),
    "team-sport": Relation(
        ("THW Kiel", "handball"),
        (
            "The team {} plays the sport of",
            "The sport that {} is known for is",
            "{} is a professional team in",
            "Fans of {} like to watch",
        ),
    ),
}


def read(path: str | Path) -> list[Fact]:
    """Facts in file order, each scored among the answers of its relation. Raises FactError naming the row."""
    rows: dict[tuple[str, str], str] = {}
    answers = defaultdict[str, dict[str, None]](dict)
    with io.StringIO(read_text(path), newline="") as file:
        table = csv.DictReader(file)
        if table.fieldnames != ["relation", "subject", "answer"]:
            raise FactError(f"{path}: the columns must be relation, subject, answer, but are {table.fieldnames}.")
        for number, row in enumerate(table, start=2):
            relation, subject, answer = row["relation"], row["subject"], row["answer"]
            if relation not in RELATIONS:
                raise FactError(f"{path}, row {number}: relation is {relation!r}; allowed: {', '.join(RELATIONS)}.")
            for name, value in (("subject", subject), ("answer", answer)):
                if not value or value != value.strip():
                    raise FactError(f"{path}, row {number}: {name} is {value!r}; it must be text without padding.")
            if (relation, subject) in rows:
                raise FactError(f"{path}, row {number}: {subject!r} stands in {relation!r} twice.")
            rows[relation, subject] = answer
            answers[relation][answer] = None
    lonely = [relation for relation, found in answers.items() if len(found) < 2]
    if lonely:
        raise FactError(f"{path}: {lonely[0]!r} has one answer; allowed: two or more in each relation.")
    return [
        Fact(
            f"{subject} / {relation}", subject, relation, answer, RELATIONS[relation].prompt(), tuple(answers[relation])
        )
        for (relation, subject), answer in rows.items()
    ]


def other_answer(fact: Fact, rng: random.Random) -> str:
    """Another answer of the fact's relation, at random (Meng et al. 2022 draw theirs so)."""
    return rng.choice([option for option in fact.options if option != fact.answer])


@elicitation("paraphrase-1")
def paraphrase_1(fact: Fact) -> list[Prompt]:
    """The relation's second wording."""
    return _reworded(fact, 1)


@elicitation("paraphrase-2")
def paraphrase_2(fact: Fact) -> list[Prompt]:
    """The relation's third wording."""
    return _reworded(fact, 2)


@elicitation("paraphrase-3")
def paraphrase_3(fact: Fact) -> list[Prompt]:
    """The relation's fourth wording."""
    return _reworded(fact, 3)


def _reworded(fact: Fact, wording: int) -> list[Prompt]:
    """Raises FactError for a fact of another dataset."""
    if fact.relation not in RELATIONS:
        raise FactError(
            f"{fact.id!r} is of the relation {fact.relation!r}, which has no other wordings; allowed: "
            f"{', '.join(RELATIONS)}."
        )
    before, after = RELATIONS[fact.relation].prompt(wording).split("{}")
    return [ask(fact, before, after)]
