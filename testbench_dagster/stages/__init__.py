"""The work of the platform over the stores: the only place where stores and engines meet."""
