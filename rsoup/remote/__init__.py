"""Bytes that lie elsewhere, read ahead in bounded memory and proven as they pass, wherever they come from."""
