"""Knowledge bases: safe files, concept vectors, retrieval; no MindSpore in here."""
