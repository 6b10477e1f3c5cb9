"""Evidence bundles over the stores: written for a dispute, and checked again elsewhere."""
