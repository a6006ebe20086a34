"""The stage `prepare`: reading, running the steps, writing and the page."""
