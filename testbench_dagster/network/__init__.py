"""Who is asked: the roster of suppliers, the sources it is read from, and how each supplier is reached."""
