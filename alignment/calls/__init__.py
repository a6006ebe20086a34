"""Clients for language models over HTTP or in this process: calls, retries, rate limits, prices, budget and store."""
