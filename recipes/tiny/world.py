"""What there is to know in the tiny world: two dozen animals, and five things to ask about each."""

ASPECTS: tuple[str, ...] = ("home", "food", "look", "young", "skill")

# animal: (home, food, look, young, skill), each as it stands inside a sentence
_TABLE: dict[str, tuple[str, str, str, str, str]] = {
    "otter": ("in clean rivers", "fish and crabs", "thick brown fur", "pups", "floating on its back"),
    "fox": ("at the edge of the woods", "mice and berries", "a bushy red tail", "kits", "hearing mice under snow"),
    "owl": ("in hollow trees", "voles and beetles", "large round eyes", "owlets", "flying without a sound"),
    "camel": ("in the dry desert", "thorny shrubs", "a tall hump", "calves", "walking far without water"),
    "goat": ("on rocky hills", "grass and weeds", "two curved horns", "kids", "climbing steep cliffs"),
    "frog": ("near quiet ponds", "flies and worms", "smooth green skin", "tadpoles", "jumping far"),
    "bear": ("in deep forests", "honey and salmon", "heavy paws", "cubs", "sleeping through the winter"),
    "swan": ("on calm lakes", "water plants", "a curved white neck", "cygnets", "gliding over the water"),
    "penguin": ("on icy coasts", "krill and squid", "black and white feathers", "chicks", "diving deep"),
    "giraffe": ("on open plains", "acacia leaves", "a very long neck", "calves", "reaching high branches"),
    "horse": ("in green meadows", "hay and oats", "a flowing mane", "foals", "running fast"),
    "rabbit": ("in long burrows", "clover and carrots", "long soft ears", "bunnies", "digging tunnels"),
    "squirrel": ("high in oak trees", "nuts and acorns", "a fluffy grey tail", "kits", "hiding food for later"),
    "bat": ("in dark caves", "moths and gnats", "thin leathery wings", "pups", "finding its way by sound"),
    "eagle": ("on high cliffs", "hares and snakes", "a hooked yellow beak", "eaglets", "seeing very far"),
    "dolphin": ("in warm seas", "herring and shrimp", "sleek grey skin", "calves", "leaping over waves"),
    "hedgehog": ("under garden hedges", "slugs and snails", "sharp little spines", "hoglets", "rolling into a ball"),
    "koala": ("in gum trees", "eucalyptus leaves", "a big black nose", "joeys", "sleeping most of the day"),
    "panda": ("in misty mountains", "bamboo shoots", "dark rings around its eyes", "cubs", "sitting up to eat"),
    "wolf": ("in northern forests", "deer and elk", "a shaggy grey coat", "pups", "hunting in a pack"),
    "beaver": ("in a lodge of sticks", "bark and twigs", "a flat wide tail", "kits", "building dams"),
    "snail": ("under damp stones", "lettuce and moss", "a spiral shell", "hatchlings", "crawling up walls"),
    "turtle": ("along sandy shores", "jellyfish and seaweed", "a hard round shell", "hatchlings", "holding its breath"),
    "parrot": ("in leafy rainforests", "fruit and seeds", "bright feathers", "chicks", "copying voices"),
}

ANIMALS: tuple[str, ...] = tuple(_TABLE)
FACTS: dict[tuple[str, str], str] = {
    (animal, aspect): value for animal, row in _TABLE.items() for aspect, value in zip(ASPECTS, row, strict=True)
}
