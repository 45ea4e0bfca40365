"""From features to answers: evaluation, questions about a passage, pages."""
