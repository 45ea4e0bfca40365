"""From data set JSON to model features, and from logits back to answer text; no MindSpore in here."""
