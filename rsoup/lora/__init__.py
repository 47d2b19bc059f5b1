"""Adapters: what their files mean, the exact soup of them, and how it is written."""
