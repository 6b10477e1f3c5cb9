"""The version of the signatures framework; a module of its own because hashes of tasks need nothing else."""

#: Raise when other requests are built from the same configuration (all tasks are asked anew), or another
#: signature is made of the same answer (stored answers are scored anew).
SIGNATURES_VERSION = "2"
#: Its tasks: two pages, and probes.
SIGNATURE_TASKS = ("tokenizer", "config", "identity")
