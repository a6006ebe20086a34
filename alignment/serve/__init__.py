"""`alignment serve`: runs behind OpenAI's protocol; adapters of one base share it and its batches."""
