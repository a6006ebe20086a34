"""An OpenAI-compatible server on loopback that writes by rules: it answers the prompts of every method."""

import hashlib
import random
import re

from tests.calls.chat_server import ChatServer, Reply, completion

VERBS = "Write Explain List Describe Compare Rank Translate Summarise Classify Detect Rewrite Invent Plan Name".split()
THINGS = (
    "a short poem,the rules of chess,three uses of salt,how bridges carry weight,two kinds of bread,five rivers,"
    "the sentence,a news story,the tone of a letter,a false claim,an old proverb,a board game,a week of meals,"
    "birds of the coast,a polite refusal,the causes of rain,an unusual hobby,the plot of a film,a train journey,"
    "mistakes in a recipe,the price of coffee,a garden in winter,a chemical reaction,the moons of Jupiter"
).split(",")
ENDS = (
    "for a child of six,in the style of a diary,with one example each,and give your reasons,using simple words only,"
    "as briefly as you can,for somebody who is in a hurry,without using the letter z,and end with a question,"
    "from the oldest to the newest,so that it rhymes where possible,with a title that fits"
).split(",")


def numbers(text: str) -> random.Random:
    return random.Random(hashlib.sha256(text.encode()).hexdigest())


def new_task(rng: random.Random) -> str:
    return f"{rng.choice(VERBS)} {rng.choice(THINGS)} {rng.choice(ENDS)}."


def by_rules(prompt: str, seed: int = 0) -> str:
    """Return the reply to a prompt: a function of its text and seed alone."""
    rng = numbers(f"{seed} {prompt}")
    if found := re.search(r"numbered (\d+) to (\d+)", prompt):
        tasks = [new_task(rng) for _ in range(int(found[1]), int(found[2]) + 1)]
        tasks[0] = "Draw a picture of the sea and of two ships."
        tasks[1] = "Too short."
        return "\n".join(f"{number}. {task}" for number, task in enumerate(tasks, int(found[1])))
    task = prompt.rsplit("Task: ", 1)[-1].strip()
    if "answer yes or no" in prompt:
        return "Yes" if re.match("Classify|Detect|Rank", task) else "No, it is not."
    if "First choose a label" in prompt:
        return "Class label: A\nText: one of the first kind\nClass label: B\nText: one of the second kind"
    if "an input that the task can be applied to" in prompt:
        if task.startswith("Write"):
            return f"Example 1\nOutput: Here it is, about {task[6:20]}"
        return (
            f"Example 1\nInput: part {rng.randrange(90)}\nOutput: the first {task[:12]}\n"
            f"Example 2\nInput: part {rng.randrange(100, 200)}\nOutput: the second {task[:12]}\n"
            "Example 3\nInput: nothing\nOutput:"
        )
    return f"An answer of {rng.randrange(10**6)}."


class WriterServer(ChatServer):
    """Counts the replies to each request."""

    def __init__(self, rules=by_rules) -> None:
        self.rules = rules
        super().__init__(self._behave)

    def _behave(self, prompt: str, count: int) -> Reply:
        body = next(each for each in reversed(self.requests) if each["messages"][0]["content"] == prompt)
        text = self.rules(body["messages"][-1]["content"], body.get("seed") or 0)
        return text if isinstance(text, Reply) else completion(text)
