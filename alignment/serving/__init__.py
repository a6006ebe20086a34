"""Servers: an HTTP server that bounds its clients, and batching of requests to one model."""
