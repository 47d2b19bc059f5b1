"""Checkpoints in object stores (s3://, gs://, az://): listed, their small files brought here, their weights streamed."""
