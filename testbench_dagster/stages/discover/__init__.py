"""Who the suppliers are (Manager): the roster, heights and sessions."""
