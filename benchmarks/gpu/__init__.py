"""One script that tries and measures everything on a CUDA machine; see README.md here."""
