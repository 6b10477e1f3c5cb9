"""Planning: which prompts a supplier is asked next, as pure functions of what is already known."""
