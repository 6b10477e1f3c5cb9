"""Relays on Pocket's Shannon network.

At the bottom pure modules without I/O (key files aside): ``protobuf`` and ``messages`` (the wire), ``bech32``
and ``keys`` (addresses, private keys), ``secp256k1`` and ``rings`` (signing requests), ``responses``
(verifying what suppliers signed), ``streams`` (several signed answers in one body). They import nothing of
this project but errors. The transport and what it needs of sessions stand on them.

Belongs here: signing relays, verifying answers, sessions, quotas and checks of native relays. Does not:
storing sessions and heights (`stages/discover`), and relays through gateways (`transports/path`).
"""
