"""A whole alignment run that needs nothing: data, tokenizer, model and truth are made here."""
