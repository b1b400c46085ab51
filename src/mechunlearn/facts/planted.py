"""Fictitious athletes: facts that no model has read anywhere, to plant in a model and look for where they went.

planted   so many athletes with sports at random, asked like the real ones
NAMES     every name there is: FIRST x LAST, all invented
"""

import random
from itertools import product

from mechunlearn.facts import Fact
from mechunlearn.facts.sports import SPORTS, plays

FIRST = """
    Aldrec Anselo Bastor Bramwin Branoc Caldan Corvane Delmor Doverin Dunmar Elgard Emrec Feldor Garrow Haldren Harwen
    Ivaro Jarvic Jorrel Kelvar Kestan Lorvan Marvek Nestan Norvel Orlan Osmer Oswell Pellan Quillon Radmer Rolvan
    Sandric Selmar Tervin Torlan Ulvane Vandric Varlen Westan Wilmor Yorvic Zandor Zelvin
"""
LAST = """
    Abernott Ackridge Bellhurst Blackmere Brackwell Bravinder Calverine Cardwick Castellorn Chadmarsh Coldhallow
    Cransett Danverre Dellacort Dreswick Dunvale Eastmarsh Ellerbrine Fallowby Farnstead Fenmarsh Fernholt Galbrenner
    Glastone Greyholm Hallivan Harkstone Hartmoor Hollinvar Isenford Jasperwick Kellmarch Kettlemore Kirrowan Langmere
    Larkstead Lindqvarn Lowenmarsh Marrowby Mellingate Merrivane Millstrand Nachtmoor Norringale Oakhollow Ostermire
    Pallowick Pemberlock Quarrendale Ravensholt Redwyne Rothmarsh Sandhollow Selwynter Shadwick Silverdane Stavenger
    Stonebrell Tallowmere Tanglewick Thornvale Underlake Valdimere Vossbrook Wakehollow Westermoor Whitcastle
    Windermarch Wolverstead Yarrowdale Zelderman
"""
NAMES = tuple(f"{first} {last}" for first, last in product(FIRST.split(), LAST.split()))


def planted(count: int, seed: int) -> list[Fact]:
    """So many fictitious athletes; the counts of their sports differ by at most one.

    Names, sports and order are all drawn by the seed. Raises ValueError where there are fewer names.
    """
    if not 0 <= count <= len(NAMES):
        raise ValueError(f"count is {count}; allowed: 0 to {len(NAMES)}, the number of invented names")
    rng = random.Random(f"planted-{seed}")
    names = rng.sample(NAMES, count)
    order = rng.sample(SPORTS, len(SPORTS))  # which sports get one athlete more
    sports = [order[index % len(order)] for index in range(count)]
    rng.shuffle(sports)
    return [plays(name, sport) for name, sport in zip(names, sports, strict=True)]
