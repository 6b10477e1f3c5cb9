"""Who is asked what and when (Manager): the planner over the stores, and the plans it caches."""
