"""KT-NET on MindSpore: knowledge-enhanced reading comprehension."""
