"""How suppliers are reached: one package per transport, and the bounded HTTP exchange they share.

Belongs here: one package per transport, the exchange they share, and the sources that list suppliers. Does
not: queues, retries, budgets, and where attempts are stored.
"""
