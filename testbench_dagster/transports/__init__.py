"""How suppliers are reached: one package per transport, and the bounded HTTP exchange they share."""
