"""A real pretrained model that continues real stories, taught to be cheerful."""
