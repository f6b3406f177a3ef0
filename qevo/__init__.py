"""qevo: evolve integer neural networks."""
