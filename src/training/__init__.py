"""Training: the loop, the step, what it leaves behind, and concept vectors."""
