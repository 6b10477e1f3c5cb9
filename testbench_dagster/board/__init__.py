"""Pages and feeds over HTTP: the board for people, the feeds for gateways.

Belongs here: what a page reads and in which order it shows it, addresses, drawings, templates, serving; and
the page that is published, made from the same templates. Does not: writing, arithmetic of scores, loops over
passes, or what `ranking` renders.
"""
