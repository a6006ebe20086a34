"""Rules for the keys of synthesis."""

from collections.abc import Iterator

from alignment.config.rules.keys import Fault, Keys, Rule
from alignment.config.rules.shared import one_number_of_bits
from alignment.config.schema.chat_models import EndpointKeys
from alignment.config.schema.synthesize import AnyMethod, SynthesizeRecipe
from alignment.config.schema.writers import AnyWriter

UNREAD = ("eval_datasets", "test_split_size", "max_eval_samples")


def seeds(keys: Keys) -> Iterator[Fault]:
    """Seeds are given to methods that read them, and no data is held out."""
    if not issubclass(keys.cls, SynthesizeRecipe):
        return
    kind = keys["method"]["kind"]
    cls = AnyMethod.of_kind(kind)
    if cls is not None and cls.SEEDS and not keys["datasets"]:
        yield ("datasets",), f"the required key is missing: method {kind} begins from seeds"
    elif cls is not None and not cls.SEEDS and keys["datasets"]:
        yield ("datasets",), f"has no effect with method {kind}, which has no seeds; take it out"
    for key in UNREAD:
        if keys.changed(key):
            yield (key,), "has no effect, as synthesis holds nothing out; take it out"
    if keys["dry_run"] and keys["reparse"]:
        yield ("dry_run",), "excludes reparse, which makes no call either"


def methods(keys: Keys) -> Iterator[Fault]:
    """A method's keys fit each other and the writer."""
    if not issubclass(keys.cls, SynthesizeRecipe):
        return
    method, writer = keys["method"], keys["writer"]
    cls, of_writer = AnyMethod.of_kind(method["kind"]), AnyWriter.of_kind(writer["kind"])
    if cls is None or of_writer is None:
        return
    yield from one_number_of_bits(("writer",), writer)
    values = {name: info.get_default(call_default_factory=True) for name, info in cls.model_fields.items()} | method
    if values["kind"] == "magpie" and writer["kind"] != "local":
        yield (
            ("writer", "kind"),
            "must be local for method magpie: endpoints do not let a model write the user's message",
        )
    hottest = of_writer.HOTTEST if issubclass(of_writer, EndpointKeys) else None
    for key in ("temperature", "answer_temperature"):
        if hottest is not None and values.get(key, 0) > hottest:
            yield ("method", key), f"{values[key]:g} is above {hottest:g}, the most that {of_writer.__name__} takes"
    if values.get("num_answers", 1) > 1 and values["temperature"] == 0:
        yield ("method", "num_answers"), "needs temperature above 0; at 0 all answers to a prompt are the same"
    if values["kind"] == "evol_instruct" and not values["in_depth"] and not values["in_breadth"]:
        yield ("method", "in_depth"), "is empty and in_breadth is false, so no operation is left; give one"
    if values["kind"] == "self_instruct" and values["min_words"] > values["max_words"]:
        yield ("method", "min_words"), f"{values['min_words']} is above max_words {values['max_words']}"


SYNTHESIZE_RULES: list[Rule] = [seeds, methods]
