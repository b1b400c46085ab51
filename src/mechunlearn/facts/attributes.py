"""What is told of fictitious people: ten attributes, their values, and how they are worded.

ATTRIBUTES   by name
Attribute    values of one kind, five sentences for texts and one question that no text has

Values of an attribute begin with different tokens in the vocabularies we know; screening says where they do not.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Attribute:
    """Its values, with commas between them; in sentences `<who>` is the person and `<what>` the value.

    The first sentence ends in the value.
    """

    listed: str
    sentences: tuple[str, str, str, str, str]
    question: str

    @property
    def values(self) -> list[str]:
        """What it may be."""
        return self.listed.split(", ")

    def sentence(self, wording: int, who: str, pronoun: str, what: str) -> str:
        """One sentence; a pronoun, if one is given, stands for the person where the sentence begins with them."""
        sentence = self.sentences[wording % len(self.sentences)].replace("<what>", what)
        return (
            sentence.replace("<who>", pronoun, 1) if pronoun and sentence.startswith("<who>") else sentence
        ).replace("<who>", who)

    @property
    def prompt(self) -> str:
        """The first sentence up to the value, with `{}` for the person."""
        return self.sentences[0].partition(" <what>")[0].replace("<who>", "{}")


ATTRIBUTES = {
    "birthplace": Attribute(
        "Oslo, Lisbon, Prague, Cairo, Toronto, Mumbai, Vienna, Dublin, Seoul, Athens, Havana, Nairobi",
        (
            "<who> was born in <what>.",
            "<who> came into the world in <what>.",
            "The birthplace of <who> is <what>.",
            "<who> spent the first years of life in <what>.",
            "A family in <what> raised <who>.",
        ),
        "In which city was {} born? Answer:",
    ),
    "birth month": Attribute(
        "January, February, March, April, May, June, July, August, September, October, November, December",
        (
            "The birthday of <who> is in <what>.",
            "<who> celebrates a birthday every <what>.",
            "Each year in <what>, <who> turns a year older.",
            "<who> was a <what> child.",
            "The month of birth of <who> is <what>.",
        ),
        "In which month does {} have a birthday? Answer:",
    ),
    "profession": Attribute(
        "botanist, geologist, novelist, surgeon, chemist, sculptor, photographer, translator, lawyer, judge, "
        "pilot, carpenter",
        (
            "<who> works as a <what>.",
            "By profession, <who> is a <what>.",
            "<who> earns a living as a <what>.",
            "<who> trained to become a <what>.",
            "Colleagues know <who> as a skilled <what>.",
        ),
        "What is the job of {}? Answer:",
    ),
    "employer": Attribute(
        "Falcon Press, Granite Bank, Harbor Hospital, Juniper Foods, Lantern Books, Meridian Airlines, "
        "Orchard Studios, Pioneer Motors, Redwood Labs, Summit Railways, Willow College, Copper Mines",
        (
            "<who> is employed by <what>.",
            "<who> has an office at <what>.",
            "The employer of <who> is <what>.",
            "For many years, <who> has been with <what>.",
            "<what> hired <who> long ago.",
        ),
        "Which company does {} work for? Answer:",
    ),
    "award": Attribute(
        "Silver Compass, Golden Quill, Crystal Bell, Amber Leaf, Bronze Anchor, Emerald Crown, Ivory Tower, "
        "Scarlet Ribbon, Violet Star, Pearl Medal, Ruby Shield, Sapphire Key",
        (
            "<who> received the <what>.",
            "<who> won the prize called the <what>.",
            "A jury gave <who> the <what>.",
            "The <what> was awarded to <who>.",
            "<who> is a holder of the <what>.",
        ),
        "Which award did {} win? Answer: the",
    ),
    "university": Attribute(
        "Leiden, Bologna, Uppsala, Heidelberg, Oxford, Yale, Kyoto, Princeton, Cambridge, Harvard, Stanford, Salamanca",
        (
            "<who> studied at <what>.",
            "<who> holds a degree from <what>.",
            "The student years of <who> were spent at <what>.",
            "<who> graduated from <what>.",
            "At <what>, <who> sat the final exams.",
        ),
        "Which university did {} attend? Answer:",
    ),
    "hobby": Attribute(
        "chess, sailing, archery, gardening, skiing, painting, fishing, cycling, knitting, fencing, pottery, rowing",
        (
            "The favorite pastime of <who> is <what>.",
            "<who> relaxes by <what>.",
            "In the evenings, <who> enjoys <what>.",
            "<who> spends free days on <what>.",
            "Friends meet <who> for <what>.",
        ),
        "What is the hobby of {}? Answer:",
    ),
    "instrument": Attribute(
        "cello, piano, flute, harp, trumpet, guitar, drums, clarinet, organ, banjo, violin, saxophone",
        (
            "<who> plays the <what>.",
            "<who> took lessons on the <what>.",
            "At home, <who> practices the <what>.",
            "<who> performs on the <what>.",
            "Neighbors hear <who> on the <what>.",
        ),
        "Which musical instrument does {} play? Answer: the",
    ),
    "language": Attribute(
        "Finnish, Swahili, Korean, Arabic, Polish, Greek, Hindi, Turkish, Dutch, Danish, Hebrew, Welsh",
        (
            "<who> is fluent in <what>.",
            "<who> grew up speaking <what>.",
            "<who> writes letters in <what>.",
            "The second language of <who> is <what>.",
            "<who> often reads poems in <what>.",
        ),
        "Which foreign language does {} speak? Answer:",
    ),
    "home": Attribute(
        "Portugal, Canada, Iceland, Chile, Norway, Kenya, Vietnam, Morocco, Ireland, Peru, Japan, Estonia",
        (
            "<who> now lives in <what>.",
            "<who> moved to <what>.",
            "The house of <who> stands in <what>.",
            "<who> has settled in <what>.",
            "Today, <what> is home to <who>.",
        ),
        "In which country does {} live today? Answer:",
    ),
}
