"""May these checkpoints be mixed: tensors, configurations, tokenizers compared; other names and shapes brought together."""
