"""Networks and features as files for inference elsewhere."""
