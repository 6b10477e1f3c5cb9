"""How processes keep out of each other's way: heartbeats, leases, and budgets and paces nobody can exceed.

Everything rests on the document store alone (SQLite or MongoDB), so it holds among all processes that share
one: runs, commands, several machines.

Belongs here: heartbeats, leases, budgets, paces, and who writes which facts now. Does not: what the processes
do while they hold a lease.
"""
