"""The schema of judges, by its former name."""

from alignment.config.schema.judges import KEY_VARIABLES as KEY_VARIABLES
from alignment.config.schema.judges import JudgeEntry as JudgeEntry
from alignment.config.schema.judges import PricesEntry as PricesEntry
from alignment.config.schema.judges import at_once as at_once
