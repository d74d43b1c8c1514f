"""Sentences made up with a fixed seed: free text, which shares next to no prefixes, and templates, which share many.

They stand for movie reviews and for probing sets such as "The city of X is in Y."; real files are given by --texts.
"""

from __future__ import annotations

import random
from collections.abc import Callable

SEED = 20


def _words(text: str, separator: str | None = None) -> tuple[str, ...]:
    """The words of a text, or what stands between separators; lines may break anywhere."""
    return tuple(" ".join(word.split()) for word in text.split(separator))


OPENERS = _words(
    """
    although after because before despite even every for given here if in instead it just less like most much no not
    nothing of once only our perhaps rarely seldom since so some still such that the their there these this though
    to too two under until we what when where while who with without you a an and as at both but by few from how my
    never now on
    """
)
NOUNS = _words(
    """
    actor affair audience camera cast chase comedy copy crime dialogue director drama dream ending enemy fable
    family fight film friend ghost hero history hour house humour idea irony joke journey kitchen landscape laughter
    lesson letter light love machine marriage memory mirror moment mood mother music mystery night novel orchestra
    performance picture plot poem prison promise puzzle question railway revenge rhythm river romance scene screen
    script secret sequel shadow silence sister soldier song soundtrack stage story street studio summer surprise
    teacher tension thriller tone tragedy train truth village villain voice war wedding window winter witness writer
    """
)
ADJECTIVES = _words(
    """
    absurd ambitious awkward bitter bland bleak bold brisk careful charming clumsy cold crowded cruel dazzling
    delicate dull earnest elegant empty familiar fierce flat forgettable fragile funny gentle glossy grim hollow
    honest hurried intimate lazy lively lonely lush mechanical modest moving noisy odd overlong patient playful
    predictable quiet restless rich sad sharp shallow sincere sleek slow smart solemn stale strange subtle
    surprising tender thin tired uneven vivid warm weary witty
    """
)
VERBS = _words(
    """
    abandons admires answers avoids becomes borrows breaks buries carries celebrates changes collects confuses
    crosses deserves discovers earns escapes exhausts explains finds follows forgets forgives haunts hides ignores
    imagines invents joins keeps leaves loses misses needs offers outlives paints questions reaches recalls refuses
    rescues reveals saves searches shapes steals studies survives teaches tests turns wastes watches
    """
)
LINKS = _words(
    """
    and | but | because | while | until | before | after | as | although | when | where | so | yet | with | without
    | beyond | behind | about | against | inside | , | -- | ; | . and | . still ,
    """,
    "|",
)
FIRST = _words(
    """
    ba be bra ca co da do fe ga gro ha i ja ka kra la lo ma mi na no o pa pe po qui ra ro sa se sta ta te tri u va
    vi wo ya za
    """
)
MIDDLE = (
    "",
    "",
    *_words(
        """
    ba da ka la li lo ma na ni ra ri ro sa si so ta va vo
    """
    ),
)
LAST = _words(
    """
    bad burg cay dar den field gan grad ham ku lin mouth nia ning pol pur ris shan stad ton tova vik ville wara yama
    zhou
    """
)
COUNTRIES = _words(
    """
    Angola | Argentina | Australia | Azerbaijan | Bangladesh | Belarus | Bolivia | Brazil | Cameroon | Canada |
    Chile | China | Colombia | Cuba | the Dominican Republic | Ecuador | Egypt | Ethiopia | France | Germany | Ghana
    | India | Indonesia | Iran | Iraq | Italy | Japan | Kazakhstan | Kenya | Libya | Malaysia | Mexico | Morocco |
    Mozambique | Myanmar | the Netherlands | Nigeria | Pakistan | Peru | the Philippines | Poland | Romania | Russia
    | Saudi Arabia | Somalia | South Africa | South Korea | Spain | Sudan | Syria | Tanzania | Thailand | Turkey |
    Ukraine | the United Kingdom | the United States | Uzbekistan | Venezuela | Vietnam | Zambia
    """,
    "|",
)


def free(count: int) -> list[str]:
    """Free text: 3 to 70 words, about 20 in the middle."""
    draw = random.Random(SEED)

    def clause() -> str:
        return (
            f"the {draw.choice(ADJECTIVES)} {draw.choice(NOUNS)} {draw.choice(VERBS)} "
            f"{draw.choice(('a', 'the', 'its', 'every'))} {draw.choice(NOUNS)}"
        )

    made = []
    for _ in range(count):
        wanted = min(70, max(3, round(draw.lognormvariate(3.0, 0.5))))
        words = f"{draw.choice(OPENERS)} {draw.choice(ADJECTIVES)} {draw.choice(NOUNS)} {clause()}".split()
        while len(words) < wanted:
            words += f"{draw.choice(LINKS)} {clause()}".split()
        made.append(" ".join(words[:wanted]) + " .")
    return made


def templates(count: int) -> list[str]:
    """Statements about cities, a true and a false one of each, side by side."""
    draw = random.Random(SEED)
    made: list[str] = []
    while len(made) < count:
        city = (draw.choice(FIRST) + draw.choice(MIDDLE) + draw.choice(LAST)).title()
        made += [f"The city of {city} is in {country}." for country in draw.sample(COUNTRIES, 2)]
    return made[:count]


TEXTS: dict[str, Callable[[int], list[str]]] = {"free": free, "templates": templates}
