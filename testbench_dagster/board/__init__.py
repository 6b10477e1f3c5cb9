"""Pages and feeds served over HTTP.

Belongs here: serving what `ranking` renders to people and gateways, over HTTP. Does not: rendering, ranking,
or reading the stores.
"""
