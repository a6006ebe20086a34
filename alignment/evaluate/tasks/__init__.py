"""Tasks of lm-eval: loading them, answering them with a policy, and comparing policies document by document."""
