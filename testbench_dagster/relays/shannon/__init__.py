"""What a relay on Pocket's Shannon network is made of: keys, ring signatures, wire messages, answers' proofs.

Pure modules without I/O (key files aside): ``protobuf`` and ``messages`` (the wire), ``bech32`` and ``keys``
(addresses, private keys), ``secp256k1`` and ``rings`` (signing requests), ``responses`` (verifying what
suppliers signed), ``streams`` (several signed answers in one body).
"""
