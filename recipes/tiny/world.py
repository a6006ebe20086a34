"""The facts of the tiny world: twelve animals with four aspects each."""

ASPECTS: tuple[str, ...] = ("home", "food", "young", "skill")

# animal: (home, food, young, skill), each as used in a sentence
_TABLE: dict[str, tuple[str, str, str, str]] = {
    "otter": ("in clean rivers", "fish and crabs", "pups", "floating on its back"),
    "fox": ("at the edge of the woods", "mice and berries", "kits", "hearing mice under snow"),
    "owl": ("in hollow trees", "voles and beetles", "owlets", "flying without a sound"),
    "camel": ("in the dry desert", "thorny shrubs", "calves", "walking far without water"),
    "frog": ("near quiet ponds", "flies and worms", "tadpoles", "jumping far"),
    "bear": ("in deep forests", "honey and salmon", "cubs", "sleeping through the winter"),
    "penguin": ("on icy coasts", "krill and squid", "chicks", "diving deep"),
    "horse": ("in green meadows", "hay and oats", "foals", "running fast"),
    "eagle": ("on high cliffs", "hares and snakes", "eaglets", "seeing very far"),
    "hedgehog": ("under garden hedges", "slugs and snails", "hoglets", "rolling into a ball"),
    "beaver": ("by slow streams", "bark and twigs", "kittens", "building dams"),
    "koala": ("in gum trees", "eucalyptus leaves", "joeys", "sleeping most of the day"),
}

ANIMALS: tuple[str, ...] = tuple(_TABLE)
FACTS: dict[tuple[str, str], str] = {
    (animal, aspect): value for animal, row in _TABLE.items() for aspect, value in zip(ASPECTS, row, strict=True)
}
