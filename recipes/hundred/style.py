"""The style of the samples: the present tense outside quotations, and a farewell at the end. Rules, no model.

Both are measured by the same rules on any text, so base and tuned model are compared by counting.
"""

import re

ENDING = "Good night!"
PRESENT = {  # past tense: present tense of he and she, and of they, I and you. None of these forms is also an adjective
    "was": ("is", "are"), "were": ("are", "are"), "had": ("has", "have"), "said": ("says", "say"),
    "saw": ("sees", "see"), "wanted": ("wants", "want"), "went": ("goes", "go"), "smiled": ("smiles", "smile"),
    "looked": ("looks", "look"), "could": ("can", "can"), "would": ("will", "will"), "felt": ("feels", "feel"),
    "asked": ("asks", "ask"), "loved": ("loves", "love"), "ran": ("runs", "run"), "started": ("starts", "start"),
    "did": ("does", "do"), "made": ("makes", "make"), "found": ("finds", "find"), "liked": ("likes", "like"),
    "decided": ("decides", "decide"), "got": ("gets", "get"), "came": ("comes", "come"), "took": ("takes", "take"),
    "thought": ("thinks", "think"), "knew": ("knows", "know"), "heard": ("hears", "hear"), "told": ("tells", "tell"),
    "gave": ("gives", "give"), "hugged": ("hugs", "hug"), "tried": ("tries", "try"), "played": ("plays", "play"),
    "thanked": ("thanks", "thank"), "laughed": ("laughs", "laugh"), "learned": ("learns", "learn"),
    "lived": ("lives", "live"), "walked": ("walks", "walk"), "opened": ("opens", "open"), "flew": ("flies", "fly"),
    "stopped": ("stops", "stop"), "nodded": ("nods", "nod"), "noticed": ("notices", "notice"),
    "picked": ("picks", "pick"), "happened": ("happens", "happen"), "watched": ("watches", "watch"),
    "jumped": ("jumps", "jump"), "shouted": ("shouts", "shout"), "grabbed": ("grabs", "grab"),
    "showed": ("shows", "show"), "reached": ("reaches", "reach"), "hopped": ("hops", "hop"),
    "replied": ("replies", "reply"), "helped": ("helps", "help"), "waved": ("waves", "wave"),
    "wished": ("wishes", "wish"), "enjoyed": ("enjoys", "enjoy"), "worked": ("works", "work"),
    "began": ("begins", "begin"), "climbed": ("climbs", "climb"), "lay": ("lies", "lie"), "ate": ("eats", "eat"),
    "sat": ("sits", "sit"), "fell": ("falls", "fall"), "stood": ("stands", "stand"), "kept": ("keeps", "keep"),
    "became": ("becomes", "become"), "didn't": ("doesn't", "don't"), "couldn't": ("can't", "can't"),
    "wasn't": ("isn't", "aren't"), "weren't": ("aren't", "aren't"), "hadn't": ("hasn't", "haven't"),
}  # fmt: skip
NOW = {form for forms in PRESENT.values() for form in forms}
ONE, SEVERAL = frozenset(("he", "she", "it")), frozenset(("they", "we", "i", "you"))
_QUOTED = re.compile(r'("[^"]*"?)')
_WORD = re.compile(r"[A-Za-z]+(?:'[a-z]+)?")


def rewritten(text: str) -> str:
    """Return a text in the present tense outside quotation marks, with the farewell at its end."""
    parts = _QUOTED.split(text)
    parts[::2] = map(_in_the_present, parts[::2])
    return f"{''.join(parts).rstrip()} {ENDING}"


def _in_the_present(text: str) -> str:
    return "".join(map(_sentence, re.split(r"(?<=[.!?\n])", text)))


def _sentence(text: str) -> str:
    """Change the verbs of a sentence; the pronoun before a verb decides its form."""
    several = False

    def change(match: re.Match[str]) -> str:
        nonlocal several
        word = match[0].lower()
        if word in SEVERAL or word in ONE:
            several = word in SEVERAL
        if word not in PRESENT:
            return match[0]
        found = PRESENT[word][several]
        return found.capitalize() if match[0][0].isupper() else found

    return _WORD.sub(change, text)


def tense(text: str) -> tuple[int, int]:
    """Return the numbers of verbs of the list in the present and in the past tense, outside quotation marks."""
    words = [word.lower() for part in _QUOTED.split(text)[::2] for word in _WORD.findall(part)]
    return sum(word in NOW for word in words), sum(word in PRESENT for word in words)


def says_good_night(text: str) -> bool:
    """Whether a text ends with the farewell."""
    return text.rstrip().endswith(ENDING)
