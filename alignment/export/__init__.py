"""A trained model as others take it: a folder for Transformers or vLLM, with a model card."""
